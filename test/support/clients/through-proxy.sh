#!/bin/sh
# A reverse proxy that speaks TLS to each URL, and curl that speaks plain HTTP to the proxy: PROXY, then as README.md says.
set -eu
proxy=$1 ca=$2 requests=$3 big=$4 names=$5
shift 5
folder=$(mktemp -d)
trap 'kill $(cat "$folder/pid"); rm -rf "$folder"' EXIT
yes 0123456789abcde | tr '\n' f | head -c "$big" >"$folder/body"

nginx_config() {
	echo "worker_processes 1; pid $folder/pid; error_log stderr crit; user root;"
	echo "events { worker_connections 64; }"
	echo "http { access_log off; client_max_body_size 1m; large_client_header_buffers 4 16k; proxy_http_version 1.1;"
	for kind in client_body proxy fastcgi uwsgi scgi; do echo "${kind}_temp_path $folder/$kind;"; done
	port=8001
	for url; do
		authority=${url#https://}
		echo "upstream u$port { server $authority; keepalive 1; }"
		echo "server { listen 127.0.0.1:$port; location / {"
		echo "proxy_pass https://u$port; proxy_set_header Host $authority; proxy_set_header Connection \"\";"
		echo "proxy_ssl_server_name on; proxy_ssl_name ${authority%:*}; proxy_ssl_protocols TLSv1.2 TLSv1.3;"
		echo "proxy_ssl_verify on; proxy_ssl_trusted_certificate $ca; proxy_read_timeout 60s; } }"
		port=$((port + 1))
	done
	echo "}"
}

haproxy_config() {
	echo "defaults
	mode http
	timeout connect 60s
	timeout client 60s
	timeout server 60s
	http-reuse always"
	port=8001
	for url; do
		authority=${url#https://}
		echo "listen p$port
	bind 127.0.0.1:$port
	http-request set-header Host $authority
	server s $authority ssl verify required ca-file $ca sni str(${authority%:*}) alpn http/1.1"
		port=$((port + 1))
	done
}

# Both go to the background when they listen.
case $proxy in
nginx) nginx_config "$@" >"$folder/config" && nginx -e stderr -c "$folder/config" ;;
haproxy) haproxy_config "$@" >"$folder/config" && haproxy -D -q -p "$folder/pid" -f "$folder/config" ;;
esac

port=8001
for url; do
	at=http://127.0.0.1:$port
	set -- -sSf -o /dev/null
	[ "$big" = 0 ] || curl "$@" -H "Expect:" --data-binary "@$folder/body" "$at/big"
	for name in $names; do
		eval "value=\$$name"
		i=0
		while [ "$i" -lt "$requests" ]; do
			curl "$@" -H "Authorization: Bearer $value" "$at/$name"
			i=$((i + 1))
		done
	done
	[ "$big" = 0 ] || curl "$@" -H "Expect:" --data-binary "@$folder/body" "$at/big"
	port=$((port + 1))
done
