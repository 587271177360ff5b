{{- define "b2b-orders.labels" -}}
app.kubernetes.io/name: b2b-orders
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: b2b-orders
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "b2b-orders-%s" .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Address of a service of this release: `list . "orders"`. */}}
{{- define "b2b-orders.address" -}}
{{- $root := index . 0 -}}
http://{{ $root.Release.Name }}-{{ index . 1 }}:{{ (index $root.Values (index . 1)).service.port }}
{{- end }}

{{- define "b2b-orders.smokeTestLabels" -}}
app.kubernetes.io/name: smoke-test
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: b2b-orders
app.kubernetes.io/component: smoke-test
{{- end }}
