#!/bin/bash
# Proves the quick start: runs `make demo` and `make test` in a newly made Debian 12 root that holds nothing but Rust
# and make. Everything happens in mount and PID namespaces of its own and is removed at the end, however it ends.
#
#   scripts/fresh.sh [DEMO-AND-TEST-TARGETS…]        default: demo test
set -euo pipefail

repository=$(cd "$(dirname "$0")/.." && pwd)
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

if [ "${SHUNT_FRESH_ROOT:-}" = "" ]; then
    [ "$(id -u)" = 0 ] || { echo "make fresh mounts and chroots: run it as root" >&2; exit 1; }
    if ! command -v debootstrap >/dev/null; then
        apt-get update -qq || true
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap >/dev/null
    fi
    SHUNT_FRESH_ROOT=$(mktemp -d "${TMPDIR:-/var/tmp}/shunt-fresh.XXXXXX")
    export SHUNT_FRESH_ROOT
    # The mounts are gone with the namespace before anything is removed.
    trap 'rm -rf --one-file-system "$SHUNT_FRESH_ROOT"' EXIT
    trap 'exit 130' INT TERM HUP
    unshare --mount --pid --fork --kill-child=KILL --mount-proc --propagation private -- "$0" "$@"
    exit
fi

root=$SHUNT_FRESH_ROOT
targets=("$@")
[ "${#targets[@]}" -gt 0 ] || targets=(demo test)
sysroot=$(rustc --print sysroot)

# The same mirror as this machine's.
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*debian*.sources /etc/apt/sources.list.d/*debian*.list 2>/dev/null |
    grep -oE 'https?://[^ ]*debian/?( |$)' | head -n 1 | tr -d ' ') || true
mirror=${mirror:-http://deb.debian.org/debian}

# As every root is: tests become other users inside.
chmod 755 "$root"
# unshare needs a root that is a mount point.
mount --bind "$root" "$root"
echo "== debootstrap bookworm from $mirror"
debootstrap --variant=minbase --include=make bookworm "$root" "$mirror" >"$root.log" 2>&1 ||
    { tail -n 30 "$root.log" >&2; rm -f "$root.log"; exit 1; }
rm -f "$root.log"

# How this machine reaches its package registries, and nothing else of it.
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
for conf in /etc/apt/apt.conf.d/*; do
    if grep -qi 'acquire' "$conf" 2>/dev/null; then cp "$conf" "$root/etc/apt/apt.conf.d/"; fi
done
if [ -e /etc/apt/sources.list.d/debian.sources ]; then
    cp /etc/apt/sources.list.d/debian.sources "$root/etc/apt/sources.list.d/"
    : >"$root/etc/apt/sources.list"
fi
mkdir -p "$root/etc/ssl/certs" "$root/root/.cargo" "$root/opt/rust" "$root/root/shunt"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
for conf in config.toml config; do
    cargo_home=${CARGO_HOME:-$HOME/.cargo}
    if [ -e "$cargo_home/$conf" ]; then cp "$cargo_home/$conf" "$root/root/.cargo/"; fi
done

# Rust is only looked at, so it need not be copied.
mount --bind "$sysroot" "$root/opt/rust"
mount -o remount,bind,ro "$root/opt/rust"

mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t tmpfs -o mode=755 dev "$root/dev"
mkdir "$root/dev/net"
for device in null zero full random urandom tty net/tun; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"

git -C "$repository" archive HEAD | tar -x -C "$root/root/shunt"

proxies=()
for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
    if [ -n "${!name:-}" ]; then proxies+=("$name=${!name}"); fi
done
for target in "${targets[@]}"; do
    echo "== make $target"
    chroot "$root" /usr/bin/env -i HOME=/root LANG=C.UTF-8 "${proxies[@]}" \
        PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        make --no-print-directory -C /root/shunt "$target" </dev/null
done
echo "== fresh: ${targets[*]} passed"
