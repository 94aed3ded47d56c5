//! The command line against a switch without ports: what it prints, where it complains, how it exits.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code outside of #[test] functions")]

mod lone;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use lone::{Host, finish, shunt};
use serde_json::{Value, json};

#[test]
fn what_is_not_understood_exits_with_2_and_says_what_would_be() {
    for (line, what) in [
        ("network add 0 --prefix 10.0.0.0/24", "VNI 0 is out of range: expected 1 to 16777215"),
        ("network add 16777216 --prefix 10.0.0.0/24", "VNI 16777216 is out of range"),
        ("network add red --prefix 10.0.0.0/24", "`red` is not a VNI: expected a whole number"),
        ("network add 100", "--prefix <PREFIX>"),
        ("network add 100 --prefix 10.0.0.5/24", "10.0.0.5/24 has host bits set: write 10.0.0.0/24"),
        (
            "network add 100 --prefix 10.0.0.0/33",
            "`10.0.0.0/33` is not a prefix: expected one such as 10.0.0.0/24",
        ),
        (
            "network add 100 --prefix 10.0.0.0/24 --gateway 10.1.0.1",
            "gateway 10.1.0.1 is in none of the prefixes 10.0.0.0/24",
        ),
        (
            "network add 100 --prefix 10.0.0.0/24 --gateway 10.0.0.1 --gateway 10.0.0.2",
            "prefix 10.0.0.0/24 has two gateways",
        ),
        ("network add 100 --prefix 10.0.0.0/24 --mtu 100", "MTU 100 is out of range"),
        ("network add 100 --prefix 10.0.0.0/24 --domain a..b", "`a..b` is not a domain name"),
        ("network add 100 --prefix 10.0.0.0/24 --dns nowhere", "nowhere"),
        ("network add 100 --prefix 10.0.0.0/24 --colour red", "unexpected argument '--colour'"),
        ("port add a/b --network 1 --mac 02:00:00:00:00:01 --ip 10.0.0.1", "`a/b` is not a port name"),
        (
            "port add web --network 1 --mac 02:00:00:00:00 --ip 10.0.0.1",
            "is not a MAC address: expected six hex octets",
        ),
        ("port add web --network 1 --mac 02:00:00:00:00:01 --ip 10.0.0", "`10.0.0` is not an IP address"),
        (
            "port add web --network 1 --mac 02:00:00:00:00:01 --ip 10.0.0.1 --kind veth",
            "invalid value 'veth'",
        ),
        ("port move web --network 1 --ip 10.0.0.1 --no-bounce --hold-ms 5", "cannot be used with"),
        ("port move web --network 1 --ip 10.0.0.1 --timeout-seconds 5", "--wait <EVENT>"),
        (
            "route add --network 1 10.0.0.0/8 --via anywhere",
            "`anywhere` is no next hop: expected an IP address, `gateway`, `drop` or `network:VNI`",
        ),
        ("route add --network 1 10.0.0.0/8 --via network:0", "VNI 0 is out of range"),
        ("rule add --port a --direction in --action deny --ports 443", "protocol any has no ports"),
        ("rule add --port a --direction in --action deny --icmp-type 8", "protocol any has no ICMP types"),
        (
            "rule add --port a --direction in --action deny --icmp-type echo",
            "`echo` is not an ICMP type: expected a number from 0 to 255",
        ),
        (
            "rule add --port a --direction in --action deny --priority -1",
            "`-1` is not a priority: expected a number from 0 to 65535",
        ),
        (
            "rule add --port a --direction in --action deny --id 0",
            "`0` is not a rule's number: expected one from 1",
        ),
        ("rule remove --port a x", "`x` is not a rule's number: expected one from 1"),
        ("rule del --port a -1", "`-1` is not a rule's number"),
        ("rule add --port a --direction in --action deny --remote 10.0.0.5/24", "write 10.0.0.0/24"),
        (
            "port move web --network 1 --ip 10.0.0.1 --rules /nonexistent.json",
            "cannot read the file: No such file",
        ),
        ("stop --config /nonexistent.toml --socket /nonexistent", "`stop` does not ask at a socket"),
        ("apply /nonexistent.json", "cannot read the file: No such file"),
        ("directory import /nonexistent.json", "cannot read the file: No such file"),
        ("run --config /nonexistent.toml", "cannot read the configuration: No such file"),
        ("netwrok list", "unrecognized subcommand 'netwrok'"),
    ] {
        let args = || ["vswitch"].into_iter().chain(line.split_whitespace());
        let plain = shunt(args());
        assert_eq!(plain.code, 2, "{line}\n{}", plain.err);
        assert!(plain.err.starts_with("error: ") && plain.err.contains(what), "{line}\n{}", plain.err);
        assert_eq!(plain.out, "");
        let told = shunt(args().chain(["--output", "json"]));
        assert_eq!(told.code, 2, "{line}");
        let [said, place, remedy] = told.refusal();
        assert!(said.contains(what) && !said.contains('\n'), "{line}\n{said}");
        assert!(!place.is_empty() && !remedy.is_empty(), "{line}\n{}", told.err);
    }
}

