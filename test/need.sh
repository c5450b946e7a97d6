#!/bin/bash
# need.sh demo|test|runtimes|kube|bench: are the programs there that this needs? Debian's packages are installed when we may;
# otherwise say plainly what to install. It installs nothing else and starts nothing.
# Status 3: this machine or this user cannot do it, whatever is installed.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin

# program  Debian package  needed for
need() {
  case $1 in
  demo) printf '%s\n' "ip iproute2" "nsenter util-linux" "iptables iptables" ;;
  test) need demo; printf '%s\n' "nft nftables" "tcpdump tcpdump" "conntrack conntrack" "curl curl" "tshark tshark" "bird bird2" "exabgp exabgp" "/usr/lib/frr/bgpd frr" ;;
  runtimes) need demo; printf '%s\n' "nft nftables" "containerd containerd" "ctr containerd" "runc runc" "podman podman" "conmon conmon" "/usr/lib/frr/bgpd frr" ;;
  kube) need demo; printf '%s\n' "nft nftables" "conntrack conntrack" "curl curl" "containerd containerd" "ctr containerd" "runc runc" "/usr/lib/frr/bgpd frr" ;;
  bench) need test; printf '%s\n' "haproxy haproxy" ;;
  *) echo "usage: $0 demo|test|runtimes|kube|bench" >&2; exit 2 ;;
  esac
}

# able says why container runtimes cannot work here: they want root, and control groups to write in.
able() {
  [ "$(id -u)" = 0 ] || { echo "container runtimes need root, for control groups and devices: run make test-$what as root"; return 1; }
  local group=/sys/fs/cgroup procs
  for procs in $group/*/cgroup.procs; do # the older version has a hierarchy for each controller
    [ -e $group/cgroup.controllers ] || [ ! -e "$procs" ] || group=$(dirname "$procs")
  done
  { mkdir "$group/l3edge-probe-$$" && rmdir "$group/l3edge-probe-$$"; } 2>/dev/null ||
    { echo "container runtimes need control groups that they may change, and cannot make any in $group: in a container, start it privileged"; return 1; }
}

missing() { need "$1" | while read -r prog pkg; do command -v "$prog" >/dev/null || echo "$pkg"; done | sort -u | xargs; }

what=${1:-}
need "$what" >/dev/null
[[ $what != runtimes && $what != kube ]] || able >&2 || exit 3
want=$(missing "$what")
[ -n "$want" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing: $want"
  export DEBIAN_FRONTEND=noninteractive
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  # shellcheck disable=SC2086 # a list of package names
  { apt-get update && apt-get install -y --no-install-recommends $want; } >"$log" 2>&1 || { tail -n 20 "$log" >&2; echo "make $what needs: $want; apt-get could not install them" >&2; exit 1; }
  want=$(missing "$what")
  [ -n "$want" ] || exit 0
fi
echo "make $what needs these Debian packages: $want" >&2
echo "install them as root (apt-get install $want) and run it again" >&2
exit 1
