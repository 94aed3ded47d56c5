#!/bin/bash
# Runs every fuzz target for a while: scripts/fuzz.sh SECONDS. What it finds interesting goes to fuzz/target/corpus, so that
# the small corpus under version control stays small.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v cargo-fuzz >/dev/null || { echo "cargo-fuzz is missing: cargo install cargo-fuzz --locked" >&2; exit 1; }
cd fuzz
# Without a sanitizer a stable toolchain will do: the code under test has next to no unsafe code, and truths are asserted.
for target in $(cargo fuzz list); do
    echo "== $target"
    mkdir -p "target/corpus/$target"
    cargo fuzz run -s none --features libfuzzer "$target" "target/corpus/$target" "corpus/$target" \
        -- -max_total_time="${1:-60}" -max_len=4096 -print_final_stats=1
done
