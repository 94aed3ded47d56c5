//! `shunt vswitch run` of a switch without ports: how it starts, does not start, and ends.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code outside of #[test] functions")]

mod lone;

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use lone::{Host, finish};
use serde_json::json;

#[test]
fn a_signal_ends_the_switch_in_order_and_it_comes_back_as_it_was() {
    use rustix::process::Signal;
    let mut host = Host::started();
    let mode = fs::metadata(host.path("sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    host.ask("network add 100 --prefix 10.0.0.0/24");
    let before = host.ask("export");
    for (signal, code) in [(Signal::TERM, Some(0)), (Signal::INT, Some(0)), (Signal::KILL, None)] {
        assert_eq!(host.signal(signal), code);
        assert_eq!(host.path("sock").exists(), signal == Signal::KILL, "{signal:?}");
        // Only control-C says that nobody will come again.
        assert_eq!(host.path("state/keeper.sock").exists(), signal != Signal::INT, "{signal:?}");
        // What SIGKILL leaves behind must not be taken for the sign of readiness.
        let _ = fs::remove_file(host.path("sock"));
        host.start();
        assert_eq!(host.ask("export"), before, "{signal:?}");
    }
    let log = fs::read_to_string(host.path("log")).unwrap();
    assert!(log.contains("the switch is ready") && !log.contains('\x1b'), "{log}");
}

/// The process of this name that serves the host's state directory.
fn process(host: &Host, name: &str) -> Option<rustix::process::Pid> {
    let state = host.path("state").display().to_string();
    fs::read_dir("/proc").unwrap().find_map(|entry| {
        let dir = entry.unwrap().path();
        let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
        let is = read("comm").trim() == name && read("cmdline").split('\0').any(|word| word == state);
        rustix::process::Pid::from_raw(dir.file_name()?.to_str()?.parse().ok()?).filter(|_| is)
    })
}

fn stop(host: &Host) -> lone::Said {
    let config = host.path("vswitch.toml").display().to_string();
    lone::shunt(["vswitch", "stop", "--config", &config, "--output", "json"])
}

#[test]
fn after_stop_the_address_is_free_at_once_whatever_the_standby_does() {
    use rustix::process::{Signal, kill_process};
    let mut host = Host::started();
    for stopped in [false, true, false, true] {
        let begun = std::time::Instant::now();
        let standby = loop {
            match process(&host, "shunt-standby") {
                Some(standby) => break standby,
                None => assert!(begun.elapsed() < Duration::from_secs(20), "there is no standby"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        if stopped {
            kill_process(standby, Signal::STOP).unwrap();
        }
        let said = stop(&host).json();
        assert_eq!(said["keeper"], true, "{said}");
        UdpSocket::bind((host.physical_ip.as_str(), 4789)).unwrap();
        assert_eq!(process(&host, "shunt-standby"), None);
        host.process.take().unwrap().wait().unwrap();
        host.start();
    }
    stop(&host).json();
    host.process.take().unwrap().wait().unwrap();
}

#[test]
fn a_state_directory_of_another_user_is_left_alone() {
    let host = Host::new();
    let state = host.path("state");
    if rustix::process::geteuid().is_root() {
        fs::create_dir(&state).unwrap();
        std::os::unix::fs::chown(&state, Some(65534), Some(65534)).unwrap();
    } else {
        std::os::unix::fs::symlink("/usr", &state).unwrap();
    }
    let listed = || fs::read_dir(&state).unwrap().count();
    let before = listed();
    for more in [&[][..], &["--discard-state"]] {
        let said = finish(host.run(more).args(["--output", "json"]).env("SHUNT_LOG", "off"));
        let [what, place, remedy] = said.refusal();
        assert_eq!(said.code, 1);
        assert!(what.contains("belongs to user "), "{what}");
        assert_eq!(place, state.display().to_string());
        assert!(remedy.contains("run the switch as user "), "{remedy}");
        assert_eq!(listed(), before);
    }
}

#[test]
fn stop_removes_the_socket_of_a_dead_keeper() {
    let host = Host::new();
    fs::create_dir(host.path("state")).unwrap();
    let socket = host.path("state/keeper.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert_eq!(stop(&host).json()["keeper"], false);
    assert!(!socket.exists());
}

#[test]
fn a_hangup_is_logged_and_survived() {
    use rustix::process::{Pid, Signal, kill_process};
    let mut host = Host::started();
    let hang_up = |host: &Host| {
        kill_process(Pid::from_child(host.process.as_ref().unwrap()), Signal::HUP).unwrap();
    };
    hang_up(&host);
    let begun = std::time::Instant::now();
    while !fs::read_to_string(host.path("log")).unwrap().contains("SIGHUP") {
        assert!(begun.elapsed() < Duration::from_secs(20), "it is not logged");
        std::thread::sleep(Duration::from_millis(5));
    }
    host.ask("stats");
    assert_eq!(host.signal(Signal::TERM), Some(0));
    // Nobody reads the log any more, as when a terminal is closed.
    host.process = Some(host.run(&[]).stderr(Stdio::piped()).spawn().unwrap());
    host.ready();
    drop(host.process.as_mut().unwrap().stderr.take());
    for _ in 0..3 {
        hang_up(&host);
        host.ask("stats");
    }
    assert_eq!(host.signal(Signal::TERM), Some(0));
}

#[test]
fn a_keeper_that_hangs_is_named_and_no_other_one() {
    use rustix::process::{Signal, kill_process};
    let host = Host::started();
    let _other = Host::started();
    let keeper = process(&host, "shunt-keeper").unwrap();
    kill_process(keeper, Signal::STOP).unwrap();
    let said = stop(&host);
    let [_, place, remedy] = said.refusal();
    assert_eq!(place, host.path("state/keeper.sock").display().to_string());
    assert!(remedy.contains(&format!("`kill -9 {}`", keeper.as_raw_nonzero())), "{remedy}");
    // As it says.
    kill_process(keeper, Signal::KILL).unwrap();
    assert_eq!(stop(&host).json()["keeper"], true);
}

#[test]
fn capabilities_that_are_missing_are_named_at_the_start() {
    let mut host = Host::new();
    let run = host.run(&[]);
    let root = rustix::process::geteuid().is_root();
    let mut bare = std::process::Command::new(if root { "setpriv" } else { "env" });
    if root {
        let without = "-net_admin,-sys_admin";
        bare.args(["--inh-caps", without, "--bounding-set", without]);
    }
    bare.arg(run.get_program()).args(run.get_args()).stdin(Stdio::null());
    let warned = |host: &Host| {
        let log = fs::read_to_string(host.path("log")).unwrap();
        ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"].map(|name| log.contains(name))
    };
    host.process = Some(bare.stderr(fs::File::create(host.path("log")).unwrap()).spawn().unwrap());
    host.ready();
    assert_eq!(warned(&host), [true, true]);
    stop(&host).json();
    host.process.take().unwrap().wait().unwrap();
    host.start();
    assert_eq!(warned(&host), [!root, !root]);
}

#[test]
fn a_start_that_cannot_be_says_why_and_leaves_the_running_switch_alone() {
    let running = Host::started();
    let refused = |host: &Host, more: &[&str], code: i32, place: &str, what: &str, remedy: &str| {
        let said = finish(host.run(more).args(["--output", "json"]).env("SHUNT_LOG", "off"));
        let [found_what, found_place, found_remedy] = said.refusal();
        assert_eq!(said.code, code, "{}", said.err);
        assert!(found_what.contains(what), "{found_what}");
        assert!(found_place.contains(place), "{found_place}");
        assert!(found_remedy.contains(remedy), "{found_remedy}");
        running.ask("stats");
    };
    let path = |host: &Host, name: &str| host.path(name).display().to_string();

    let state = path(&running, "state");
    refused(&running, &[], 1, &state, "another switch (process ", "`state_dir` of its own");
    refused(&running, &["--discard-state"], 1, &state, "another switch (process ", "`state_dir` of its own");

    let mut other = Host::new();
    other.configure("colour = \"red\"");
    refused(
        &other,
        &[],
        2,
        "vswitch.toml, line 1, column 1",
        "unknown field `colour`",
        "docs/reference/config.md",
    );
    other.configure(&format!("metrics = \"{}:1\"", "192.0.2.77"));
    refused(&other, &[], 1, "metrics", "cannot serve metrics at 192.0.2.77:1", "another address");
    other.configure("");
    let socket = path(&running, "sock");
    refused(&other, &["--socket", &socket], 1, &socket, "another switch answers", "`socket` of its own");
    let file = other.file("file", "precious");
    refused(&other, &["--socket", &file], 1, &file, "not a socket", "choose another `socket`");
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");

    let busy = UdpSocket::bind((other.physical_ip.as_str(), 4789)).unwrap();
    refused(&other, &[], 1, "underlay.physical_ip", "UDP port 4789", "");
    drop(busy);
    other.physical_ip = "192.0.2.77".into();
    other.configure("");
    refused(&other, &[], 1, "underlay.physical_ip", "192.0.2.77", "");
    assert!(!other.path("state/keeper.sock").exists(), "a start that fails leaves no keeper behind");
}

#[test]
fn a_corrupt_state_is_refused_kept_and_set_aside_on_demand() {
    let mut host = Host::started();
    host.ask("network add 100 --prefix 10.0.0.0/24");
    host.signal(rustix::process::Signal::TERM);
    let state = host.path("state/state.redb");
    let mut bytes = fs::read(&state).unwrap();
    bytes.truncate(bytes.len() / 2);
    fs::write(&state, &bytes).unwrap();

    let said = finish(&mut host.run(&[]));
    assert_eq!(said.code, 1, "{}", said.err);
    let sentence = said.err.lines().last().unwrap();
    assert!(sentence.contains("state.redb: the state file is corrupt"), "{sentence}");
    assert!(sentence.contains("--discard-state"), "{sentence}");
    assert_eq!(fs::read(&state).unwrap(), bytes);

    let mut child = host.run(&["--discard-state"]).stderr(Stdio::null()).spawn().unwrap();
    while !host.path("sock").exists() {
        assert!(child.try_wait().unwrap().is_none(), "the switch did not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    host.process = Some(child);
    assert_eq!(host.ask("export"), json!({"generation": 0, "networks": [], "ports": []}));
    let kept = fs::read_dir(host.path("state")).unwrap().map(|entry| entry.unwrap().path());
    let kept: Vec<_> = kept.filter(|path| path.display().to_string().contains(".discarded-")).collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(fs::read(&kept[0]).unwrap(), bytes);
}
