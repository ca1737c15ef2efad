{{- /*
What the chart needs to know is read out of the configuration, so that nothing has to be said twice.
Usage: {{- $facts := include "sidecar.facts" . | fromYaml }}
*/ -}}
{{- define "sidecar.facts" -}}
{{- $config := include "sidecar.parsed" . | fromYaml -}}
{{- $server := $config.server -}}
{{- $sessions := default dict $config.sessions -}}
{{- $directory := $config.directory -}}
{{- if and (kindIs "map" $directory) (hasKey $directory "url") }}{{ $directory = $directory.url }}{{ end -}}
{{- $keeps := and (hasKey $config "provision") (or (not $directory) (and (kindIs "string" $directory) (hasPrefix "sqlite" $directory))) -}}
{{- $public := "" -}}
{{- if kindIs "string" $server.public_url }}{{ $public = (urlParse $server.public_url).hostname }}{{ end -}}
{{- $hosts := list -}}
{{- range prepend (default list $server.hosts) $public }}{{ if and . (kindIs "string" .) }}{{ $hosts = append $hosts . }}{{ end }}{{ end -}}
port: {{ include "sidecar.portOf" (dict "name" "server.listen" "address" $server.listen) }}
metrics: {{ if $server.metrics }}{{ include "sidecar.portOf" (dict "name" "server.metrics" "address" $server.metrics) }}{{ else }}0{{ end }}
health: {{ trimSuffix "/" (default "/-" $server.prefix) | quote }}
scheme: {{ if $server.tls }}HTTPS{{ else }}HTTP{{ end }}
drain: {{ include "sidecar.secondsOf" (default "30s" $server.drain) }}
hosts: {{ toJson $hosts }}
upstream: {{ toJson $config.app.upstream }}
isShared: {{ or (hasKey $sessions "redis") (hasKey $sessions "sentinel") }}
isSqlite: {{ $keeps }}
{{- end }}

{{- define "sidecar.parsed" -}}
{{- if not .Values.config }}{{ fail "config is missing: add --set-file config=config.yaml (sidecar.config=… where this chart is a dependency)" }}{{ end -}}
{{- $config := .Values.config | fromYaml -}}
{{- if hasKey $config "Error" }}{{ fail (printf "config is not YAML: %s" $config.Error) }}{{ end -}}
{{- range $section := list "server" "app" -}}
{{- if not (kindIs "map" (get $config $section)) }}{{ fail (printf "config has no section %s; `sidecar check` finds all of its problems" $section) }}{{ end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end }}

{{- /* host:port → port; a Service and the probes need an address that is not loopback. */ -}}
{{- define "sidecar.portOf" -}}
{{- $address := default "127.0.0.1:8080" .address -}}
{{- if not (kindIs "string" $address) }}{{ fail (printf "%s has to be written out in config, since ports and probes follow from it" .name) }}{{ end -}}
{{- if not (regexMatch ":[0-9]+$" $address) }}{{ fail (printf "%s in config is %s: here it has to be host:port" .name $address) }}{{ end -}}
{{- if regexMatch "^(127\\.|localhost:|\\[::1\\])" $address }}{{ fail (printf "%s in config is %s, which nobody outside the pod can reach: make it 0.0.0.0:%s" .name $address (regexFind "[0-9]+$" $address)) }}{{ end -}}
{{- regexFind "[0-9]+$" $address -}}
{{- end }}

{{- /* 1d2h3m4s → seconds, rounded up. */ -}}
{{- define "sidecar.secondsOf" -}}
{{- $seconds := ternary 1 0 (regexMatch "[0-9]ms" .) -}}
{{- $text := regexReplaceAll "[0-9]+ms" . "" -}}
{{- range $unit, $factor := dict "d" 86400 "h" 3600 "m" 60 "s" 1 -}}
{{- $part := regexFind (printf "[0-9]+%s" $unit) $text -}}
{{- if $part }}{{ $seconds = add $seconds (mul (trimSuffix $unit $part | atoi) $factor) }}{{ end -}}
{{- end -}}
{{- $seconds -}}
{{- end }}

