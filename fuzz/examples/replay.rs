//! Puts the kept inputs of one target through its truth and nothing else: `scripts/fuzz-coverage.sh` measures it.
//!
//! `cargo run --example replay TARGET`; without a target, lists them.

use std::fs;
use std::path::Path;

use shunt_fuzz::TARGETS;

fn main() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Some(wanted) = std::env::args().nth(1) else {
        TARGETS.iter().for_each(|(target, _)| println!("{target}"));
        return;
    };
    let (target, check) =
        TARGETS.iter().find(|(target, _)| *target == wanted).expect("a target of that name");
    for kind in ["corpus", "regressions"] {
        let Ok(entries) = fs::read_dir(here.join(kind).join(target)) else { continue };
        entries.for_each(|entry| check(&fs::read(entry.unwrap().path()).unwrap()));
    }
}
