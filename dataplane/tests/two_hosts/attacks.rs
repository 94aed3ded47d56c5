//! The table of attacks (tests/attacks), row by row: the harness holds every counter of every port and of the underlay
//! against it.

use dataplane::desired::Encapsulation;
use dataplane::directory::Location;
use dataplane::offload::segment::Cut;
use dataplane::offload::{checksum, virtio};
use dataplane::packet::Offload;
use dataplane::pipeline::{DropReason, Trap, Verdict};
use dataplane::types::MacAddr;

use super::table::{self, Attack, End, Format, HOST_A, HOST_B, Means};
use super::world::{Guest, Host, Outcome, vni};

const A: &str = "192.0.2.1";
const B: &str = "192.0.2.2";
const EVE: Guest =
    Guest { port: "eve", network: 100, mac: MacAddr(table::EVE), ips: &["10.0.0.1", "fd00::1"] };

/// Both hosts of the table.
fn street(encapsulation: Encapsulation) -> [Host; 2] {
    [(A, HOST_A), (B, HOST_B)].map(|(ip, document)| {
        let mut host = Host::new(ip, &[], encapsulation);
        host.apply(&serde_json::from_str(document).unwrap());
        for &(network, ip, mac, at) in table::DIRECTORY {
            let location =
                Location { physical_ip: at.parse().unwrap(), mac: mac.parse().unwrap(), version: 1 };
            host.writer.set(vni(network), ip.parse().unwrap(), location).unwrap();
        }
        host.reader.refresh();
        host
    })
}

/// What the device makes of the header in front of a frame: `None` when it has to be dropped there.
fn offload(attack: &Attack, frame: &[u8]) -> Option<Offload> {
    match attack.means {
        Means::Frame | Means::Ring(_) => Some(Offload::NONE),
        Means::Header(header) => virtio::decode(&header, frame).ok(),
    }
}

fn contains(bytes: &[u8], mark: &[u8]) -> bool {
    bytes.windows(mark.len()).any(|window| window == mark)
}

#[track_caller]
fn is_at(host: &Host, outcome: &Outcome, port: &str, what: &str) {
    assert_eq!(outcome.verdict, Verdict::Deliver(host.port(port).id), "{what}: {}", name(outcome.verdict));
}

fn name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Drop(reason) => reason.name(),
        Verdict::Reply(trap) | Verdict::Absorbed(trap) => trap.name(),
        _ => "",
    }
}

#[test]
fn a_hostile_guest_row_by_row() {
    let [mut a, b] = street(Encapsulation::Vxlan);
    for (row, attack) in table::of_a_guest().enumerate() {
        let mark = table::mark(row);
        let frames = (attack.frames)(&mark);
        assert!(!frames.is_empty());
        for (number, frame) in frames.iter().enumerate() {
            let what = format!("{}: {} (frame {number})", attack.section, attack.name);
            a.now.0 += 1_000_000_000;
            let Some(offload) = offload(attack, frame) else {
                assert_eq!(attack.end, End::Dropped(DropReason::OffloadInvalid), "{what}: at the device");
                continue;
            };
            let outcome = a.send_with(&EVE, frame, offload);
            match attack.end {
                End::Dropped(reason) => {
                    assert_eq!(outcome.verdict, Verdict::Drop(reason), "{what}: {}", name(outcome.verdict));
                    assert_eq!(outcome.counted.as_deref(), Some("eve"), "{what}");
                }
                End::Answered(trap) => {
                    assert_eq!(outcome.verdict, Verdict::Reply(trap), "{what}: {}", name(outcome.verdict));
                    assert_eq!(outcome.counted.as_deref(), Some("eve"), "{what}");
                    let to = &outcome.frame[..6];
                    assert!(to == table::EVE || to == [0xff; 6], "{what}: answered to {to:?}");
                }
                End::Absorbed(trap) => assert_eq!(outcome.verdict, Verdict::Absorbed(trap), "{what}"),
                End::Reaches("dave") => {
                    let tunnel = outcome.tunnel();
                    assert_eq!(tunnel.to, B.parse().unwrap(), "{what}");
                    let arrived = b.receive_with(A, &outcome.frame, tunnel.traffic_class, outcome.offload);
                    is_at(&b, &arrived, "dave", &what);
                    assert!(contains(&arrived.frame, &mark), "{what}: carries its mark");
                }
                End::Reaches(port) => {
                    is_at(&a, &outcome, port, &what);
                    is_lawful(&outcome, &what);
                }
            }
        }
    }
}

