{{/*
What a service may open of the database's connections at most: all its pods, one more while a new release takes
over, and its commands. In JSON: `total`, and `how` it is made.
*/}}
{{- define "service.connections" -}}
{{- $db := include "service.shared" (list . "db") | fromJson -}}
{{- $scaled := or .Values.autoscaling.hpa.enabled .Values.autoscaling.keda.enabled -}}
{{- $pods := ternary .Values.autoscaling.maxReplicas .Values.replicas $scaled | int -}}
{{- $commands := ternary 1 0 (eq .Values.migrations.mode "hook") -}}
{{- range .Values.cronJobs }}
{{- $commands = add $commands (ternary 0 1 (eq (toString .enabled) "false")) }}
{{- end }}
{{- $total := add (mul (add 1 $pods) (add 1 (int $db.poolSize))) $commands }}
{{- $how := printf "%s %d = (%s %d + 1 in an upgrade) x (db.poolSize %d + 1 for probes) + %d for commands" .Values.service.name $total (ternary "autoscaling.maxReplicas" "replicas" $scaled) $pods (int $db.poolSize) (int $commands) }}
{{- dict "total" $total "how" $how | toJson }}
{{- end }}

{{/* Reasons not to install this, in a JSON list: what only several values together can be wrong about. */}}
{{- define "service.refusals" -}}
{{- $refusals := list -}}
{{- $image := include "service.shared" (list . "image") | fromJson -}}
{{- $db := include "service.shared" (list . "db") | fromJson -}}
{{- $config := include "service.shared" (list . "config") | fromJson -}}
{{- $scaling := .Values.autoscaling -}}
{{- if not .Values.service.name }}
{{- $refusals = append $refusals "service.name is empty: say which service, with -f values-customers.yaml, values-orders.yaml or values-orchestrator.yaml" }}
{{- end }}
{{- if gt (len (include "service.fullname" .)) 40 }}
{{- $refusals = append $refusals (printf "the release name %s is too long: names of objects begin with it" .Release.Name) }}
{{- end }}
{{- if not $db.existingSecret }}
{{- $refusals = append $refusals "global.db.existingSecret is empty: make a Secret with the address of the database (DATABASE_URL) and a service token (SERVICE_TOKEN), and name it; README.md has the command" }}
{{- end }}
{{- if eq $image.tag "latest" }}
{{- $refusals = append $refusals "global.image.tag is latest: name a version, or a digest, so that every pod runs the same" }}
{{- end }}
{{- if and $scaling.hpa.enabled $scaling.keda.enabled }}
{{- $refusals = append $refusals "autoscaling.hpa.enabled and autoscaling.keda.enabled: KEDA makes a HorizontalPodAutoscaler of its own, and two would fight over one Deployment; switch one off" }}
{{- end }}
{{- $scaled := or $scaling.hpa.enabled $scaling.keda.enabled }}
{{- if and $scaled (gt (int $scaling.minReplicas) (int $scaling.maxReplicas)) }}
{{- $refusals = append $refusals (printf "autoscaling.minReplicas %d is more than autoscaling.maxReplicas %d" (int $scaling.minReplicas) (int $scaling.maxReplicas)) }}
{{- end }}
{{- if .Values.podDisruptionBudget.enabled }}
{{- if and $scaled (eq (int $scaling.minReplicas) 1) }}
{{- $refusals = append $refusals "autoscaling.minReplicas is 1 and podDisruptionBudget.enabled: a budget protects nothing where there is one pod; have two, or switch it off" }}
{{- else if and (not $scaled) (lt (int .Values.replicas) 2) }}
{{- $refusals = append $refusals (printf "replicas is %d and podDisruptionBudget.enabled: a budget protects nothing where there is one pod; have two, or switch it off" (int .Values.replicas)) }}
{{- end }}
{{- end }}
{{- if eq (toString (get $config "AUTH")) "jwt" }}
{{- range $name := list "OIDC_ISSUER" "OIDC_AUDIENCE" "OIDC_JWKS" }}
{{- if not (get $config $name) }}
{{- $refusals = append $refusals (printf "config.AUTH is jwt and config.%s is empty: tokens cannot be checked without it" $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- /* chassis/process.py: 3 s for leases, 3 s for spans. */}}
{{- $end := addf .Values.preStopSeconds (get $config "DRAIN_SECONDS") (get $config "SHUTDOWN_TIMEOUT") (get $config "DB_TIMEOUT") 6 }}
{{- if gt $end (float64 .Values.terminationGracePeriodSeconds) }}
{{- $refusals = append $refusals (printf "terminationGracePeriodSeconds %v is less than the %v s that the end of a pod may take: preStopSeconds + config.DRAIN_SECONDS + config.SHUTDOWN_TIMEOUT + config.DB_TIMEOUT + 6" .Values.terminationGracePeriodSeconds $end) }}
{{- end }}
{{- $connections := include "service.connections" . | fromJson }}
{{- if gt (int $connections.total) (int $db.maxConnections) }}
{{- $refusals = append $refusals (printf "the pools may open %d connections, db.maxConnections is %d: %s; lower db.poolSize or the number of pods, or raise max_connections of the database and db.maxConnections" (int $connections.total) (int $db.maxConnections) $connections.how) }}
{{- end }}
{{- if .Values.job.enabled }}
{{- if and (eq (toString (get $config "AUTH")) "jwt") (not .Values.job.token.existingSecret) }}
{{- $refusals = append $refusals "job.enabled and config.AUTH is jwt, but job.token.existingSecret is empty: the orchestrator would refuse every order of the file" }}
{{- end }}
{{- if not .Values.job.name }}
{{- $refusals = append $refusals "job.enabled, but job.name is empty: a run needs a name, under which it is made once" }}
{{- end }}
{{- if ne (len (compact (list (get .Values.job.file.configMap "name") (get .Values.job.file.persistentVolumeClaim "claimName") .Values.job.file.url))) 1 }}
{{- $refusals = append $refusals "job.enabled: say where the file is, in one of job.file.configMap, job.file.persistentVolumeClaim and job.file.url" }}
{{- end }}
{{- end }}
{{- toJson $refusals }}
{{- end }}
