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

{{- define "kloak.demoHost" -}}
demo-api.{{ .Values.demo.namespace }}.svc
{{- end }}

{{- define "kloak.demoOtherHost" -}}
demo-elsewhere.{{ .Values.demo.namespace }}.svc
{{- end }}

{{- define "kloak.demoPod" -}}
terminationGracePeriodSeconds: 1
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile: { type: RuntimeDefault }
nodeSelector:
  kubernetes.io/os: linux
{{- end }}

{{- define "kloak.demoContainer" -}}
image: {{ include "kloak.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
command: [/usr/bin/node, --disable-warning=ExperimentalWarning, /opt/kloak/src/demo/cluster/{{ .program }}.ts]
resources:
  requests: { cpu: 10m, memory: 64Mi }
  limits: { memory: 128Mi }
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end }}

{{- define "kloak.demoStage" -}}
- name: API_KEY
  valueFrom: { secretKeyRef: { name: demo-key, key: token } }
- { name: ALLOWED_HOST, value: {{ include "kloak.demoHost" . }} }
- { name: OTHER_HOST, value: {{ include "kloak.demoOtherHost" . }} }
- { name: AUDIT, value: {{ .Values.audit.api | quote }} }
- name: POD_NAME
  valueFrom: { fieldRef: { fieldPath: metadata.name } }
- name: POD_NAMESPACE
  valueFrom: { fieldRef: { fieldPath: metadata.namespace } }
{{- end }}
