{{/* Names and labels. Those of workers and of their pods add to the name, and 63 characters are the most. */}}
{{- define "engraft.fullname" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 30 | trimSuffix "-" -}}
{{- end -}}

{{- define "engraft.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "engraft.labels" -}}
{{ include "engraft.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "engraft.serviceAccount" -}}
{{- $own := ternary (include "engraft.fullname" .) "default" .Values.serviceAccount.create -}}
{{- default $own .Values.serviceAccount.name -}}
{{- end -}}

{{/* Not empty where the server keeps something that has to last. */}}
{{- define "engraft.persistent" -}}
{{- if not (and (eq .Values.database.kind "postgres") (eq .Values.blobs.kind "s3")) -}}true{{- end -}}
{{- end -}}

{{- define "engraft.claim" -}}
{{- default (include "engraft.fullname" .) .Values.persistence.existingClaim -}}
{{- end -}}

{{/* Jobs that each server computes itself. */}}
{{- define "engraft.serverWorkers" -}}
{{- if ne (toString .Values.server.workers) "" -}}
{{- .Values.server.workers -}}
{{- else -}}
{{- ternary "1" "0" (ne (include "engraft.persistent" .) "") -}}
{{- end -}}
{{- end -}}

{{/* The image for a device. */}}
{{- define "engraft.image" -}}
{{- $image := .root.Values.image -}}
{{- $tag := default .root.Chart.AppVersion $image.tag -}}
{{- if hasPrefix "cuda" .device -}}
{{- $tag = default (printf "%s-cuda" $tag) $image.cudaTag -}}
{{- end -}}
{{ $image.repository }}:{{ $tag }}
{{- end -}}

{{/* Seconds until a pod is killed: what it takes to drain, and a little for what comes after. */}}
{{- define "engraft.grace" -}}
{{- add .Values.drainTimeout 15 -}}
{{- end -}}
