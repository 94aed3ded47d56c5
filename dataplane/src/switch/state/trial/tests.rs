#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

use std::fs;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Act {
    Write(u64, usize, u8),
    SetLength(u64),
    Sync,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0_u64..30_000, 0_usize..9000, any::<u8>()).prop_map(|(at, long, byte)| Act::Write(at, long, byte)),
        2 => (1_u64..40_000).prop_map(Act::SetLength),
        1 => Just(Act::Sync),
    ]
}

fn whole(trial: &Trial) -> Vec<u8> {
    let mut bytes = vec![0; trial.len().unwrap() as usize];
    trial.read(0, &mut bytes).unwrap();
    bytes
}

proptest! {
    #[test]
    fn a_file_on_trial_reads_as_if_written_and_is_written_when_accepted(
        length in 1_usize..20_000, acts in prop::collection::vec(act(), 0..12), from in 0_u64..30_000, long in 0_usize..9000
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let before: Vec<u8> = (0..length).map(|at| (at * 7 % 251) as u8 | 1).collect();
        fs::write(&path, &before).unwrap();
        let trial = Trial::open(&path).unwrap();
        let mut model = before.clone();
        for act in acts {
            match act {
                Act::Write(at, long, byte) => {
                    let end = at as usize + long;
                    trial.write(at, &vec![byte; long]).unwrap();
                    model.resize(model.len().max(end), 0);
                    model[at as usize..end].fill(byte);
                }
                Act::SetLength(length) => {
                    trial.set_len(length).unwrap();
                    model.resize(length as usize, 0);
                }
                Act::Sync => trial.sync_data().unwrap(),
            }
            prop_assert!(whole(&trial) == model);
            let mut part = vec![0; long];
            let there = model.get(from as usize..from as usize + long);
            prop_assert_eq!(trial.read(from, &mut part).is_ok(), there.is_some());
            prop_assert!(there.is_none_or(|there| there == part));
        }
        prop_assert!(fs::read(&path).unwrap() == before, "written before it was accepted");
        trial.accept().unwrap();
        prop_assert!(fs::read(&path).unwrap() == model);
        trial.write(3, b"through").unwrap();
        prop_assert!(fs::read(&path).unwrap()[3..10] == *b"through" && whole(&trial)[3..10] == *b"through");
    }
}
