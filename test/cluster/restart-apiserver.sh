#!/bin/bash
# Kills the API server and starts it again as it was.
. "$(dirname "$0")/env.sh"
tracked=$(hierarchies | grep /pids)/$group/daemons/cgroup.procs
pid=$(cat "$data/kube-apiserver.pid")
mapfile -d '' -t command <"/proc/$pid/cmdline"
kill -9 "$pid"
wait_for 10 test ! -e "/proc/$pid"
(echo "$BASHPID" >"$tracked"; exec setsid nsenter -t "$(cat "$data/node-${nodes%% *}.pid")" -n -m -- "${command[@]}") \
  >>"$data/log/kube-apiserver.log" 2>&1 </dev/null &
echo $! >"$data/kube-apiserver.pid"
pki=$data/pki
wait_for 60 curl -sf --cacert "$pki/ca.crt" --cert "$pki/admin.crt" --key "$pki/admin.key" "$api/readyz"
