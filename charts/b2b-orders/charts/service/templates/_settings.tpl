{{/* A block of global, with what the service has otherwise: `include "service.shared" (list . "db") | fromJson`. */}}
{{- define "service.shared" -}}
{{- $values := (index . 0).Values -}}
{{- $block := deepCopy (index $values.global (index . 1) | default dict) -}}
{{- range $name, $value := index $values (index . 1) }}
{{- $_ := set $block $name $value }}
{{- end }}
{{- toJson $block }}
{{- end }}

{{/* An environment variable's text. YAML takes a bare `off` for false, and numbers for floats: 1e+06. */}}
{{- define "service.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{/* The settings of the service that are no secret, as a map of environment variables in JSON. */}}
{{- define "service.settings" -}}
{{- $db := include "service.shared" (list . "db") | fromJson -}}
{{- $config := include "service.shared" (list . "config") | fromJson -}}
{{- $auth := get $config "AUTH" | default "off" -}}
{{- $settings := dict
      "PORT" (toString .Values.service.port)
      "ADMIN_PORT" (toString .Values.service.adminPort)
      "DB_POOL_SIZE" (include "service.text" $db.poolSize)
      "SERVICE_TOKEN_FILE" "/run/b2b-orders/service-token" }}
{{- range $name, $value := omit $config "AUTH" "OTEL_RESOURCE_ATTRIBUTES" }}
{{- if not (kindIs "invalid" $value) }}
{{- $_ := set $settings $name (include "service.text" $value) }}
{{- end }}
{{- end }}
{{- $_ := set $settings "AUTH" $auth }}
{{- range $peer, $address := .Values.peers }}
{{- $url := get $address "url" | default (printf "http://%s%s:%v" (include "service.prefix" $) $peer $address.port) }}
{{- $_ := set $settings (printf "%s_API_BASE" (upper $peer)) $url }}
{{- end }}
{{- toJson $settings }}
{{- end }}

{{/* The environment that does not stand in the ConfigMap: secrets, and what only the pod knows. */}}
{{- define "service.env" -}}
{{- $db := include "service.shared" (list . "db") | fromJson -}}
{{- $config := include "service.shared" (list . "config") | fromJson -}}
{{- if $db.host -}}
- name: DB_HOST
  value: {{ $db.host | quote }}
- name: DB_PORT
  value: {{ include "service.text" $db.port | quote }}
- name: DB_NAME
  value: {{ $db.name | quote }}
- name: DB_USERNAME
  valueFrom:
    secretKeyRef:
      name: {{ $db.existingSecret }}
      key: {{ $db.usernameKey }}
- name: DB_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ $db.existingSecret }}
      key: {{ $db.passwordKey }}
{{- else -}}
- name: DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ $db.existingSecret }}
      key: {{ $db.urlKey }}
{{- end }}
{{ include "service.resourceAttributes" (get $config "OTEL_RESOURCE_ATTRIBUTES") }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Whose telemetry it is. A variable can only name those before it. */}}
{{- define "service.resourceAttributes" -}}
- name: K8S_POD
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: K8S_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: K8S_NODE
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
- name: OTEL_RESOURCE_ATTRIBUTES
  value: k8s.pod.name=$(K8S_POD),k8s.namespace.name=$(K8S_NAMESPACE),k8s.node.name=$(K8S_NODE),service.instance.id=$(K8S_POD)
  {{- with . }},{{ . }}{{ end }}
{{- end }}
