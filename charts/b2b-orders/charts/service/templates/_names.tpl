{{/*
What things are called. In the umbrella an object is <release>-<service>. A release of this chart alone may
have the same names: b2b-orders, or just orders.
*/}}
{{- define "service.prefix" -}}
{{- $suffix := printf "-%s" .Values.service.name -}}
{{- if not .Chart.IsRoot }}{{ .Release.Name }}-
{{- else if hasSuffix $suffix .Release.Name }}{{ trimSuffix $suffix .Release.Name }}-
{{- else if ne .Release.Name .Values.service.name }}{{ .Release.Name }}-
{{- end }}
{{- end }}

{{- define "service.fullname" -}}
{{ include "service.prefix" . }}{{ .Values.service.name }}
{{- end }}

{{/* What never changes about a pod; `component` parts the pods that serve from those of commands. */}}
{{- define "service.selectorLabels" -}}
app.kubernetes.io/name: {{ .Values.service.name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* No versions: an upgrade that changes nothing about the pods leaves them alone. */}}
{{- define "service.podLabels" -}}
{{ include "service.selectorLabels" . }}
app.kubernetes.io/part-of: b2b-orders
{{- end }}

{{- define "service.labels" -}}
{{ include "service.podLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "service-%s" .Chart.Version | replace "+" "_" }}
{{- end }}
