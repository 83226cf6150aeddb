# Sourced by up.sh: one CA, P-256 keys, and a kubeconfig for each client. 0.3 s in all.
pki=$data/pki
mkdir -p "$pki"
(umask 077
key() { openssl ecparam -name prime256v1 -genkey -noout -out "$pki/$1.key" 2>/dev/null; }
# cert NAME SUBJECT [SUBJECT-ALT-NAMES [CA]]
cert() {
  key "$1"
  openssl req -new -key "$pki/$1.key" -subj "$2" -out "$pki/$1.csr"
  printf 'basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\n%s\n' "${3:+subjectAltName=$3}" >"$pki/$1.ext"
  openssl x509 -req -in "$pki/$1.csr" -CA "$pki/${4:-ca}.crt" -CAkey "$pki/${4:-ca}.key" -CAcreateserial -days 30 \
    -extfile "$pki/$1.ext" -out "$pki/$1.crt" 2>/dev/null
}
kubeconfig() {
  cat >"$data/$1.kubeconfig" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "$api", certificate-authority: $pki/ca.crt}}]
users: [{name: u, user: {client-certificate: $pki/$1.crt, client-key: $pki/$1.key}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
YAML
}
client() { cert "$@"; kubeconfig "$1"; }

key ca
openssl req -x509 -new -key "$pki/ca.key" -subj /CN=cluster-ca -days 30 -out "$pki/ca.crt"
key sa
# Who may speak for users to aggregated API servers: an authority of its own, as kubeadm has it.
key front-proxy-ca
openssl req -x509 -new -key "$pki/front-proxy-ca.key" -subj /CN=front-proxy-ca -days 30 -out "$pki/front-proxy-ca.crt"
cert front-proxy /CN=front-proxy-client "" front-proxy-ca
cert apiserver /CN=kube-apiserver "IP:$prefix.11,IP:127.0.0.1,IP:10.96.0.1,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
cert apiserver-kubelet /O=system:masters/CN=kube-apiserver-kubelet-client
client admin /O=system:masters/CN=admin
client controller-manager /CN=system:kube-controller-manager
client scheduler /CN=system:kube-scheduler
client proxy /CN=system:kube-proxy
for n in $nodes; do
  client "node-$n" "/O=system:nodes/CN=system:node:node-$n" "IP:$prefix.$((10 + $(index "$n"))),DNS:node-$n"
done)
