#!/bin/sh
# Installs the Debian packages that `make demo`, `make test`, `make e2e-vm` and `make bench-e2e` need, those that are missing and no
# others; and for `make test`, into target/tools, the Python package that judges the API.
#
#   scripts/install-tools.sh build|demo|test|vm|bench
set -eu

# program:package
build="cc:gcc ld:binutils /usr/include/stdlib.h:libc6-dev"
demo="$build ip:iproute2 ping:iputils-ping tcpdump:tcpdump udhcpc:udhcpc unshare:util-linux setpriv:util-linux"
test="$demo busybox:busybox-static dhclient:isc-dhcp-client dhcpcd:dhcpcd-base iperf3:iperf3 tshark:tshark
      nsenter:util-linux /usr/share/zoneinfo/Europe/Berlin:tzdata ethtool:ethtool bridge:iproute2 /lib/systemd/systemd-networkd:systemd"
vm="$test"
# Other switches to measure beside; of their services none is started.
bench="$test dnsmasq:dnsmasq-base ovs-vswitchd:openvswitch-switch ovn-northd:ovn-central ovn-controller:ovn-host"
case "${1:-}" in
build) wanted=$build ;;
demo) wanted=$demo ;;
test) wanted=$test ;;
vm) wanted=$vm ;;
bench) wanted=$bench ;;
*) echo "usage: $0 build|demo|test|vm|bench" >&2; exit 2 ;;
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
if [ "$1" = test ] && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then missing="$missing python3 python3-venv"; fi
# QEMU of one release and its utilities of another (some systems come with newer ones) are not to be had at once: apt is
# asked for QEMU alone, which may take the utilities away, and then for those again, of the same release.
qemu=
if [ "$1" = vm ] && ! command -v qemu-system-x86_64 >/dev/null; then
    qemu="qemu-system-x86"
    ! command -v qemu-img >/dev/null || qemu="$qemu qemu-utils"
fi

packages() {
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
    policy=
    trap 'rm -f "$log"; [ -z "$policy" ] || $become rm -f "$policy"' EXIT
    if [ "$1" = bench ] && [ ! -e /usr/sbin/policy-rc.d ]; then
        policy=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' | $become tee "$policy" >/dev/null
        $become chmod 755 "$policy"
    fi
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
}
[ -z "$missing$qemu" ] || packages "$1"

schemathesis=4.32.5
tools=$(dirname "$0")/../target/tools
if [ "$1" = test ] && ! [ -x "$tools/bin/schemathesis" ]; then
    echo "installing schemathesis $schemathesis into target/tools"
    mkdir -p "$tools"
    python3 -m venv "$tools"
    # Python would trust its own certificates only.
    certificates=/etc/ssl/certs/ca-certificates.crt
    [ ! -e "$certificates" ] || export PIP_CERT="${PIP_CERT:-$certificates}"
    "$tools/bin/pip" install -q --disable-pip-version-check "schemathesis==$schemathesis"
fi
