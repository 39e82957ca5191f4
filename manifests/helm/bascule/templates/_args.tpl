{{/* The agent's command line. */}}
{{- define "bascule.args" -}}
- agent
{{- if .Values.config }}
- --config=/etc/bascule/config/config.yaml
{{- end }}
{{- if ne .Values.socketLB "off" }}
- --cgroup=/host/cgroup
{{- end }}
- --netfilter-sysctls={{ .Values.netfilterSysctls | ternary "/host/netfilter" "off" }}
- --socket-lb={{ .Values.socketLB }}
- --xdp={{ .Values.xdp }}
{{- with .Values.uplinks }}
- --uplinks={{ join "," . }}
{{- end }}
{{- with .Values.podDevices }}
- --pod-devices={{ join "," . }}
{{- end }}
{{- if not .Values.config }}
- --nodeport-addresses={{ join "," .Values.nodePortAddresses }}
- --healthz-bind-address={{ include "bascule.bind" .Values.healthz }}
- --metrics-bind-address={{ include "bascule.bind" .Values.metrics }}
{{- end }}
- --service-node-port-range={{ .Values.serviceNodePortRange }}
{{- with .Values.serviceProxyName }}
- --service-proxy-name={{ . }}
{{- end }}
{{- if .Values.takeover }}
- --takeover
{{- end }}
{{- if .Values.kubeConfigPath }}
- --kubeconfig=/etc/bascule/kubeconfig
{{- end }}
- --log-format={{ .Values.log.format }}
{{- if .Values.log.verbosity }}
- -{{ repeat (int .Values.log.verbosity) "v" }}
{{- end }}
{{- range .Values.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}
