//! `vswitch.toml`: any text, or nearly right ones.
//!
//! The first byte chooses: the rest is the text, or a row of choices that makes one.

use std::path::Path;

use dataplane::desired::Encapsulation;
use dataplane::switch::{ConfigFileError, KEYS, SwitchConfig};
use dataplane::worker::Poll;

use crate::dice::Dice;

const FILE: &str = "some/vswitch.toml";

/// A refusal is one line that names the file, and the line or the key in it; what is accepted keeps to the documented
/// bounds, is the same when it is written and read again, and has nothing but documented keys.
///
/// # Panics
/// When that is not so.
pub fn check(input: &[u8]) {
    let mut dice = Dice::new(input);
    let text = match dice.byte() & 1 {
        1 => String::from_utf8_lossy(dice.rest()).into_owned(),
        _ => nearly_right(&mut dice),
    };
    match SwitchConfig::parse(&text, Path::new(FILE)) {
        Ok(config) => check_accepted(&config),
        Err(error) => check_refusal(&error, &text),
    }
}

fn check_accepted(config: &SwitchConfig) {
    let SwitchConfig { state_dir, socket, underlay, workers, .. } = config;
    assert!(!state_dir.as_os_str().is_empty());
    assert!((1..108).contains(&socket.as_os_str().len()));
    assert!((1..=16).contains(&underlay.physical_ips.len()));
    for (nth, ip) in underlay.physical_ips.iter().enumerate() {
        assert!(ip.0.is_loopback() || ip.require_unicast().is_ok(), "{ip}");
        assert!(!underlay.physical_ips[..nth].contains(ip), "{ip} is there twice");
    }
    assert!((576..=65_521).contains(&underlay.mtu.bytes()));
    assert!(underlay.largest_inner_mtu() >= underlay.default_inner_mtu());
    assert!((1..=64).contains(&workers.count));
    assert!(workers.cpus.is_empty() || workers.cpus.len() == usize::from(workers.count));
    let written = written(config);
    let again = SwitchConfig::parse(&written, Path::new(FILE)).expect("what was accepted is accepted again");
    assert_eq!(again, *config, "{written}");
}

/// The configuration as somebody would write it who leaves nothing to defaults.
fn written(config: &SwitchConfig) -> String {
    let SwitchConfig { state_dir, socket, metrics, underlay, workers, keep_seconds, metadata } = config;
    let quoted = |text: &str| {
        let escaped = text.chars().map(|letter| match letter {
            '"' | '\\' => format!("\\{letter}"),
            // The control characters that a basic string must not hold.
            '\0'..='\x1f' | '\x7f' => format!("\\u{:04x}", u32::from(letter)),
            _ => letter.to_string(),
        });
        format!("\"{}\"", escaped.collect::<String>())
    };
    let path = |path: &Path| quoted(path.to_str().expect("TOML is UTF-8"));
    let metadata = metadata.as_ref().map_or(String::new(), |at| format!("metadata = {}\n", path(at)));
    let metrics = metrics.map_or(String::new(), |metrics| format!("metrics = \"{metrics}\"\n"));
    let ips: Vec<_> = underlay.physical_ips.iter().map(|ip| format!("\"{ip}\"")).collect();
    let encapsulation = match underlay.encapsulation {
        Encapsulation::Vxlan => "vxlan",
        Encapsulation::Geneve => "geneve",
    };
    let poll = match workers.poll {
        Poll::Adaptive => "adaptive",
        Poll::Busy => "busy",
        Poll::Sleep => "sleep",
    };
    format!(
        "state_dir = {}\nsocket = {}\nkeep_seconds = {keep_seconds}\n{metrics}{metadata}[underlay]\nphysical_ip = [{}]\nencapsulation = \"{encapsulation}\"\n\
         mtu = {}\n[workers]\ncount = {}\ncpus = {:?}\npoll = \"{poll}\"\n",
        path(state_dir),
        path(socket),
        ips.join(", "),
        underlay.mtu.bytes(),
        workers.count,
        workers.cpus
    )
}

