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
