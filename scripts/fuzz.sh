#!/bin/bash
# Runs every fuzz target for a while: scripts/fuzz.sh SECONDS
set -euo pipefail
cd "$(dirname "$0")/.."
[ -e fuzz/Cargo.toml ] || { echo "make fuzz: not there yet" >&2; exit 1; }
command -v cargo-fuzz >/dev/null || { echo "cargo-fuzz is missing: cargo install cargo-fuzz" >&2; exit 1; }
cd fuzz
for target in $(cargo +nightly fuzz list); do
    echo "== $target"
    cargo +nightly fuzz run "$target" -- -max_total_time="${1:-30}"
done
