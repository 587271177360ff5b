{{/*
What may be called from outside, by service. Every prefix is written out: `/admin/customers` would also lead to
`/admin/customers/internal`, which only the services call one another by. A prefix ends with a path element.
*/}}
{{- define "b2b-orders.routes" -}}
customers:
  - /admin/customers/create-customer
  - /admin/customers/find-all
  - /admin/customers/find-one
  - /admin/customers/update
  - /admin/customers/logic-delete
orders:
  - /admin/products
  - /admin/orders
orchestrator:
  - /orchestrator
{{- end }}
