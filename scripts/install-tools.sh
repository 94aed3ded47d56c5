#!/bin/sh
# Installs the Debian packages that `make demo`, `make test` and `make e2e-vm` need, those that are missing and no others.
#
#   scripts/install-tools.sh build|demo|test|vm
set -eu

# program:package
build="cc:gcc ld:binutils /usr/include/stdlib.h:libc6-dev"
demo="$build ip:iproute2 ping:iputils-ping tcpdump:tcpdump udhcpc:udhcpc unshare:util-linux setpriv:util-linux"
test="$demo busybox:busybox-static dhclient:isc-dhcp-client dhcpcd:dhcpcd-base iperf3:iperf3 tshark:tshark
      nsenter:util-linux /usr/share/zoneinfo/Europe/Berlin:tzdata ethtool:ethtool bridge:iproute2 /lib/systemd/systemd-networkd:systemd"
vm="$test"
case "${1:-}" in
build) wanted=$build ;;
demo) wanted=$demo ;;
test) wanted=$test ;;
vm) wanted=$vm ;;
*) echo "usage: $0 build|demo|test|vm" >&2; exit 2 ;;
esac

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
missing=
for pair in $wanted; do
    program=${pair%%:*}
    case "$program" in
    /*) [ -e "$program" ] || missing="$missing ${pair#*:}" ;;
    *) command -v "$program" >/dev/null || missing="$missing ${pair#*:}" ;;
    esac
done
# QEMU of one release and its utilities of another (some systems come with newer ones) are not to be had at once: apt is
# asked for QEMU alone, which may take the utilities away, and then for those again, of the same release.
qemu=
if [ "${1:-}" = vm ] && ! command -v qemu-system-x86_64 >/dev/null; then
    qemu="qemu-system-x86"
    ! command -v qemu-img >/dev/null || qemu="$qemu qemu-utils"
fi
[ -n "$missing$qemu" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "missing, and no apt-get here to install them; install what your system calls:$missing $qemu" >&2
    exit 1
fi
become=
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "missing:$missing $qemu; install them as root: apt-get install$missing $qemu" >&2; exit 1; }
    become="sudo"
fi
echo "installing$missing $qemu"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() {
    # A source that has nothing to do with these packages may fail to update.
    $become apt-get update -qq || true
    get="$become env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends"
    # shellcheck disable=SC2086
    [ -z "$missing" ] || $get $missing || return
    for package in $qemu; do
        $get "$package" || return
    done
}
install >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
