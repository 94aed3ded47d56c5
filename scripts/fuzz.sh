#!/bin/bash
# Runs fuzz targets for a while, all of them or those named: scripts/fuzz.sh SECONDS [TARGET...]. What it finds interesting
# goes to fuzz/target/corpus, so that the small corpus under version control stays small; scripts/fuzz.sh minimize [TARGET...]
# makes that one anew, as the smallest set of both that covers the same.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
command -v cargo-fuzz >/dev/null || { echo "cargo-fuzz is missing: cargo install cargo-fuzz --locked" >&2; exit 1; }
what=${1:-60}
shift || true
[ $# -gt 0 ] || set -- $(cargo fuzz list)
# Without a sanitizer a stable toolchain will do: the code under test has next to no unsafe code, and truths are asserted.
build=(-s none --features libfuzzer)
for target in "$@"; do
    echo "== $target"
    mkdir -p "target/corpus/$target" "corpus/$target"
    if [ "$what" = minimize ]; then
        fresh=$(mktemp -d -p target)
        cargo fuzz run "${build[@]}" "$target" "$fresh" "corpus/$target" "target/corpus/$target" -- -set_cover_merge=1
        rm -r "corpus/$target"
        mkdir "corpus/$target"
        # Twelve digits of the hash are name enough.
        for input in "$fresh"/*; do
            name=$(basename "$input")
            mv "$input" "corpus/$target/${name:0:12}"
        done
        rmdir "$fresh"
    else
        cargo fuzz run "${build[@]}" "$target" "target/corpus/$target" "corpus/$target" \
            -- -max_total_time="$what" -max_len=4096 -timeout=20 -print_final_stats=1
    fi
done
