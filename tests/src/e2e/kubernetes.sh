#!/bin/bash
# Puts kube-apiserver and etcd into a directory, for the tests against a real API server:
#   kubernetes.sh DIR
# kube-apiserver is built from its Go module, etcd comes from a package of Debian's sid that
# is unpacked and not installed. Only what is missing is made: some minutes the first time.
set -euo pipefail
VERSION=1.36.3
mkdir -p "$1"
DIR=$(readlink -f "$1")
export GOTOOLCHAIN=local GOFLAGS=-buildvcs=false CGO_ENABLED=0

# The lists and packages of another suite, apart from the machine's own.
etcd() {
  local apt=$DIR/apt mirror
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
  mirror() { apt-get indextargets --format '$(REPO_URI) $(LABEL)' | awk '$2 == "Debian" {print $1; exit}'; }
  mirror=$(mirror)
  [ -n "$mirror" ] || { apt-get -qq update; mirror=$(mirror); }
  [ -n "$mirror" ] || { echo "etcd: no Debian mirror is configured here; set KUBEBUILDER_ASSETS to a directory with etcd and kube-apiserver" >&2; exit 1; }
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" > "$apt/sources.list"
  cat > "$apt/apt.conf" <<C
Dir::State::Lists "$apt/lists";
Dir::Cache "$apt/cache";
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
APT::Sandbox::User "root";
C
  apt-get -qq -c "$apt/apt.conf" update
  (cd "$apt" && apt-get -qq -c apt.conf download etcd-server && dpkg -x etcd-server_*.deb unpacked)
  mv "$apt/unpacked/usr/bin/etcd" "$DIR/etcd"
  rm -rf "$apt"
}

# A module of our own that requires Kubernetes, and its staging modules at the same version.
apiserver() {
  local module=$DIR/module gomod x=k8s.io/component-base/version
  command -v go > /dev/null || { echo "kube-apiserver: no go; install it, or set KUBEBUILDER_ASSETS to a directory with etcd and kube-apiserver" >&2; exit 1; }
  mkdir -p "$module"
  cd "$module"
  gomod=$(go mod download -json "k8s.io/kubernetes@v$VERSION" | sed -n 's/.*"GoMod": "\(.*\)",*/\1/p')
  {
    echo "module example.com/tools"
    grep -E '^go ' "$gomod"
    echo "require k8s.io/kubernetes v$VERSION"
    grep -oE 'k8s.io/[a-z0-9-]+ => \./staging/' "$gomod" | awk -v v="v0.${VERSION#1.}" '{print "replace " $1 " => " $1 " " v}'
  } > go.mod
  go get -tool "k8s.io/kubernetes/cmd/kube-apiserver@v$VERSION"
  go build -mod=mod -trimpath -ldflags "-s -w -X $x.gitVersion=v$VERSION -X $x.gitMajor=1 -X $x.gitMinor=36" \
    -o "$DIR/kube-apiserver.new" k8s.io/kubernetes/cmd/kube-apiserver
  mv "$DIR/kube-apiserver.new" "$DIR/kube-apiserver"
}

[ -x "$DIR/etcd" ] || etcd
[ -x "$DIR/kube-apiserver" ] || apiserver
