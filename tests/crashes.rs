//! Everybody is killed at every step: the controller, hosts' agents and switches, each a process, in a cluster that has
//! customers. Whoever was killed is started again, and then nobody helps: the operation ends and says how, and the cluster
//! is as it should be. The steps are those of the journeys' own tables.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what broke by panicking"
)]

mod estate;
mod scene;

use control::model::JourneyKind;
use control::workflow::steps;
use estate::{Estate, Hold, Machine, text};
use serde_json::Value;

const KINDS: [JourneyKind; 2] = [JourneyKind::HandOver, JourneyKind::NetworkChange];
/// The machine that moves.
const WALKER: &str = "walker";

/// Where somebody is killed.
#[derive(Clone, Copy, Debug)]
struct Point {
    kind: JourneyKind,
    step: &'static str,
    backward: bool,
    after: bool,
}

impl Point {
    fn hold(&self, estate: &Estate) -> Hold {
        estate.hold(self.kind, self.step, self.backward, self.after)
    }
}

/// The first step behind which there is no way back.
fn last_undone(kind: JourneyKind) -> usize {
    steps(kind).iter().position(|step| step.is_point_of_no_return()).expect("a point of no return")
}

/// Before and after the transactions of all steps, and of all that can be undone on the way back.
fn points(kind: JourneyKind) -> Vec<Point> {
    let there = steps(kind).iter().map(|step| (step.name(), false));
    let back = steps(kind).iter().take(last_undone(kind)).rev().map(|step| (step.name(), true));
    let sides = [false, true];
    let both = there.chain(back);
    both.flat_map(|(step, backward)| sides.map(|after| Point { kind, step, backward, after })).collect()
}

/// The cluster, with a machine that moves.
fn estate() -> Estate {
    let estate = Estate::new();
    estate.done(&["vm", "create", WALKER, "--image", "tiny", "--network", "red"]);
    estate
}

/// Begins the n-th journey, of this kind: the operation, the machine that it is about, and what that was before.
fn begin(estate: &Estate, kind: JourneyKind, number: usize) -> (String, String, Option<Machine>) {
    match kind {
        JourneyKind::HandOver => {
            let name = format!("web-{number}");
            (estate.begin(&["vm", "create", &name, "--image", "tiny", "--network", "red"]), name, None)
        }
        JourneyKind::NetworkChange => {
            let walker = estate.machine(WALKER);
            let to = if walker.text("network") == "red" { "blue" } else { "red" };
            (estate.begin(&["vm", "move", WALKER, "--network", to]), WALKER.to_owned(), Some(walker))
        }
        other => panic!("{other} is not begun here"),
    }
}

/// `operation`, about the machine `name` that was so `before`, has ended: what it says is true. True if it was done.
fn judge(estate: &Estate, name: &str, before: Option<&Machine>, ended: &Value) -> bool {
    let is_done = text(ended, "state") == "done";
    if !is_done {
        assert_eq!(text(ended, "state"), "undone", "{ended:#}\n{}", estate.logs());
        assert!(!text(&ended["problem"], "what").is_empty(), "{ended:#}");
    }
    let all = estate.rest();
    match (all.iter().find(|machine| machine.name() == name), before) {
        (Some(now), None) => {
            assert!(is_done, "{ended:#}");
            estate.assert_there(now, &all);
            estate.begin(&["vm", "delete", name]);
        }
        (None, None) => assert!(!is_done, "{ended:#}"),
        (None, Some(_)) => panic!("{name} is lost: {ended:#}"),
        (Some(now), Some(before)) => {
            for same in ["id", "mac", "physical_ip", "host", "tenant"] {
                assert_eq!(now.text(same), before.text(same), "{same}");
            }
            assert_eq!(now.0["guest"]["boot_id"], before.0["guest"]["boot_id"], "no reboot");
            assert_eq!(is_done, now.text("network") != before.text("network"), "{ended:#}");
            estate.assert_there(now, &all);
            if is_done {
                estate.assert_nobody(before.text("network"), &before.ip(), &all);
            } else {
                assert_eq!(now.addresses(), before.addresses(), "{ended:#}");
            }
        }
    }
    is_done
}

#[test]
fn a_controller_that_is_killed_at_any_step_goes_on_where_it_was() {
    let mut estate = estate();
    let before = estate.rows_at_rest();
    for (number, point) in KINDS.into_iter().flat_map(points).enumerate() {
        let hold = point.hold(&estate);
        if point.backward {
            estate.refuse(point.kind, steps(point.kind)[last_undone(point.kind)].name());
        }
        let (operation, name, before) = begin(&estate, point.kind, number);
        hold.reached(&estate);
        estate.stage.kill_controller();
        hold.lift();
        estate.stage.start_controller().unwrap_or_else(|error| panic!("{point:?}: {error}"));
        let ended = estate.ended(&operation);
        let is_done = judge(&estate, &name, before.as_ref(), &ended);
        assert_eq!(is_done, !point.backward, "{point:?} {ended:#}");
    }
    assert_eq!(estate.rows_at_rest(), before, "what is left behind, by kind");
}

/// Whom to kill at a host.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Agent,
    Switch,
}

impl Victim {
    fn kill(self, estate: &mut Estate, place: usize) {
        match self {
            Self::Agent => estate.stage.kill_agent(place),
            Self::Switch => estate.stage.hosts_mut()[place].switch.kill(),
        }
    }

    fn start(self, estate: &mut Estate, place: usize) {
        let started = match self {
            Self::Agent => estate.stage.start_agent(place),
            Self::Switch => estate.stage.hosts_mut()[place].switch.start(),
        };
        started.unwrap_or_else(|error| panic!("{self:?}: {error}"));
    }
}

/// Kills `victim` before every step, at the machine's host and at the other one, while the controller waits there.
fn killed_before_every_step(victim: Victim) {
    let mut estate = estate();
    let before = estate.rows_at_rest();
    let mut number = 0;
    for kind in KINDS {
        for step in steps(kind) {
            for other in [0, 1] {
                let point = Point { kind, step: step.name(), backward: false, after: false };
                let hold = point.hold(&estate);
                let (operation, name, before) = begin(&estate, kind, number);
                number += 1;
                hold.reached(&estate);
                let vm = estate.ok(&["operation", "show", &operation])["vm"].clone();
                // As long as it has no machine, one host is as good as the other.
                let place =
                    vm.as_str().map_or(0, |vm| estate.place(text(&estate.ok(&["vm", "show", vm]), "host")));
                let place = (place + other) % 2;
                victim.kill(&mut estate, place);
                hold.lift();
                victim.start(&mut estate, place);
                let ended = estate.ended(&operation);
                assert!(judge(&estate, &name, before.as_ref(), &ended), "{victim:?} {point:?} {ended:#}");
            }
        }
    }
    assert_eq!(estate.rows_at_rest(), before, "what is left behind, by kind");
}

#[test]
fn an_agent_that_is_killed_before_any_step_is_no_harm() {
    killed_before_every_step(Victim::Agent);
}

#[test]
fn a_switch_that_is_killed_before_any_step_is_no_harm() {
    killed_before_every_step(Victim::Switch);
}
