{{/* The first order with curl; the addresses of the three services, and who may call. */}}
{{- define "b2b-orders.firstOrder" -}}
{{- $token := ternary " -H \"Authorization: Bearer $TOKEN\"" "" (eq (toString .auth) "jwt") -}}
The first order, in a database that is empty; otherwise with the ids that the first two calls answer
{{- if $token }}. $TOKEN is an
access token for customers:write, products:write and sagas:write{{ end }}:

  curl -s {{ .customers }}/admin/customers/create-customer{{ $token }} -H 'Content-Type: application/json' \
    -d '{"name": "Initech", "email": "orders@initech.example"}'
  curl -s {{ .orders }}/admin/products/create-product{{ $token }} -H 'Content-Type: application/json' \
    -d '{"sku": "BOLT-M8", "name": "Bolt M8", "price_cents": 25, "stock": 1000}'
  curl -s {{ .orchestrator }}/orchestrator/create-and-confirm-order{{ $token }} -H 'Content-Type: application/json' \
    -d '{"customer_id": 1, "items": [{"product_id": 1, "qty": 2}], "idempotency_key": "first-order"}'

Send the last one again: the same answer, and still one order.
{{- end }}
