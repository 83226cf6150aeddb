#!/bin/bash
# Starts the cluster: one network and mount namespace for each node, the control plane in the first node's.
. "$(dirname "$0")/env.sh"
[ ! -e "$data" ] || { echo "$data exists: run down.sh first" >&2; exit 1; }
[ -x "$bin/kubelet" ] || { echo "no binaries: run build.sh first" >&2; exit 1; }
first=${nodes%% *}
trap 'echo "up.sh failed in line $LINENO: see $data/log, then run down.sh" >&2' ERR
mkdir -p "$data/log"
: >"$data/resolv.conf"
for s in $sysctls; do echo "$s=$(sysctl -n $s)"; done >"$data/sysctl" # the kubelet sets these; down.sh puts them back
. "$here/certs.sh"

for h in $(hierarchies); do
  for g in $group $group/daemons $(for n in $nodes; do echo $group/node-$n; done); do
    mkdir -p "$h/$g"
    if [ -e "$h/$g/cpuset.cpus" ]; then # empty in a new group, and then no process may enter
      cat "$h/cpuset.cpus" >"$h/$g/cpuset.cpus"; cat "$h/cpuset.mems" >"$h/$g/cpuset.mems"
    fi
  done
done
tracked=$(hierarchies | grep /pids)/$group/daemons/cgroup.procs

# start NAME COMMAND...: in the background, in our cgroup, with a log and a pid file.
start() {
  local name=$1; shift
  (echo "$BASHPID" >"$tracked"; exec setsid "$@") >"$data/log/$name.log" 2>&1 </dev/null &
  echo $! >"$data/$name.pid"
}
# start_in NODE NAME COMMAND...
start_in() {
  local pid name=$2; pid=$(cat "$data/node-$1.pid"); shift 2
  start "$name" nsenter -t "$pid" -n -m -- "$@"
}
render() {
  sed -e "s|@DATA@|$data|g" -e "s|@CACHE@|$cache|g" -e "s|@NODE@|${node:-}|g" -e "s|@GROUP@|$group|g" \
    -e "s|@IP@|${ip:-}|g" -e "s|@INDEX@|${i:-}|g" "$here/config/$1" >"$2"
}

# Network: a bridge on this machine, a veth to each node, routes to pods and services. Nodes have no default route.
ip link add $bridge type bridge
ip addr add $prefix.1/24 dev $bridge
ip link set $bridge up
for node in $nodes; do
  i=$(index "$node") ip=$prefix.$((10 + i)) dir=$data/node-$node
  mkdir -p "$dir"/{kubelet,containerd,log,cni}
  start "node-$node" unshare --net --mount --propagation private sleep infinity
  pid=$(cat "$data/node-$node.pid")
  wait_for 30 sh -c "[ \$(readlink /proc/$pid/ns/net) != \$(readlink /proc/self/ns/net) ] && [ \$(cat /proc/$pid/comm) = sleep ]"
  ip link add "$bridge-$node" type veth peer name eth0 netns "$pid"
  ip link set "$bridge-$node" master $bridge up
  ip route add 10.244.$i.0/24 via $ip
  render cni.conflist "$dir/cni/10-pods.conflist"
  render containerd.toml "$dir/containerd.toml"
  render kubelet.yaml "$dir/kubelet.yaml"
  render kube-proxy.yaml "$dir/kube-proxy.yaml"
  in_node "$node" bash -eu -s <<SH
ip link set lo up
ip addr add $ip/24 dev eth0
ip link set eth0 up
$(for n in $nodes; do [ $n = $node ] || echo "ip route add 10.244.$(index $n).0/24 via $prefix.$((10 + $(index $n)))"; done)
ip route add 10.96.0.0/16 dev eth0 # no default route: without this one, local processes cannot even try a ClusterIP
sysctl -qw net.ipv4.ip_forward=1
# As on a host of its own, /sys shows the node's own interfaces.
mkdir -p $dir/sys
mount --rbind /sys/fs $dir/sys
mount -t sysfs sysfs /sys
mount --rbind $dir/sys /sys/fs
umount -l $dir/sys
# And runc is where every distribution has it.
mount --bind $cache/debs/usr/sbin /usr/local/sbin
mount --make-rshared /
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs -o mode=755 run /run
mount --bind $dir/log /var/log
mkdir -p /run/cni /run/lib/kubelet /run/lib/containerd
mount --bind $dir/kubelet /run/lib/kubelet
mount --bind $dir/containerd /run/lib/containerd
mount --rbind /run/lib /var/lib
cp $dir/cni/10-pods.conflist /run/cni/
SH
done
ip route add 10.96.0.0/16 via $prefix.11

