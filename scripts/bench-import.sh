#!/bin/bash
# How long `shunt vswitch directory import` takes for a file of LINES entries (default 1,000,000), start of the command to its
# end, durable: neighbours in order, the same in random order, and addresses of which hardly two share a /24.
# Usage: scripts/bench-import.sh [LINES]; needs target/release/shunt. An ordinary user will do.
set -euo pipefail
lines=${1:-1000000}
shunt=$PWD/target/release/shunt
dir=$(mktemp -d)
switch=
finish() { [ -z "$switch" ] || kill "$switch" 2>/dev/null || true; rm -rf "$dir"; }
trap finish EXIT

entries() { # scattered: 0 or 1
    awk -v lines="$lines" -v scattered="$1" 'BEGIN {
        srand(1)
        for (n = 0; n < lines; n++) {
            ip = scattered ? int(rand() * 16777216) : n % 16777216
            printf "{\"network\":%d,\"ip\":\"%d.%d.%d.%d\",\"mac\":\"02:00:00:%02x:%02x:%02x\",\"physical_ip\":\"192.0.2.%d\"}\n",
                1 + (scattered ? n % 100 : int(n / 100000)), scattered ? 10 + int(rand() * 32) : 10,
                int(ip / 65536), int(ip / 256) % 256, ip % 256, int(n / 65536) % 256, int(n / 256) % 256, n % 256, 1 + n % 250
        }
    }'
}
entries 0 > "$dir/neighbours"
shuf --random-source=<(yes) "$dir/neighbours" > "$dir/shuffled"
entries 1 > "$dir/scattered"

for file in neighbours shuffled scattered; do
    cat > "$dir/vswitch.toml" <<TOML
state_dir = "$dir/state-$file"
socket = "$dir/sock-$file"
[underlay]
physical_ip = "127.77.77.77"
TOML
    "$shunt" vswitch run --config "$dir/vswitch.toml" 2> "$dir/log" &
    switch=$!
    for _ in $(seq 200); do [ -S "$dir/sock-$file" ] && break; sleep 0.05; done
    begun=$(date +%s%N)
    "$shunt" vswitch --socket "$dir/sock-$file" directory import "$dir/$file" > "$dir/said" 2>&1
    took=$(( ($(date +%s%N) - begun) / 1000 ))
    echo "$file: $lines entries in $((took / 1000)) ms, $((lines * 1000 / took)) thousand a second; state file $(stat -c %s "$dir/state-$file/state.redb") bytes"
    kill "$switch"
    wait "$switch" || true
    switch=
done
