{{/* What the pods of the server and of workers share. */}}

{{- define "engraft.podSecurity" -}}
runAsNonRoot: true
# The user of the image.
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "engraft.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* The variables of the program: where its things are, and its settings. `own` are those of the server or of a class. */}}
{{- define "engraft.environment" -}}
{{- $values := .root.Values -}}
- name: ENGRAFT_CONFIG
  value: /etc/engraft/engraft.toml
{{- with $values.database }}
{{- if eq .kind "postgres" }}
- name: ENGRAFT_DATABASE
  value: postgres://{{ .user }}@{{ .host }}:{{ .port }}/{{ .name }}?sslmode={{ .sslmode }}
- name: PGPASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .passwordKey }}
{{- end }}
{{- end }}
{{- with $values.blobs }}
{{- if eq .kind "s3" }}
- name: ENGRAFT_BLOBS
  value: s3://{{ .bucket }}{{ with .prefix }}/{{ . }}{{ end }}
- name: AWS_REGION
  value: {{ .region | quote }}
{{- with .endpoint }}
- name: AWS_ENDPOINT_URL
  value: {{ . | quote }}
{{- end }}
{{- if .allowHttp }}
- name: AWS_ALLOW_HTTP
  value: "true"
{{- end }}
{{- if .existingSecret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .accessKeyIdKey }}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .secretAccessKeyKey }}
{{- end }}
{{- end }}
{{- end }}
{{- $settings := dict }}
{{- range $name, $value := $values.settings }}{{ $_ := set $settings $name $value }}{{ end }}
{{- range $name, $value := .own }}{{ $_ := set $settings $name $value }}{{ end }}
{{- range $name, $value := $settings }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{- define "engraft.mounts" -}}
- name: data
  mountPath: /data
- name: config
  mountPath: /etc/engraft
  readOnly: true
# SQLite sorts here.
- name: tmp
  mountPath: /tmp
{{- end -}}

{{- define "engraft.volumes" -}}
- name: config
  configMap:
    name: {{ include "engraft.fullname" . }}
- name: tmp
  emptyDir:
    sizeLimit: 1Gi
{{- end -}}

{{/* A data directory that may go with its pod. */}}
{{- define "engraft.scratch" -}}
{{- if .storageClass -}}
ephemeral:
  volumeClaimTemplate:
    spec:
      accessModes: [ReadWriteOnce]
      storageClassName: {{ .storageClass }}
      resources:
        requests:
          storage: {{ .size }}
{{- else -}}
emptyDir:
  sizeLimit: {{ .size }}
{{- end -}}
{{- end -}}

{{/* Where a pod may run: of the server or of a class. */}}
{{- define "engraft.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
