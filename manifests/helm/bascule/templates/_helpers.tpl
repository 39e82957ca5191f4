{{/* Name of every object. */}}
{{- define "bascule.name" -}}
{{- contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Labels by which the DaemonSet knows its pods: these may never change. */}}
{{- define "bascule.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels of every object. */}}
{{- define "bascule.labels" -}}
{{ include "bascule.selector" . }}
app.kubernetes.io/component: service-proxy
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{/* The same of the pods that answer health checks, which are not the agent's. */}}
{{- define "bascule.healthSelector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}-health
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "bascule.healthLabels" -}}
{{ include "bascule.healthSelector" . }}
app.kubernetes.io/component: health
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{/* Where the node itself reaches the metrics. */}}
{{- define "bascule.metricsHost" -}}
{{- get (dict "0.0.0.0" "127.0.0.1" "::" "::1") .Values.metrics.bindAddress | default .Values.metrics.bindAddress }}
{{- end }}

{{- define "bascule.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "bascule.name" .) }}
{{- else }}
{{- required "serviceAccount.name: needed where serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "bascule.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}
{{- else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end }}
{{- end }}
{{- end }}

{{/* Whether sockets in pods' network namespaces are closed: "true" or nothing. */}}
{{- define "bascule.entersPods" -}}
{{- if and .Values.closePodSockets (eq .Values.socketLB "all") }}true{{ end }}
{{- end }}

{{/* ADDRESS:PORT, with brackets around an IPv6 address. */}}
{{- define "bascule.bind" -}}
{{- if contains ":" .bindAddress }}[{{ .bindAddress }}]{{ else }}{{ .bindAddress }}{{ end }}:{{ .port }}
{{- end }}
