{{- define "tokenyard.rayPod" -}}
{{- include "tokenyard.podBase" .root }}
containers:
  - name: ray
    image: {{ .image | default (include "tokenyard.image" .root) }}
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

{{- /* What Serve is asked for one model, as `serve_config` makes it: what changes in `args` starts its replicas anew. */}}
{{- define "tokenyard.application" -}}
{{- $kind := .model.runs_on | default .root.Values.ray.accelerator }}
{{- $runs := dig "accelerators" $kind dict .model }}
{{- if not $runs }}
{{- fail (printf "model %s: `accelerators` says nothing of %s (ray.accelerator)" .model.id $kind) }}
{{- end }}
{{- $known := omit .model "accelerators" "autoscaling" "description" "fallback" "license" "max_surge_percent" "replicas" "sampling" "training" }}
{{- $replicas := dig "replicas" 1 .model | int }}
name: {{ .model.id }}
route_prefix: /{{ .model.id }}
import_path: tokenyard_deployments.serving.app:build
args:
  spec: {{ toJson (merge (dict "accelerators" (dict $kind $runs)) $known) }}
  path: {{ .root.Values.ray.modelsPath }}/{{ .model.id }}
  kind: {{ $kind }}
deployments:
  - name: Replica:{{ .model.id | replace "." "_" }}
    {{- with .model.autoscaling }}
    autoscaling_config:
      min_replicas: {{ dig "min_replicas" 1 . }}
      initial_replicas: {{ $replicas }}
      max_replicas: {{ .max_replicas }}
      target_ongoing_requests: {{ .target_tokens }}
      look_back_period_s: 15.0
      upscale_delay_s: {{ dig "upscale_delay_s" 10.0 . }}
      downscale_delay_s: {{ dig "downscale_delay_s" 300.0 . }}
      downscale_to_zero_delay_s: {{ dig "to_zero_delay_s" 900.0 . }}
      policy: {policy_function: "tokenyard_deployments.serving.autoscaling:replicas_wanted"}
    {{- else }}
    {{- if lt $replicas 1 }}
    {{- fail (printf "model %s: `replicas` must be at least 1 where `autoscaling` does not say `min_replicas: 0`" .model.id) }}
    {{- end }}
    num_replicas: {{ $replicas }}
    {{- end }}
    max_surge_percent: {{ dig "max_surge_percent" 25 .model }}
    graceful_shutdown_timeout_s: {{ dig "max_request_s" 900 .model }}
{{- end }}

{{- /* One kind of workers: `group` is `ray.workers` or one of `ray.otherWorkers`. */}}
{{- define "tokenyard.workerGroup" -}}
groupName: {{ .group.accelerator }}
replicas: {{ .group.replicas }}
minReplicas: {{ .group.minReplicas }}
maxReplicas: {{ .group.maxReplicas }}
rayStartParams: {resources: {{ dict (printf "tokenyard_%s" .group.accelerator) 1000 | toJson | quote | squote }}}
template:
  metadata:
    labels: {{ include "tokenyard.labels" .root | nindent 6 }}
      app.kubernetes.io/component: ray
  spec:
    automountServiceAccountToken: false
    {{- $resources := include "tokenyard.workerResources" . | fromYaml }}
    {{- include "tokenyard.rayPod" (dict "root" .root "resources" $resources "image" .group.image) | nindent 4 }}
    {{- with .group.nodeSelector }}
    nodeSelector: {{ toYaml . | nindent 6 }}
    {{- end }}
    {{- with .group.tolerations }}
    tolerations: {{ toYaml . | nindent 6 }}
    {{- end }}
{{- end }}

{{- /* What a worker pod asks for: GPUs too where the models run on them; a model that fits no workers is refused. */}}
{{- define "tokenyard.workerResources" -}}
{{- $resources := deepCopy .group.resources }}
{{- if eq .group.accelerator "cuda" }}
{{- $gpus := .group.gpus | int }}
{{- $pods := .group.maxReplicas | int }}
{{- $root := .root }}
{{- range .root.Values.models }}
{{- if eq (.runs_on | default $root.Values.ray.accelerator) "cuda" }}
{{- $runs := dig "accelerators" "cuda" dict . }}
{{- $workers := mul (dig "tensor_parallel_size" 1 $runs | int) (dig "pipeline_parallel_size" 1 $runs | int) }}
{{- $needs := mulf (dig "bundle_per_worker" "GPU" 0 $runs) $workers }}
{{- $room := mul $gpus (ternary 1 $pods (eq (dig "placement" "PACK" $runs) "STRICT_PACK")) }}
{{- if gt (float64 $needs) (float64 $room) }}
{{- fail (printf "a replica of model %s asks for %v GPUs, and there are at most %d where it may lie (gpus and maxReplicas of the workers)" .id $needs $room) }}
{{- end }}
{{- end }}
{{- end }}
{{- $_ := set $resources "limits" (merge (dict "nvidia.com/gpu" $gpus) ($resources.limits | default dict)) }}
{{- end }}
{{- toYaml $resources }}
{{- end }}
