{{/* A class with its defaults. Set one by one: `merge` takes 0 and false for absent. */}}
{{- define "engraft.class" -}}
{{- $class := dict "replicas" 1 "minReplicas" 0 "maxReplicas" 10 "auto" (eq .worker.device "cpu") -}}
{{- range $name, $value := .worker -}}{{- $_ := set $class $name $value -}}{{- end -}}
{{- $_ := set $class "scratch" (merge (dict) (default dict .worker.scratch) (dict "size" "50Gi" "storageClass" "")) -}}
{{- toJson $class -}}
{{- end -}}

{{/* Labels of a class's pods. */}}
{{- define "engraft.workerSelector" -}}
{{ include "engraft.selector" .root }}
app.kubernetes.io/component: worker
engraft/worker: {{ .class.name }}
{{- end -}}

{{/* The pod of a class, as a template; `args` is the command. */}}
{{- define "engraft.workerPod" -}}
{{- $gpu := hasPrefix "cuda" .class.device -}}
metadata:
  labels:
    {{- include "engraft.workerSelector" . | nindent 4 }}
  {{- with .class.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- if .restartPolicy }}
  restartPolicy: {{ .restartPolicy }}
  {{- end }}
  serviceAccountName: {{ include "engraft.serviceAccount" .root }}
  automountServiceAccountToken: false
  # Kubernetes' own ENGRAFT_PORT and the like are no settings.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "engraft.grace" .root }}
  {{- with .class.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- with .root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  securityContext:
    {{- include "engraft.podSecurity" . | nindent 4 }}
  containers:
    - name: worker
      image: {{ include "engraft.image" (dict "root" .root "device" .class.device) }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      args: {{ .args | toJson }}
      env:
        - name: ENGRAFT_DEVICE
          value: {{ .class.device | quote }}
        {{- include "engraft.environment" (dict "root" .root "own" .class.settings) | nindent 8 }}
      # No probe: a worker that hangs loses its jobs to another one when their leases lapse.
      {{- with .class.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        {{- include "engraft.containerSecurity" . | nindent 8 }}
      volumeMounts:
        {{- include "engraft.mounts" . | nindent 8 }}
        {{- if $gpu }}
        # Compiled kernels, where the image has them.
        - name: kernels
          mountPath: /var/cache/engraft
        {{- end }}
  volumes:
    - name: data
      {{- include "engraft.scratch" .class.scratch | nindent 6 }}
    {{- include "engraft.volumes" .root | nindent 4 }}
    {{- if $gpu }}
    - name: kernels
      emptyDir: {}
    {{- end }}
  {{- with include "engraft.placement" .class | trim }}
  {{- . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/*
How many jobs wait for a class: those whose pause is over, and those that a worker has left running without a sign of life, which the
next one takes up. Without them a cluster that has scaled to nothing would never see them again. Times are milliseconds of the
database's clock.
*/}}
{{- define "engraft.waiting" -}}
{{- $devices := ternary "device = 'cpu'" "device LIKE 'cuda%'" (eq .device "cpu") -}}
{{- if .auto -}}{{- $devices = printf "(device = 'auto' OR %s)" $devices -}}{{- end -}}
SELECT count(*) FROM jobs WHERE {{ $devices }} AND
(state = 'queued' AND (not_before IS NULL OR not_before <= extract(epoch FROM now()) * 1000)
OR state = 'running' AND lease_until < extract(epoch FROM now()) * 1000)
{{- end -}}