{{- /* Everything that would run but not work is refused here, with the way out. */ -}}
{{- define "sidecar.validate" -}}
{{- $facts := include "sidecar.facts" . | fromYaml -}}
{{- /* The rest of the secrets the sidecar refuses itself, but an address may hold a password there. */ -}}
{{- $written := regexReplaceAll "(?m)(^|\\s)#.*$" .Values.config "" -}}
{{- if regexMatch "[A-Za-z0-9+.-]+://[^/@\\s'\"]*:[^/@\\s'\"]+@" $written }}{{ fail "an address in config has a password in it, and whoever may look at a ConfigMap would read it: put the address into a Secret, name that in secrets.files, and write {file: /run/secrets/sidecar/NAME}" }}{{ end -}}
{{- $replicas := ternary (int .Values.autoscaling.maxReplicas) (int .Values.replicas) .Values.autoscaling.enabled -}}
{{- if ne .Values.mode "included" -}}
{{- if and (gt $replicas 1) (not $facts.isShared) }}{{ fail (printf "%d replicas need a shared session store: set sessions.redis (or sessions.sentinel) in config, or one replica" $replicas) }}{{ end -}}
{{- if and (gt $replicas 1) $facts.isSqlite }}{{ fail (printf "%d replicas need a shared directory: set directory in config to a PostgreSQL or MySQL address, or one replica" $replicas) }}{{ end -}}
{{- if and (gt $replicas 1) .Values.persistence.enabled }}{{ fail (printf "%d replicas cannot share one volume: persistence.enabled=false, or one replica" $replicas) }}{{ end -}}
{{- end -}}
{{- if and $facts.isSqlite (not .Values.persistence.enabled) (not .Values.persistence.allowLoss) }}{{ fail "the directory is a SQLite file that would be lost with the pod: set directory in config to PostgreSQL or MySQL, or persistence.enabled=true, or (to try things) persistence.allowLoss=true" }}{{ end -}}
{{- $isLocal := and (kindIs "string" $facts.upstream) (regexMatch "^(unix:|https?://(127\\.|localhost[:/]|localhost$|\\[::1\\]))" $facts.upstream) -}}
{{- if and (eq .Values.mode "standalone") $isLocal }}{{ fail (printf "mode standalone: app.upstream in config is %s, but the application is not in this pod: give the address of its Service, or take mode pod" $facts.upstream) }}{{ end -}}
{{- if and (ne .Values.mode "standalone") (kindIs "string" $facts.upstream) (not $isLocal) }}{{ fail (printf "mode %s: app.upstream in config is %s, but the application is in this pod: make it http://127.0.0.1:PORT, or take mode standalone" .Values.mode $facts.upstream) }}{{ end -}}
{{- if and (eq .Values.mode "pod") (not .Values.app.container.image) }}{{ fail "mode pod: app.container with at least name and image is missing" }}{{ end -}}
{{- if and .Values.networkPolicy.enabled (eq .Values.mode "standalone") (not (and .Values.application.podLabels .Values.application.ports)) }}{{ fail "mode standalone: name the application's pods by application.podLabels and application.ports, so that nobody goes round the sidecar (or networkPolicy.enabled=false)" }}{{ end -}}
{{- if and .Values.networkPolicy.enabled (eq .Values.mode "included") (not .Values.included.podLabels) }}{{ fail "mode included: name the pods that include the sidecar by included.podLabels, so that nobody goes round it (or networkPolicy.enabled=false)" }}{{ end -}}
{{- if and .Values.metrics.podMonitor.enabled (not $facts.metrics) }}{{ fail "metrics.podMonitor needs server.metrics in config, e.g. 0.0.0.0:9090" }}{{ end -}}
{{- end }}
