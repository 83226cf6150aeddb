#!/bin/sh
# workload.sh MTU FEATURES GSO TAP CAPTURE PYTHON-ARGUMENTS…: runs client.py behind an interface that is set like that, and
# records what stands on the wire there, before the host's programs. FEATURES: of ethtool -K, "-" for none.
set -eu

mtu=$1 features=$2 gso=$3 tap=$4 capture=$5
shift 5
# The host's end takes no larger packets than it was made for.
made=$(cat /sys/class/net/eth0/mtu)
[ "$mtu" -lt "$made" ] || mtu=$made
ip link set dev eth0 mtu "$mtu" gso_max_size "$gso"
ip link set dev eth0 gso_ipv4_max_size "$gso" 2>/dev/null || true # Linux 6.3
# shellcheck disable=SC2086
[ "$features" = - ] || ethtool -K eth0 $features >/dev/null
# What is lost comes again sooner than after 200 ms: more of it in the same time.
for family in -4 -6; do
	route=$(ip $family route show default)
	# shellcheck disable=SC2086
	[ -z "$route" ] || ip $family route change $route rto_min 20ms
done
mkfifo "$capture.end"
python3 "$tap" eth0 "$capture" <"$capture.end" >"$capture.log" &
exec 3>"$capture.end"
until [ -s "$capture.log" ]; do
	kill -0 $! # it has failed, and so do we
	sleep 0.02
done
status=0
python3 "$@" 3>&- || status=$?
exec 3>&-
wait $!
exit $status
