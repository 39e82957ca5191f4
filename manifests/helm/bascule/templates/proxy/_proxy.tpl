{{/* Name of the proxy's objects. */}}
{{- define "bascule.proxy.name" -}}
{{- printf "%s-proxy" (include "bascule.name" . | trunc 48 | trimSuffix "-") }}
{{- end }}

{{/* Labels by which the proxy's workload knows its pods: these may never change. */}}
{{- define "bascule.proxy.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}-proxy
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "bascule.proxy.labels" -}}
{{ include "bascule.proxy.selector" . }}
app.kubernetes.io/component: ingress-proxy
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "bascule.proxy.serviceAccount" -}}
{{- if .Values.proxy.serviceAccount.create }}
{{- .Values.proxy.serviceAccount.name | default (include "bascule.proxy.name" .) }}
{{- else }}
{{- required "proxy.serviceAccount.name: needed where proxy.serviceAccount.create is false" .Values.proxy.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* The Lease of who writes the status of Ingresses. */}}
{{- define "bascule.proxy.lease" -}}
{{- include "bascule.proxy.name" . }}-leader
{{- end }}

{{/* Whether the status of Ingresses is written: "true" or nothing. */}}
{{- define "bascule.proxy.publishes" -}}
{{- with .Values.proxy }}
{{- if and .updateStatus (or .publishStatusAddresses .service.enabled) }}true{{ end }}
{{- end }}
{{- end }}

{{/* The Secret by which the proxy's pods know each other. */}}
{{- define "bascule.proxy.peersSecret" -}}
{{- .Values.proxy.peers.secret | default (printf "%s-peers" (include "bascule.proxy.name" .)) }}
{{- end }}

{{/* The proxy's command line. */}}
{{- define "bascule.proxy.args" -}}
{{- $proxy := .Values.proxy -}}
- proxy
- --http=[::]:8080
- --https=[::]:8443
- --admin=[::]:10254
- --configmap={{ .Release.Namespace }}/{{ include "bascule.proxy.name" . }}
{{- if $proxy.watchIngressWithoutClass }}
- --watch-ingress-without-class
{{- end }}
{{- with $proxy.defaultBackendService }}
- --default-backend-service={{ . }}
{{- end }}
{{- with $proxy.defaultSSLCertificate }}
- --default-ssl-certificate={{ . }}
{{- end }}
{{- if include "bascule.proxy.publishes" . }}
{{- if $proxy.publishStatusAddresses }}
- --publish-status-address={{ join "," $proxy.publishStatusAddresses }}
{{- else }}
- --publish-service={{ .Release.Namespace }}/{{ include "bascule.proxy.name" . }}
{{- end }}
- --election-id={{ include "bascule.proxy.lease" . }}
{{- end }}
{{- if $proxy.webhook.enabled }}
- --validating-webhook=:9443
- --validating-webhook-certificate=/etc/bascule/webhook/tls.crt
- --validating-webhook-key=/etc/bascule/webhook/tls.key
{{- end }}
{{- if $proxy.peers.enabled }}
- --peers={{ .Release.Namespace }}/{{ include "bascule.proxy.name" . }}-peers
- --peers-listen=[::]:10253
- --peers-key=/etc/bascule/peers/key
{{- end }}
- --log-format={{ .Values.log.format }}
{{- range $proxy.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}
