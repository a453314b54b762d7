{{- define "tokenyard.labels" -}}
app.kubernetes.io/name: tokenyard
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "tokenyard.selector" -}}
app.kubernetes.io/name: tokenyard
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tokenyard.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "tokenyard.pod" -}}
automountServiceAccountToken: false
{{ include "tokenyard.podBase" . }}
{{- end }}

{{- define "tokenyard.podBase" -}}
# Kubernetes' links of a release named tokenyard would set TOKENYARD_GATEWAY_PORT and the like.
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  fsGroup: 1000
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "tokenyard.container" -}}
image: {{ include "tokenyard.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "tokenyard.secretEnv" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef: {name: {{ .secret }}, key: {{ .key }}}
{{- end }}

{{- define "tokenyard.env" -}}
{{ include "tokenyard.secretEnv" (dict "name" "TOKENYARD_SECRET" "secret" .Values.existingSecret "key" "secret") }}
{{ include "tokenyard.secretEnv" (dict "name" "TOKENYARD_DATABASE_URL" "secret" .Values.existingSecret "key" "database-url") }}
{{ include "tokenyard.secretEnv" (dict "name" "TOKENYARD_REDIS_URL" "secret" .Values.existingSecret "key" "redis-url") }}
- {name: TOKENYARD_HOST, value: "0.0.0.0"}
- {name: TOKENYARD_DATA_DIR, value: /data}
- {name: TOKENYARD_BLOB_URL, value: {{ .Values.blobUrl | quote }}}
- {name: TOKENYARD_RAY_URL, value: "http://{{ .Release.Name }}-ray-head-svc:8265"}
- {name: TOKENYARD_RAY_TOKEN_FILE, value: /var/run/tokenyard/ray/token}
- {name: TOKENYARD_MODELS, value: {{ include "tokenyard.modelIds" . | quote }}}
- {name: TOKENYARD_MODELS_DIR, value: /etc/tokenyard/models}
- {name: TOKENYARD_MODELS_PATH, value: {{ .Values.ray.modelsPath | quote }}}
{{- with .Values.training }}
- {name: TOKENYARD_TRAINING_WORKERS, value: {{ .workers | quote }}}
- {name: TOKENYARD_TRAINING_NUM_CPUS, value: {{ .cpus | quote }}}
- {name: TOKENYARD_TRAINING_NUM_GPUS, value: {{ .gpus | quote }}}
- {name: TOKENYARD_TRAINING_STRATEGY, value: {{ .strategy | quote }}}
- {name: TOKENYARD_TRAINING_QUANTIZED_MODELS, value: {{ .quantizedModels | toJson | quote }}}
- {name: TOKENYARD_TRAINING_TIMEOUT_S, value: {{ .timeoutSeconds | int | quote }}}
- {name: TOKENYARD_TRAINING_MAX_RUNNING, value: {{ .maxRunning | quote }}}
- {name: TOKENYARD_TRAINING_AUTOSCALED, value: {{ .autoscaled | quote }}}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tokenyard.volumeMounts" -}}
- {name: data, mountPath: /data}
- {name: tmp, mountPath: /tmp}
- {name: ray-token, mountPath: /var/run/tokenyard/ray, readOnly: true}
- {name: models, mountPath: {{ .Values.ray.modelsPath }}, readOnly: true}
- {name: model-specs, mountPath: /etc/tokenyard/models, readOnly: true}
{{- end }}

{{- define "tokenyard.modelIds" -}}
{{- $ids := list }}
{{- range .Values.models }}{{ $ids = append $ids .id }}{{ end }}
{{- $ids | toJson }}
{{- end }}

{{- define "tokenyard.volumes" -}}
- {name: data, emptyDir: {}}
- {name: tmp, emptyDir: {}}
- name: ray-token
  secret:
    secretName: {{ .Values.existingSecret }}
    items: [{key: auth_token, path: token}]
- name: models
  persistentVolumeClaim: {claimName: {{ .Values.ray.modelsClaim }}, readOnly: true}
- name: model-specs
  configMap: {name: {{ .Release.Name }}-models}
{{- end }}

{{- define "tokenyard.httpProbes" -}}
livenessProbe:
  httpGet: {path: /health, port: http}
  periodSeconds: 10
readinessProbe:
  httpGet: {path: {{ .ready }}, port: http}
  periodSeconds: 3
{{- end }}
