#!/bin/sh
# wget (GnuTLS on Debian): a command, and so a connection, for each request. See README.md for the arguments.
set -eu
ca=$1 requests=$2 big=$3 names=$4
shift 4
body=$(mktemp)
log=$(mktemp)
trap 'rm -f "$body" "$log"' EXIT
yes 0123456789abcde | tr '\n' f | head -c "$big" >"$body"
ask() {
	wget --no-config -o "$log" -O /dev/null --no-hsts --tries=1 --ca-certificate="$ca" "$@" && return
	cat "$log" >&2
	exit 1
}
for url; do
	[ "$big" = 0 ] || ask --post-file="$body" "$url/big"
	for name in $names; do
		eval "value=\$$name"
		i=0
		while [ "$i" -lt "$requests" ]; do
			ask --header="Authorization: Bearer $value" "$url/$name"
			i=$((i + 1))
		done
	done
	[ "$big" = 0 ] || ask --post-file="$body" "$url/big"
done
