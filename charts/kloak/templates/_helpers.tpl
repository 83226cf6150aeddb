{{- define "kloak.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "kloak.labels" -}}
app.kubernetes.io/name: kloak
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "kloak.controllerSelector" -}}
app.kubernetes.io/name: kloak
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller
{{- end }}

{{- /* Namespaces that no webhook looks at: the cluster must come up without us, and we without ourselves. */ -}}
{{- define "kloak.otherNamespaces" -}}
- key: kubernetes.io/metadata.name
  operator: NotIn
  values:
    - {{ .Release.Namespace }}
    {{- range .Values.webhook.excludedNamespaces }}
    - {{ . }}
    {{- end }}
{{- end }}

{{- define "kloak.webhookClient" -}}
clientConfig:
  service:
    name: kloak-controller
    namespace: {{ .root.Release.Namespace }}
    path: {{ .path }}
    port: 443
  {{- if eq .root.Values.certificates.mode "provided" }}
  caBundle: {{ required "certificates.provided.caBundle is needed with certificates.mode=provided" .root.Values.certificates.provided.caBundle | b64enc }}
  {{- end }}
admissionReviewVersions: [v1]
sideEffects: None
failurePolicy: {{ .root.Values.webhook.failurePolicy }}
timeoutSeconds: {{ .root.Values.webhook.timeoutSeconds }}
{{- end }}

{{- define "kloak.certManagerAnnotations" -}}
{{- if eq .Values.certificates.mode "certManager" }}
cert-manager.io/inject-ca-from: {{ .Release.Namespace }}/kloak-controller
{{- end }}
{{- end }}
