#!/bin/sh
# Runs under `kloak run`: records what its own interface carries, and lets three clients speak.
#   inside.sh DIRECTORY CLIENTS CA HOST OTHER PORT ADDRESS NODE
set -eu
directory=$1 clients=$2 ca=$3 host=$4 other=$5 port=$6 address=$7 node=$8

device=$(ip -o route get "$address" | sed -n 's/.* dev \([^ ]*\).*/\1/p')
mkfifo "$directory/said"
tcpdump -Z root -i "$device" --immediate-mode -U -s 0 -w "$directory/inside.pcap" "tcp port $port" 2>"$directory/said" &
capture=$!
exec 3<"$directory/said"
while read -r line <&3; do
	case $line in *"listening on"*) break ;; esac
done

# The wrong host first: the key is not for it.
SSLKEYLOGFILE=$directory/keys.other curl -sSf -o /dev/null --cacert "$ca" \
	-H "Authorization: Bearer $API_KEY" "https://$other:$port/v1/models"

# Each sends 20 requests and one more, whose answer comes when its memory has been looked through.
SSLKEYLOGFILE=$directory/keys.curl curl -sSf -o /dev/null --cacert "$ca" \
	-H "Authorization: Bearer $API_KEY" "https://$host:$port/v1/models?page=[1-20]" -o /dev/null "https://$host:$port/hold" &
curl=$!
SSLKEYLOGFILE=$directory/keys.python python3 "$clients/client.py" "$ca" "$host" "$port" &
python=$!
"$node" --tls-keylog="$directory/keys.node" "$clients/client.mjs" "$ca" "$host" "$port" &
node=$!

status=0
for client in $curl $python $node; do wait "$client" || status=1; done
kill -INT "$capture"
wait "$capture" || status=1
exit $status
