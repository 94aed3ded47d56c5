//! Every kept input, and many that are one small change away from one, through its truth.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use shunt_fuzz::{Check, TARGETS};

/// Small changes of each kept input: enough to notice a truth that any change breaks, few enough for every day.
const CHANGES: u32 = 6;

fn folder(kind: &str, target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(kind).join(target)
}

/// All files, in the order of their names.
fn kept(kind: &str, target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(folder(kind, target)) else { return vec![] };
    let paths: BTreeSet<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Names the input before the truth panics.
fn replay(check: Check, path: &Path, input: &[u8]) {
    if let Err(panic) = std::panic::catch_unwind(|| check(input)) {
        eprintln!("{}: {input:02x?}", path.display());
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn the_corpora_hold() {
    for (target, check) in TARGETS {
        let inputs = kept("corpus", target);
        assert!(inputs.len() > 3, "{target} has a corpus");
        inputs.iter().for_each(|(path, input)| replay(check, path, input));
    }
}

#[test]
fn past_finds_stay_fixed() {
    for (target, check) in TARGETS {
        kept("regressions", target).iter().for_each(|(path, input)| replay(check, path, input));
    }
}

#[test]
fn what_is_near_the_corpora_holds() {
    let mut chance = 1_u32;
    let mut next = || {
        // Marsaglia's xorshift: the same changes every day.
        chance ^= chance << 13;
        chance ^= chance >> 17;
        chance ^= chance << 5;
        chance as usize
    };
    for (target, check) in TARGETS {
        for (path, input) in kept("corpus", target).iter().chain(&kept("regressions", target)) {
            for _ in 0..CHANGES {
                let mut changed = input.clone();
                for _ in 0..=next() % 3 {
                    let at = next() % (changed.len() + 1);
                    match next() % 4 {
                        0 => changed.truncate(at),
                        1 => changed.insert(at, next().to_le_bytes()[0]),
                        _ => changed.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (at % 8)),
                    }
                }
                replay(check, path, &changed);
            }
        }
    }
}

#[test]
fn each_folder_belongs_to_a_target() {
    for kind in ["corpus", "regressions"] {
        let Ok(entries) = fs::read_dir(folder(kind, "")) else { continue };
        for entry in entries {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(TARGETS.iter().any(|(target, _)| *target == name), "{kind}/{name} is no target's");
        }
    }
}

#[test]
fn each_find_has_a_sentence() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    for (target, _) in TARGETS {
        for (path, _) in kept("regressions", target) {
            let name = format!("{target}/{}", path.file_name().unwrap().to_str().unwrap());
            assert!(readme.contains(&format!("`{name}`")), "README.md says nothing about {name}");
        }
    }
}
