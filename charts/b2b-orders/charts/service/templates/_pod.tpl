{{/* What all pods have alike: those that serve, and those of commands. */}}
{{- define "service.pod" -}}
{{- $image := include "service.shared" (list . "image") | fromJson -}}
automountServiceAccountToken: false
# A Service called `db` would set DB_PORT to tcp://… in every pod of its namespace.
enableServiceLinks: false
{{- with $image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Who the pod is. A hook runs before the chart's own ServiceAccount is there, and needs none. */}}
{{- define "service.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "service.fullname" .) }}
{{- else }}{{ .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "service.image" -}}
{{- $image := include "service.shared" (list . "image") | fromJson -}}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}
{{- else }}{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* What all containers have alike. The entry point of the image is `python -m`. */}}
{{- define "service.container" -}}
{{- $image := include "service.shared" (list . "image") | fromJson -}}
image: {{ include "service.image" . | quote }}
imagePullPolicy: {{ $image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: {{ not $image.writableRoot }}
  capabilities:
    drop: [ALL]
{{- end }}

{{/* The token is a file: services read it again when it changes, so that it is rotated without a restart. */}}
{{- define "service.volumeMounts" -}}
- name: service-token
  mountPath: /run/b2b-orders
  readOnly: true
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "service.volumes" -}}
{{- $db := include "service.shared" (list . "db") | fromJson -}}
{{- $token := include "service.shared" (list . "serviceToken") | fromJson -}}
- name: service-token
  secret:
    secretName: {{ $token.existingSecret | default $db.existingSecret }}
    defaultMode: 0440
    items:
      - key: {{ $token.key }}
        path: service-token
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
