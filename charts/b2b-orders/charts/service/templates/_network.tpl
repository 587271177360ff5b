{{/* The port of an address, said or implied by its scheme. */}}
{{- define "service.portOf" -}}
{{- $url := urlParse . -}}
{{- regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (ternary "443" "80" (eq $url.scheme "https")) }}
{{- end }}

{{/* To whom, on which port: `list PEERS PORT`; anywhere, where there are no peers. */}}
{{- define "service.egress" -}}
- {{ with index . 0 }}to:
    {{- toYaml . | nindent 4 }}
  {{ end }}ports:
    - port: {{ index . 1 }}
      protocol: TCP
{{- end }}

{{/* What every pod needs, whatever it does: names, and the collector. */}}
{{- define "service.egressOfAll" -}}
{{- $network := .Values.global.networkPolicy -}}
{{- $config := include "service.shared" (list . "config") | fromJson -}}
- {{ with $network.dns }}to:
    {{- toYaml . | nindent 4 }}
  {{ end }}ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
{{- with get $config "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" | default (get $config "OTEL_EXPORTER_OTLP_ENDPOINT") }}
{{ include "service.egress" (list $network.otlp (include "service.portOf" .)) }}
{{- end }}
{{- with $network.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "service.egressToDatabase" -}}
{{- $db := include "service.shared" (list . "db") | fromJson -}}
{{- include "service.egress" (list .Values.global.networkPolicy.database (include "service.text" $db.port)) }}
{{- end }}