start_in $first etcd etcd --data-dir "$data/etcd" --unsafe-no-fsync --log-level warn \
  --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380
start_in $first kube-apiserver kube-apiserver --etcd-servers http://127.0.0.1:2379 \
  --bind-address 0.0.0.0 --advertise-address $prefix.11 --secure-port 6443 --allow-privileged \
  --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction,MutatingAdmissionWebhook,ValidatingAdmissionWebhook \
  --client-ca-file "$pki/ca.crt" --tls-cert-file "$pki/apiserver.crt" --tls-private-key-file "$pki/apiserver.key" \
  --kubelet-client-certificate "$pki/apiserver-kubelet.crt" --kubelet-client-key "$pki/apiserver-kubelet.key" \
  --kubelet-certificate-authority "$pki/ca.crt" --kubelet-preferred-address-types InternalIP \
  --service-account-issuer https://kubernetes.default.svc.cluster.local \
  --service-account-key-file "$pki/sa.key" --service-account-signing-key-file "$pki/sa.key" \
  --requestheader-client-ca-file "$pki/front-proxy-ca.crt" --requestheader-allowed-names front-proxy-client \
  --requestheader-extra-headers-prefix X-Remote-Extra- --requestheader-group-headers X-Remote-Group \
  --requestheader-username-headers X-Remote-User --proxy-client-cert-file "$pki/front-proxy.crt" \
  --proxy-client-key-file "$pki/front-proxy.key" --enable-aggregator-routing \
  --service-cluster-ip-range 10.96.0.0/16 --service-node-port-range 30000-30100 --profiling=false ${KLOAK_CLUSTER_APISERVER_FLAGS:-}
import() {
  wait_for 20 in_node "$1" test -S /run/containerd/containerd.sock
  local image; for image in "$images"/*.tar; do in_node "$1" ctr -n k8s.io images import "$image"; done
}
for node in $nodes; do
  start_in $node containerd-$node containerd --config "$data/node-$node/containerd.toml"
  import $node >"$data/log/import-$node.log" 2>&1 &
  imports="${imports:-} $!"
done
ready() { curl -sf --cacert "$pki/ca.crt" --cert "$pki/admin.crt" --key "$pki/admin.key" "$api/readyz"; }
wait_for 60 ready
start_in $first kube-controller-manager kube-controller-manager --kubeconfig "$data/controller-manager.kubeconfig" \
  --use-service-account-credentials --kube-api-qps 500 --kube-api-burst 1000 --leader-elect=false --bind-address 127.0.0.1 --profiling=false \
  --root-ca-file "$pki/ca.crt" --service-account-private-key-file "$pki/sa.key" \
  --cluster-signing-cert-file "$pki/ca.crt" --cluster-signing-key-file "$pki/ca.key" ${KLOAK_CLUSTER_CONTROLLER_FLAGS:-}
start_in $first kube-scheduler kube-scheduler --kubeconfig "$data/scheduler.kubeconfig" --leader-elect=false --bind-address 127.0.0.1 --profiling=false
for i in $imports; do wait $i; done
for node in $nodes; do
  start_in $node kubelet-$node kubelet --config "$data/node-$node/kubelet.yaml" --kubeconfig "$data/node-$node.kubeconfig" \
    --hostname-override node-$node --node-ip $prefix.$((10 + $(index $node)))
  start_in $node kube-proxy-$node kube-proxy --config "$data/node-$node/kube-proxy.yaml"
done
for node in $nodes; do
  wait_for 60 kubectl get node node-$node
  kubectl wait --for=condition=Ready node/node-$node --timeout=60s >/dev/null
done
kubectl apply -f "$here/manifests/coredns.yaml" >/dev/null
wait_for 20 kubectl get serviceaccount default # the controllers work
kubectl -n kube-system rollout status deployment/coredns --timeout=30s >/dev/null
echo "# up in $SECONDS s"
echo "export KUBECONFIG=$KUBECONFIG PATH=$bin:\$PATH"
