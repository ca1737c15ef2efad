{{- /*
The parts of a pod. A chart that has this one as a dependency named sidecar includes them with .Subcharts.sidecar as
their context; see helm/example-application.
*/ -}}

{{- define "sidecar.container" -}}
{{- $facts := include "sidecar.facts" . | fromYaml -}}
name: sidecar
image: {{ include "sidecar.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [run, /etc/sidecar/config.yaml]
workingDir: /var/lib/sidecar
ports:
  - {name: sidecar, containerPort: {{ $facts.port }}}
  {{- if $facts.metrics }}
  - {name: sidecar-metrics, containerPort: {{ $facts.metrics }}}
  {{- end }}
{{- if or .Values.secrets.env .Values.extraEnv }}
env:
  {{- range .Values.secrets.env }}
  - name: {{ .name }}
    valueFrom:
      secretKeyRef: {name: {{ .secret }}, key: {{ .key | quote }}}
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
# Migrations of the directory run before the listener opens.
startupProbe:
  httpGet: {path: {{ $facts.health }}/live, port: sidecar, scheme: {{ $facts.scheme }}}
  periodSeconds: 2
  failureThreshold: 90
livenessProbe:
  httpGet: {path: {{ $facts.health }}/live, port: sidecar, scheme: {{ $facts.scheme }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: {path: {{ $facts.health }}/ready, port: sidecar, scheme: {{ $facts.scheme }}}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- if .Values.preStopSeconds }}
lifecycle:
  preStop:
    sleep: {seconds: {{ .Values.preStopSeconds }}}
{{- end }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
volumeMounts:
  - {name: sidecar-config, mountPath: /etc/sidecar, readOnly: true}
  - {name: sidecar-state, mountPath: /var/lib/sidecar}
  - {name: sidecar-tmp, mountPath: /tmp}
  {{- if .Values.secrets.files }}
  - {name: sidecar-secrets, mountPath: /run/secrets/sidecar, readOnly: true}
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "sidecar.volumes" -}}
- name: sidecar-config
  configMap: {name: {{ include "sidecar.fullname" . }}}
- name: sidecar-state
  {{- if .Values.persistence.enabled }}
  persistentVolumeClaim: {claimName: {{ include "sidecar.claimName" . }}}
  {{- else }}
  emptyDir: {sizeLimit: 256Mi}
  {{- end }}
- name: sidecar-tmp
  emptyDir: {sizeLimit: 64Mi}
{{- if .Values.secrets.files }}
- name: sidecar-secrets
  projected:
    # Readable for any user, as the pod's other containers may need another fsGroup; only the sidecar mounts it.
    defaultMode: 0444
    sources:
      {{- range .Values.secrets.files }}
      - secret:
          name: {{ .secret }}
          items: [{key: {{ .key | quote }}, path: {{ .file | quote }}}]
      {{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* A changed configuration starts new pods: the sidecar reads it only at its start. */ -}}
{{- define "sidecar.podAnnotations" -}}
checksum/sidecar-config: {{ .Values.config | sha256sum }}
{{- end }}

{{- /* Pausing, draining, and stopSeconds for what is left. */ -}}
{{- define "sidecar.terminationGracePeriodSeconds" -}}
{{- $facts := include "sidecar.facts" . | fromYaml -}}
{{- add .Values.preStopSeconds $facts.drain .Values.stopSeconds -}}
{{- end }}

{{- /* Containers of a pod are stopped all at once: the application stays until the sidecar's last request is answered. */ -}}
{{- define "sidecar.applicationLifecycle" -}}
{{- $facts := include "sidecar.facts" . | fromYaml -}}
preStop:
  sleep: {seconds: {{ add .Values.preStopSeconds $facts.drain }}}
{{- end }}