#[test]
fn without_a_switch_each_verb_says_so() {
    let nobody = tempfile::tempdir().unwrap();
    let socket = nobody.path().join("sock").display().to_string();
    for line in ["stats", "export", "network list", "port remove web", "directory list", "drops"] {
        let said =
            shunt(["--output=json", "vswitch", "--socket", &socket].into_iter().chain(line.split(' ')));
        assert_eq!(said.code, 1, "{line}");
        let [what, place, remedy] = said.refusal();
        assert!(what.starts_with("no switch answers: No such file"), "{what}");
        assert_eq!(place, socket);
        assert!(remedy.contains("shunt vswitch run --config FILE"), "{remedy}");
    }
}

#[test]
fn what_the_switch_refuses_exits_with_1_and_changes_nothing() {
    let host = Host::started();
    host.ask("network add 100 --prefix 10.0.0.0/24");
    host.ask("network add 200 --prefix 10.0.0.0/24 --gateway 10.0.0.254");
    host.ask("route add --network 100 10.9.0.0/16 --via network:200");
    let before = host.ask("export");
    let old = host.file("old.json", r#"{"generation": 2}"#);
    let same = host.file("same.json", r#"{"generation": 3}"#);
    let port = "port add web --mac 02:00:00:00:00:01";
    let other = format!(
        r#"{{"generation": 9, "networks": [{}], "ports": [{}, {}]}}"#,
        before["networks"][1],
        r#"{"name": "a", "network": 200, "mac": "02:00:00:00:00:01", "ips": ["10.0.0.5"]}"#,
        r#"{"name": "b", "network": 200, "mac": "02:00:00:00:00:01", "ips": ["10.0.0.6"]}"#,
    );
    let other = host.file("other.json", &other);
    for (line, place, what, remedy) in [
        (
            "network add 100 --prefix 10.0.0.0/24",
            "network 100",
            "network 100 already exists",
            "choose another VNI",
        ),
        (
            "network add 300 --prefix 10.0.0.0/24 --prefix 10.0.0.128/25",
            "network 300",
            "overlap",
            "share no address",
        ),
        (
            "network add 300 --prefix 10.0.0.0/24 --mtu 9000",
            "network 300, mtu",
            "does not fit the underlay",
            "at most 1450",
        ),
        (
            "network add 300 --prefix 10.0.0.0/24 --lease-seconds 1",
            "network 300, lease_seconds",
            "too short",
            "--lease-seconds",
        ),
        (
            "network add 300 --prefix 10.0.0.0/31",
            "network 300, prefix",
            "no room for a gateway and a guest",
            "/30",
        ),
        ("network remove 300", "network 300", "network 300 does not exist", "network list"),
        (
            "network remove 200",
            "network 100, route 10.9.0.0/16",
            "network 200 cannot go: network 100 has a route to 10.9.0.0/16 into it",
            "route remove --network 100 10.9.0.0/16",
        ),
        (
            "route add --network 100 10.9.0.0/16 --via drop",
            "network 100, route 10.9.0.0/16",
            "network 100 already has a route to 10.9.0.0/16",
            "route remove --network 100 10.9.0.0/16",
        ),
        (
            "route add --network 100 10.8.0.0/16 --via 10.1.0.1",
            "network 100, route 10.8.0.0/16",
            "goes through 10.1.0.1",
            "inside one of",
        ),
        (
            "route remove --network 100 10.8.0.0/16",
            "network 100, route 10.8.0.0/16",
            "has no route to 10.8.0.0/16",
            "route list",
        ),
        ("route list --network 300", "network 300", "network 300 does not exist", "network list"),
        (
            &format!("{port} --network 300 --ip 10.0.0.5"),
            "port web, network",
            "network 300 does not exist",
            "network add 300",
        ),
        (
            &format!("{port} --network 100 --ip 10.1.0.5"),
            "port web, ips",
            "10.1.0.5 is not a guest address of network 100",
            "host address",
        ),
        (
            &format!("{port} --network 100 --ip 10.0.0.1"),
            "port web, ips",
            "10.0.0.1 is the gateway's",
            "choose another",
        ),
        ("port move web --network 100 --ip 10.0.0.5", "port web", "port web does not exist", "port list"),
        ("port remove web", "port web", "port web does not exist", "port list"),
        ("port show web", "port web", "port web does not exist", "port list"),
        (
            "directory lookup --network 100 --ip 10.0.0.9",
            "network 100, 10.0.0.9",
            "no entry for 10.0.0.9",
            "directory list",
        ),
        (
            "directory remove --network 100 --ip 10.0.0.9",
            "network 100, 10.0.0.9",
            "no entry for 10.0.0.9",
            "directory list",
        ),
        (
            "directory set --network 100 --ip 10.0.0.9 --mac 03:00:00:00:00:01 --physical-ip 192.0.2.1",
            "directory",
            "03:00:00:00:00:01",
            "",
        ),
        (
            &format!("apply {old}"),
            "generation",
            "generation 2 is older than the switch's generation 3",
            "as generation 4",
        ),
        (
            &format!("apply {same}"),
            "generation",
            "generation 3 is already in force with other content",
            "as generation 4",
        ),
        (
            &format!("apply {other}"),
            "port b, mac",
            "02:00:00:00:00:01 is already port a's in network 200",
            "choose another MAC",
        ),
    ] {
        let said = host.say(&format!("{line} --output json"));
        assert_eq!(said.code, 1, "{line}\n{}{}", said.out, said.err);
        let [found_what, found_place, found_remedy] = said.refusal();
        assert!(found_what.contains(what), "{line}\n{found_what}");
        assert!(found_place.starts_with(place), "{line}\n{found_place}");
        assert!(found_remedy.contains(remedy) && !found_remedy.is_empty(), "{line}\n{found_remedy}");
        let plain = host.say(line);
        assert_eq!((plain.code, plain.err.lines().count()), (1, 1), "{line}\n{}", plain.err);
        assert_eq!(host.ask("export"), before, "{line}");
    }
}

#[test]
fn files_that_are_not_understood_are_refused_at_their_line() {
    let host = Host::started();
    let document = host.file("bad.json", "{\"generation\": 1,\n \"ports\": [{\"nam\": \"web\"}]}");
    let said = host.say(&format!("apply {document} --output json"));
    assert_eq!(said.code, 2);
    let [what, place, _] = said.refusal();
    assert!(what.starts_with("unknown field `nam`"), "{what}");
    assert_eq!(place, format!("{document}, line 2, column 17"));

    let good = r#"{"network":7,"ip":"10.0.0.1","mac":"02:00:00:00:00:07","physical_ip":"192.0.2.2"}"#;
    for (third, what) in [
        ("{", "EOF while parsing"),
        (
            r#"{"network":7,"ip":"10.0.0.300","mac":"02:00:00:00:00:07","physical_ip":"192.0.2.2"}"#,
            "IP address",
        ),
        (r#"{"network":7,"ip":"10.0.0.3","mac":"02:00:00:00:00:07"}"#, "missing field `physical_ip`"),
        (
            r#"{"network":7,"ip":"10.0.0.3","mac":"03:00:00:00:00:07","physical_ip":"192.0.2.2"}"#,
            "not a unicast MAC",
        ),
        (
            r#"{"network":7,"ip":"224.0.0.1","mac":"02:00:00:00:00:07","physical_ip":"192.0.2.2"}"#,
            "not a unicast host",
        ),
    ] {
        let file = host.file("import", &format!("{good}\n\n{third}\n{good}\n"));
        let said = host.say(&format!("directory import {file} --output json"));
        assert_eq!(said.code, 2, "{third}");
        let [found, place, remedy] = said.refusal();
        assert!(found.contains(what), "{found}");
        assert_eq!(place, format!("{file}, line 3"));
        assert!(remedy.contains("nothing was imported"));
        assert_eq!(host.ask("directory list"), json!({"entries": []}));
    }
}

#[test]
fn verbs_do_what_they_say_in_both_formats() {
    let host = Host::started();
    let added = host
        .ask("network add 100 --prefix 10.0.0.0/24 --prefix fd00::/64 --dns 10.0.0.53 --domain red.example");
    assert_eq!((&added["network"], &added["generation"]), (&json!(100), &json!(1)));
    assert!(added["settled_ns"].as_u64() >= added["swap_ns"].as_u64());
    let networks = host.ask("network list");
    let subnets = json!([{"prefix": "10.0.0.0/24", "gateway": "10.0.0.1"}, {"prefix": "fd00::/64", "gateway": "fd00::1"}]);
    assert_eq!(networks["networks"][0]["subnets"], subnets);
    assert_eq!(networks["networks"][0]["guest_mtu"], 1450);
    let table = host.say("network list");
    assert!(
        table.out.contains("VNI  PREFIXES") && table.out.contains("100  10.0.0.0/24, fd00::/64"),
        "{}",
        table.out
    );
    assert!(host.say("network list").out.lines().all(|line| !line.ends_with(' ')));

    host.ask("route add --network 100 10.9.0.0/16 --via drop");
    assert_eq!(
        host.ask("route list")["routes"],
        json!([{"network": 100, "prefix": "10.9.0.0/16", "via": "drop"}])
    );
    let said = host.say("route remove --network 100 10.9.0.0/16");
    assert_eq!(said.out, "network 100 has no route to 10.9.0.0/16 since generation 3\n");
    // An address is the prefix of that host.
    host.ask("route add --network 100 10.9.0.7 --via drop");
    assert_eq!(host.ask("route list")["routes"][0]["prefix"], "10.9.0.7/32");
    host.ask("route del --network 100 10.9.0.7");

    let entry =
        json!({"network": 100, "ip": "10.0.0.9", "mac": "02:00:00:00:00:09", "physical_ip": "192.0.2.9"});
    let set = "directory set --network 100 --ip 10.0.0.9 --mac 02:00:00:00:00:09 --physical-ip 192.0.2.9";
    assert_eq!(host.ask(set), entry);
    assert_eq!(host.ask("directory lookup --network 100 --ip 10.0.0.9"), entry);
    assert_eq!(host.ask("directory list --network 100"), json!({"entries": [entry]}));
    assert_eq!(host.ask("directory remove --network 100 --ip 10.0.0.9"), json!({"entries": 1}));

    // It counts what it brings, and nothing of what is there.
    let line = r#"{"network":100,"ip":"10.0.0.9","mac":"02:00:00:00:00:09","physical_ip":"192.0.2.9"}"#;
    for (text, said) in [("", "0 entries imported\n"), (line, "1 entry imported\n")] {
        let file = host.file("import", text);
        assert_eq!(host.say(&format!("directory import {file}")).out, said);
    }
    host.ask("directory del --network 100 --ip 10.0.0.9");

    assert_eq!(host.ask("port list"), json!({"generation": 5, "ports": []}));
    assert_eq!(host.ask("drops"), json!({"drops": []}));
    assert_eq!(host.say("drops").out, "nothing was dropped\n");
    assert_eq!(host.ask("stats")["underlay"]["received_packets"], 0);
    let stats = host.say("stats").out;
    assert!(stats.contains("(underlay)") && stats.contains("received: from the guest"), "{stats}");

    let document = host.ask("export");
    assert_eq!(host.say("export").out, host.say("export --output json").out);
    let text = serde_json::to_string(&document).unwrap();
    let same = host.file("same.json", &text);
    assert_eq!(host.ask(&format!("apply {same}"))["generation"], 5);
    let next = host.file("next.json", &text.replace("\"generation\":5", "\"generation\":70"));
    assert_eq!(host.ask(&format!("apply {next}"))["generation"], 70);
}

#[test]
fn a_large_directory_is_imported_and_listed_page_by_page() {
    let host = Host::started();
    let lines: String = (0..25_000_u32)
        .map(|n| {
            let [_, b, c, d] = n.to_be_bytes();
            format!("{{\"network\":7,\"ip\":\"10.{b}.{c}.{d}\",\"mac\":\"02:00:00:00:00:07\",\"physical_ip\":\"192.0.2.2\"}}\n")
        })
        .collect();
    let file = host.file("import", &lines);
    // A broadcast address of some prefix is a host's address of another: all 25,000 are fine.
    assert_eq!(host.ask(&format!("directory import {file}")), json!({"entries": 25_000}));
    assert_eq!(host.ask("directory list")["entries"].as_array().unwrap().len(), 25_000);
    assert_eq!(host.say("directory list").out.lines().count(), 25_001);
    assert_eq!(host.ask("directory list --network 8"), json!({"entries": []}));
}

#[test]
fn a_reader_that_leaves_ends_the_command_quietly() {
    let host = Host::started();
    let lines: String = (1..20_000_u32)
        .map(|n| {
            let [_, b, c, d] = n.to_be_bytes();
            format!("{{\"network\":7,\"ip\":\"10.{b}.{c}.{d}\",\"mac\":\"02:00:00:00:00:07\",\"physical_ip\":\"192.0.2.2\"}}\n")
        })
        .collect();
    let file = host.file("import", &lines);
    host.ask(&format!("directory import {file}"));
    let socket = host.path("sock");
    for args in [&["vswitch", "directory", "list"][..], &["completions", "zsh"], &["vswitch", "--help"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_shunt"))
            .args(args)
            .env("SHUNT_VSWITCH_SOCKET", &socket)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::with_capacity(16, child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{args:?}");
        assert!(!first.is_empty());
    }
}

#[test]
fn sockets_and_formats_stand_anywhere_and_flags_win_over_the_environment() {
    let host = Host::started();
    let socket = host.path("sock").display().to_string();
    for args in [
        vec!["vswitch", "--socket", &socket, "--output", "json", "drops"],
        vec!["vswitch", "drops", "--output", "json", "--socket", &socket],
        vec!["--output", "json", "vswitch", "network", "--socket", &socket, "list"],
    ] {
        serde_json::from_str::<Value>(&shunt(args.clone()).out).unwrap_or_else(|_| panic!("{args:?}"));
    }
    let from_environment = |socket: &str, args: &[&str]| {
        finish(Command::new(env!("CARGO_BIN_EXE_shunt")).args(args).env("SHUNT_VSWITCH_SOCKET", socket))
    };
    assert_eq!(from_environment(&socket, &["vswitch", "drops"]).code, 0);
    assert_eq!(from_environment("/nonexistent", &["vswitch", "drops", "--socket", &socket]).code, 0);
    assert_eq!(from_environment("/nonexistent", &["vswitch", "drops"]).code, 1);

    // The variable tells clients where to ask; it does not move a switch away from its configuration.
    let mut other = Host::new();
    let elsewhere = other.path("elsewhere");
    other.process =
        Some(other.run(&[]).env("SHUNT_VSWITCH_SOCKET", &elsewhere).stderr(Stdio::null()).spawn().unwrap());
    other.ready();
    assert!(!elsewhere.exists());
}

#[test]
fn completions_know_the_verbs() {
    for shell in ["bash", "zsh", "fish"] {
        let said = shunt(["completions", shell]);
        assert!(said.code == 0 && said.out.contains("vswitch"), "{shell}");
    }
    let bash = shunt(["completions", "bash"]).out;
    assert!(!bash.contains("keeper"), "a hidden verb is offered");
    let script = tempfile::NamedTempFile::new().unwrap();
    script.as_file().write_all(bash.as_bytes()).unwrap();
    assert!(Command::new("bash").arg("-n").arg(script.path()).status().unwrap().success());
    let asked =
        "COMP_WORDS=(shunt vswitch port ''); COMP_CWORD=3; _shunt shunt '' port; echo \"${COMPREPLY[@]}\"";
    let source = format!("source {}; {asked}", Path::new(script.path()).display());
    let said = finish(Command::new("bash").args(["-c", &source]));
    for verb in ["add", "move", "remove", "list", "show"] {
        assert!(said.out.split_whitespace().any(|word| word == verb), "{verb}: {}{}", said.out, said.err);
    }
}

#[test]
fn a_demonstration_that_cannot_be_given_says_so_like_every_other_verb() {
    let said = finish(Command::new(env!("CARGO_BIN_EXE_shunt")).arg("demo").env("PATH", ""));
    assert_eq!((said.code, said.err.lines().count()), (1, 1), "{}", said.err);
    assert!(said.err.starts_with("error: shunt demo: "), "{}", said.err);
}
