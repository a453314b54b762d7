{{- define "tokenyard.rayPod" -}}
{{- include "tokenyard.podBase" .root }}
containers:
  - name: ray
    image: {{ include "tokenyard.image" .root }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    securityContext:
      allowPrivilegeEscalation: false
      capabilities: {drop: [ALL]}
    ports:
      - {name: gcs-server, containerPort: 6379}
      - {name: dashboard, containerPort: 8265}
      - {name: serve, containerPort: 8000}
      - {name: metrics, containerPort: 8080}
    env:
      # Gateways talk to each replica on its own port: Serve's proxy is not on the path of a token.
      - {name: RAY_SERVE_ENABLE_DIRECT_INGRESS, value: "1"}
      - {name: RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD, value: "0"}
      - {name: RAY_worker_niceness, value: "0"}
      - {name: TOKENYARD_REPLICA_DIR, value: /var/lib/tokenyard}
      - {name: TOKENYARD_BLOB_URL, value: {{ .root.Values.blobUrl | quote }}}
      {{- include "tokenyard.secretEnv" (dict "name" "TOKENYARD_REDIS_URL" "secret" .root.Values.existingSecret "key" "redis-url") | nindent 6 }}
      {{- include "tokenyard.secretEnv" (dict "name" "TOKENYARD_METER_SECRET" "secret" .root.Values.existingSecret "key" "meter-secret") | nindent 6 }}
      {{- include "tokenyard.secretEnv" (dict "name" "TOKENYARD_REPLICA_BEARER" "secret" .root.Values.existingSecret "key" "replica-bearer") | nindent 6 }}
      {{- with .root.Values.extraEnv }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    resources: {{ toYaml .resources | nindent 6 }}
    {{- include "tokenyard.rayProbes" . | nindent 4 }}
    volumeMounts:
      - {name: models, mountPath: {{ .root.Values.ray.modelsPath }}, readOnly: true}
      - {name: shm, mountPath: /dev/shm}
      - {name: replica, mountPath: /var/lib/tokenyard}
volumes:
  - name: models
    persistentVolumeClaim: {claimName: {{ .root.Values.ray.modelsClaim }}, readOnly: true}
  - name: shm
    emptyDir: {medium: Memory, sizeLimit: 2Gi}
  - name: replica
    emptyDir: {}
{{- end }}

{{- /* Ray's own health page, without a token: KubeRay's default runs wget, and asks workers for a proxy they lack. */}}
{{- define "tokenyard.rayProbes" -}}
readinessProbe:
  httpGet: {path: /api/healthz, port: 52365}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 3
livenessProbe:
  httpGet: {path: /api/healthz, port: 52365}
  initialDelaySeconds: 30
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 24
{{- end }}

{{- /* What a worker pod asks for: GPUs too where the models run on them; a model that fits no worker is refused. */}}
{{- define "tokenyard.workerResources" -}}
{{- $resources := deepCopy .Values.ray.workers.resources }}
{{- if eq .Values.ray.accelerator "cuda" }}
{{- $gpus := .Values.ray.workers.gpus | int }}
{{- range .Values.models }}
{{- $needs := (((.accelerators).cuda).bundle).GPU | default 0 }}
{{- if gt (float64 $needs) (float64 $gpus) }}
{{- fail (printf "model %s asks for %v GPUs in one bundle, a Ray worker has %d (ray.workers.gpus)" .id $needs $gpus) }}
{{- end }}
{{- end }}
{{- $_ := set $resources "limits" (merge (dict "nvidia.com/gpu" $gpus) ($resources.limits | default dict)) }}
{{- end }}
{{- toYaml $resources }}
{{- end }}