/// What is left of a sender's virtio header is true of the frame: the receiver's device takes it, a tunnel can cut it.
#[track_caller]
fn is_lawful(outcome: &Outcome, what: &str) {
    let left = outcome.offload;
    let told = virtio::decode(&virtio::encode(left), &outcome.frame);
    assert_eq!(told, Ok(left), "{what}");
    if let Some(segmentation) = left.segmentation {
        let cut = Cut::plan(&outcome.frame, 0, segmentation).unwrap();
        assert!(cut.count() > 1, "{what}: cut into {}", cut.count());
    }
    assert!(checksum::complete(&mut outcome.frame.clone(), left.checksum).is_ok(), "{what}");
}

#[test]
fn a_hostile_underlay_row_by_row() {
    for (format, encapsulation) in
        [(Format::Vxlan, Encapsulation::Vxlan), (Format::Geneve, Encapsulation::Geneve)]
    {
        let [mut a, _] = street(encapsulation);
        for (row, arrival) in table::of_the_underlay().enumerate().filter(|(_, row)| row.format == format) {
            let [w, x, y, z] = arrival.from.address();
            for (number, payload) in (arrival.payloads)(&table::mark(row)).iter().enumerate() {
                let what = format!("{}: {} (datagram {number})", arrival.section, arrival.name);
                a.now.0 += 1_000_000_000;
                let outcome =
                    a.receive_with(&format!("{w}.{x}.{y}.{z}"), payload, arrival.tos, Offload::NONE);
                match arrival.end {
                    End::Dropped(reason) => {
                        assert_eq!(
                            outcome.verdict,
                            Verdict::Drop(reason),
                            "{what}: {}",
                            name(outcome.verdict)
                        );
                        let owner = arrival.counted.unwrap_or("underlay");
                        assert_eq!(outcome.counted.as_deref(), Some(owner), "{what}");
                    }
                    End::Answered(trap) => {
                        assert_eq!(
                            outcome.verdict,
                            Verdict::Reply(trap),
                            "{what}: {}",
                            name(outcome.verdict)
                        );
                        assert_eq!(outcome.counted.as_deref(), arrival.counted, "{what}");
                    }
                    End::Absorbed(trap) => assert_eq!(outcome.verdict, Verdict::Absorbed(trap), "{what}"),
                    End::Reaches(port) => is_at(&a, &outcome, port, &what),
                }
            }
        }
    }
}

/// Each reason that a guest or a neighbour can cause is in the table, so the page that is made from it tells all.
#[test]
fn the_table_forgets_no_reason() {
    /// What no packet causes by what it is: configuration, rules, the change of a network, devices and sockets, and floods,
    /// which have tests of their own.
    const OTHERWISE: &[DropReason] = &[
        DropReason::DhcpNoLease,
        DropReason::DhcpNotForUs,
        DropReason::RouterAbsent,
        DropReason::AnswerNoRoom,
        DropReason::TrapRateLimited,
        DropReason::DhcpRateLimited,
        DropReason::PeerRateLimited,
        DropReason::MetadataFull,
        DropReason::RuleDeniedOut,
        DropReason::RuleDeniedIn,
        DropReason::ConnectionsFull,
        DropReason::FragmentUnmatched,
        DropReason::RouteDrop,
        DropReason::NoUplink,
        DropReason::PeerNetworkAbsent,
        DropReason::PeerTransit,
        DropReason::DirectoryStale,
        DropReason::Moved,
        DropReason::StaleReply,
        DropReason::UnderlayEncapsulation,
        DropReason::UnderlaySend,
        DropReason::UnderlayFamily,
        DropReason::PortSend,
        DropReason::PortDown,
    ];
    let ends = table::of_a_guest().map(|row| row.end).chain(table::of_the_underlay().map(|row| row.end));
    let told: Vec<_> = ends.collect();
    let missing: Vec<_> = DropReason::ALL
        .iter()
        .filter(|&&reason| !told.contains(&End::Dropped(reason)) && !OTHERWISE.contains(&reason))
        .map(|reason| reason.name())
        .collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
    assert!(told.contains(&End::Answered(Trap::Arp)));
}
