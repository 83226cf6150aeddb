#!/bin/sh
# curl over HTTP/2 (nghttp2): one command, and so one connection, for each URL. See README.md for the arguments.
set -eu
ca=$1 requests=$2 big=$3 names=$4
shift 4
body=$(mktemp)
trap 'rm -f "$body"' EXIT
yes 0123456789abcde | tr '\n' f | head -c "$big" >"$body"
# Each request carries all of its own options: --next forgets them.
for url; do
	set --
	[ "$big" = 0 ] || set -- "$@" --next -sSf --http2 -o /dev/null --cacert "$ca" --data-binary "@$body" "$url/big"
	for name in $names; do
		eval "value=\$$name"
		i=0
		while [ "$i" -lt "$requests" ]; do
			set -- "$@" --next -sSf --http2 -o /dev/null --cacert "$ca" -H "${HEADER:-Authorization}: Bearer $value" "$url/$name"
			i=$((i + 1))
		done
	done
	[ "$big" = 0 ] || set -- "$@" --next -sSf --http2 -o /dev/null --cacert "$ca" --data-binary "@$body" "$url/big"
	shift
	curl "$@"
done