fn check_refusal(error: &ConfigFileError, text: &str) {
    let (what, place, remedy) = (error.to_string(), error.place(), error.remedy());
    for said in [&what, &place, &remedy] {
        assert!(!said.trim().is_empty() && !said.contains('\n'), "{said:?} of {error:?}");
    }
    assert!(place.starts_with(FILE), "{place}");
    match error {
        ConfigFileError::Parse { at, .. } => {
            let (line, column) = at.unwrap_or_else(|| panic!("no line: {what}"));
            // Behind a last line break there is one more line.
            assert!(line >= 1 && line <= text.matches('\n').count() + 1, "line {line}: {what}");
            let width = text.split('\n').nth(line - 1).unwrap().chars().count();
            assert!((1..=width + 1).contains(&column), "column {column} of {width}: {what}");
        }
        ConfigFileError::Value { key, .. } => assert!(KEYS.iter().any(|known| known.name == *key), "{key}"),
        ConfigFileError::Read { .. } => panic!("nothing was to be read"),
    }
}

fn nearly_right(dice: &mut Dice<'_>) -> String {
    let mut text = String::new();
    let long = format!("/{}", "s".repeat(usize::from(dice.byte())));
    let odd = String::from_utf8_lossy(dice.bytes(20)).into_owned();
    let value = |dice: &mut Dice<'_>| -> String {
        match dice.byte() % 24 {
            0 => "\"192.0.2.1\"".into(),
            1 => "[\"192.0.2.1\", \"2001:db8::1\"]".into(),
            2 => format!("[{}]", vec!["\"10.0.0.1\""; usize::from(dice.byte() % 20)].join(",")),
            3 => "\"vxlan\"".into(),
            4 => "\"geneve\"".into(),
            5 => dice.word().to_string(),
            6 => format!("-{}", dice.byte()),
            7 => "\"adaptive\"".into(),
            8 => "\"busy\"".into(),
            9 => format!(
                "[{}]",
                (0..dice.byte() % 70).map(|cpu| cpu.to_string()).collect::<Vec<_>>().join(",")
            ),
            10 => "\"127.0.0.1:9477\"".into(),
            11 => "\"127.0.0.1\"".into(),
            12 => format!("{long:?}"),
            13 => "\"\"".into(),
            14 => "'''\nx'''".into(),
            15 => "{ a = 1 }".into(),
            16 => "1e400".into(),
            17 => "1979-05-27".into(),
            18 => (dice.byte() % 70).to_string(),
            19 => format!("[{}]", (1..=16).map(|n| format!("\"10.0.0.{n}\"")).collect::<Vec<_>>().join(",")),
            20 => "\"::1\"".into(),
            21 => "\"224.0.0.1\"".into(),
            22 => format!("\"{odd}\""),
            _ => odd.clone(),
        }
    };
    let right = |key: &str| match key {
        "state_dir" => "\"/tmp/s\"",
        "socket" => "\"/tmp/s/sock\"",
        "metrics" => "\"[::1]:9477\"",
        "physical_ip" => "\"192.0.2.1\"",
        "encapsulation" => "\"geneve\"",
        "mtu" => "1600",
        "count" => "2",
        "cpus" => "[1, 3]",
        _ => "\"sleep\"",
    };
    for (table, keys) in [
        ("", &["state_dir", "socket", "metrics"][..]),
        ("underlay", &["physical_ip", "encapsulation", "mtu"]),
        ("workers", &["count", "cpus", "poll"]),
    ] {
        match dice.byte() % 16 {
            15 => text += &format!("[[{table}]]\n"),
            14 => {}
            _ if table.is_empty() => {}
            _ => text += &format!("[{table}]\n"),
        }
        for key in keys {
            match dice.byte() % 8 {
                0..=2 => text += &format!("{key} = {}\n", right(key)),
                3..=5 => text += &format!("{key} = {}\n", value(dice)),
                6 => text += &format!("{key} = {}\n# {odd}\n", right(key)),
                _ => {}
            }
        }
    }
    if dice.rarely(8) {
        text += &odd;
    }
    text
}
