#!/bin/bash
# What the kept inputs of each fuzz target reach in the rooms that it is about: scripts/fuzz-coverage.sh [TARGET...]
# prints a line per target. Stable Rust; LLVM's tools must be at least as new as rustc's profile format (llvm-19).
set -euo pipefail
cd "$(dirname "$0")/.."

tool() { # the newest one that is installed
    find $(tr : ' ' <<<"$PATH") -maxdepth 1 -name "$1*" 2>/dev/null | sort -V -t- -k3 | tail -1
}
profdata=$(tool llvm-profdata) cov=$(tool llvm-cov)
case "$profdata" in
*-19 | *-[2-9][0-9]) ;;
*) echo "llvm-profdata 19 or newer is missing: apt-get install llvm-19" >&2; exit 1 ;;
esac

rooms() {
    case "$1" in
    arp | geneve | nd | vxlan) echo "wire/$1.rs" ;;
    dhcp) echo wire/dhcpv4 ;;
    ipv4) echo wire/ipv4.rs wire/icmpv4.rs ;;
    ipv6) echo wire/ipv6.rs wire/icmpv6.rs ;;
    oracles) echo wire/flow.rs wire/tcp.rs wire/udp.rs wire/ethernet.rs ;;
    virtio_net_hdr) echo offload/virtio.rs offload/segment.rs offload/checksum.rs ;;
    coalesce) echo offload/coalesce.rs offload/headers.rs ;;
    dhcp_client) echo trap/dhcpv4.rs tables/lease.rs ;;
    pipeline) echo pipeline trap ;;
    two_hosts) echo pipeline trap tables directory ;;
    document) echo desired tables ;;
    config) echo switch/config.rs ;;
    state) echo switch/state.rs switch/state ;;
    control) echo ctl switch ;;
    *) echo "no rooms are known for target $1" >&2; return 1 ;;
    esac
}

build=target/fuzz-coverage
export RUSTFLAGS="-C instrument-coverage"
# Not optimized: nothing is folded away that was reached, and it builds sooner.
LLVM_PROFILE_FILE=/dev/null cargo build --quiet --locked --manifest-path fuzz/Cargo.toml --target-dir "$build" --example replay \
    --config 'profile.dev.package."*".opt-level=0' --config profile.dev.opt-level=0
replay=$build/debug/examples/replay
[ $# -gt 0 ] || set -- $(LLVM_PROFILE_FILE=/dev/null "$replay")

printf '| target | rooms in dataplane/src | inputs | lines | regions |\n|---|---|---|---|---|\n'
for target in "$@"; do
    rooms=$(rooms "$target")
    raw=$build/$target.profraw
    LLVM_PROFILE_FILE=$raw "$replay" "$target" >"$build/$target.log" 2>&1 || { cat "$build/$target.log" >&2; exit 1; }
    "$profdata" merge -sparse "$raw" -o "$build/$target.profdata"
    total=$("$cov" report "$replay" --instr-profile "$build/$target.profdata" \
        $(for room in $rooms; do echo "dataplane/src/$room"; done) | grep '^TOTAL')
    inputs=$(find fuzz/corpus fuzz/regressions -path "*/$target/*" -type f | wc -l)
    # TOTAL regions missed cover functions missed cover lines missed cover ...
    read -r _ _ _ regions _ _ _ lines missed covered _ <<<"$total"
    printf '| `%s` | %s | %d | %s of %d | %s |\n' "$target" "$(sed 's/[^ ]*/`&`/g' <<<"$rooms")" "$inputs" \
        "$covered" "$lines" "$regions"
done
