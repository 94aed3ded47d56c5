//! What switch and keeper say to each other, as bytes. Pure: descriptors are only counted here.
//!
//! A message is one packet of a `SOCK_SEQPACKET` socket, so a peer cannot leave half of one behind: a head of twelve
//! bytes (magic, version, number of descriptors, length of the body; big-endian) and a body of JSON. The head, `hello`,
//! `status` and `end` stay as they are in every version; all else may change with the version that `hello` agrees on.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::desired::{PortName, is_namespace};
use crate::port::open::{TapSpec, UdpUse};

/// The versions that this build speaks, oldest and newest.
pub const SPOKEN: Versions = Versions { oldest: 1, newest: 1 };
/// More than the longest message there is: a namespace's path is bounded by [`LONGEST_NAMESPACE`].
pub const MESSAGE_BYTES: usize = 16 << 10;
/// A TAP's queues and its control socket, with room to spare; the kernel passes at most 253 at once.
pub const MESSAGE_DESCRIPTORS: usize = 32;
/// Bytes of a namespace's path, as the kernel bounds paths.
const LONGEST_NAMESPACE: usize = 4096;
/// As many as a port may have, see `desired`.
const MOST_QUEUES: usize = 16;

const MAGIC: [u8; 4] = *b"SHKP";
const HEAD: usize = 12;

/// A range of versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    /// The oldest of them.
    pub oldest: u16,
    /// The newest of them.
    pub newest: u16,
}

impl Versions {
    /// The newest version that both speak.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest && newest >= other.oldest).then_some(newest)
    }
}

/// Which TAP.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TapName {
    /// The interface.
    pub name: PortName,
    /// Its namespace, as in [`TapSpec`].
    pub netns: Option<String>,
}

impl TapName {
    /// The one that a spec speaks of.
    #[must_use]
    pub fn of(spec: &TapSpec) -> Self {
        Self { name: spec.name.clone(), netns: spec.netns.clone() }
    }
}

/// What is asked of a keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// The first word of a switch: from now on it is the one that is served.
    Hello {
        /// By it.
        speaks: Versions,
        /// How long to keep what it was given when it is gone, in seconds.
        keep_seconds: u32,
    },
    /// A TAP: the one that is kept, or a new one. Answered by [`Answer::Tap`] with control socket and queues.
    Tap {
        /// Which, and how it is to be.
        spec: TapSpec,
    },
    /// A socket between hosts: one that is kept and not yet given to this switch, or a new one.
    Udp {
        /// Where it is bound.
        address: SocketAddr,
        /// What for.
        purpose: UdpUse,
    },
    /// MAC and MTU of a TAP that was given become the specified ones.
    Configure {
        /// As it is to be.
        spec: TapSpec,
    },
    /// What the guest of a TAP sends from now on belongs to this binding.
    Mark {
        /// Which.
        tap: TapName,
        /// Of the port: the same number for the same network, MAC and addresses.
        binding: u64,
    },
    /// The TAP is not needed any more.
    Close {
        /// Which.
        tap: TapName,
    },
    /// A TAP to be kept, from a switch whose keeper has died: control socket and queues come along.
    KeepTap {
        /// As it was opened.
        spec: TapSpec,
        /// As told then.
        udp_trains: bool,
        /// As last marked.
        binding: Option<u64>,
    },
    /// A socket to be kept, likewise.
    KeepUdp {
        /// Where it is bound.
        address: SocketAddr,
        /// What for.
        purpose: UdpUse,
    },
    /// The switch has asked for all that it needs: what is kept of another configuration may be closed.
    Complete {},
    /// Who is served, and what is kept.
    Status {},
    /// Close everything and go.
    End {},
}

/// What a keeper answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// To `hello`.
    Welcome {
        /// To be spoken from now on.
        version: u16,
        /// Device and inode of the network namespace that the keeper opens sockets in.
        netns: (u64, u64),
    },
    /// To `tap`, with control socket and queues.
    Tap {
        /// The interface's transmit queue length.
        queue_frames: usize,
        /// As in [`crate::port::open::OpenTap`].
        udp_trains: bool,
        /// As in [`crate::port::open::OpenTap`].
        existed: bool,
        /// As last marked by whoever had it before; none: it is new.
        binding: Option<u64>,
    },
    /// To `udp`, with the socket.
    Udp {},
    /// To `status`.
    Status {
        /// The keeper's release.
        build: String,
        /// The process id of the switch that is served.
        switch: Option<u32>,
        /// TAPs kept.
        taps: usize,
        /// Sockets kept.
        sockets: usize,
    },
    /// To all others.
    Done {},
    /// Nothing was done.
    Refused {
        /// For programs.
        reason: Reason,
        /// For people.
        what: String,
        /// For people.
        remedy: String,
    },
}

/// Why a keeper refuses, as far as a program acts by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Another switch is being served.
    Busy,
    /// The address is taken.
    AddressInUse,
    /// All others; the words tell.
    Other,
}

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Shorter than its head, or than its head says.
    #[error("the message is cut short: {have} of {need} bytes")]
    Truncated {
        /// Bytes there.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// Not from a keeper or its switch.
    #[error("the message does not begin like one of a keeper")]
    Magic,
    /// A version that was not agreed on.
    #[error("the message is of version {0}, and this build speaks {oldest} to {newest}", oldest = SPOKEN.oldest, newest = SPOKEN.newest)]
    Version(u16),
    /// Longer than its head says, or than any message is.
    #[error("the message has {0} bytes too many")]
    TooLong(usize),
    /// Another number of descriptors than the head says, or than this message can have.
    #[error("the message came with {have} descriptors instead of {need}")]
    Descriptors {
        /// As they came.
        have: usize,
        /// As they should.
        need: usize,
    },
    /// The body is no JSON, no known message, or one with unknown or missing fields.
    #[error("the message is not understood: {0}")]
    Body(String),
    /// A value that no switch has to ask for.
    #[error("the request is not well-formed: {0}")]
    Value(&'static str),
}

/// The bytes of a message that goes out with `descriptors` descriptors.
///
/// # Errors
/// [`MessageError::TooLong`] or [`MessageError::Descriptors`]: nothing that [`decode`] would refuse leaves.
pub fn encode(message: &impl Serialize, descriptors: usize) -> Result<Vec<u8>, MessageError> {
    let body = serde_json::to_vec(message).map_err(|error| MessageError::Body(error.to_string()))?;
    let too_long = (HEAD + body.len()).saturating_sub(MESSAGE_BYTES);
    if too_long > 0 {
        return Err(MessageError::TooLong(too_long));
    }
    let count = u16::try_from(descriptors).ok().filter(|_| descriptors <= MESSAGE_DESCRIPTORS);
    let count = count.ok_or(MessageError::Descriptors { have: descriptors, need: MESSAGE_DESCRIPTORS })?;
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEAD + body.len());
    bytes.extend(MAGIC);
    bytes.extend(SPOKEN.newest.to_be_bytes());
    bytes.extend(count.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes.extend(body);
    Ok(bytes)
}

/// The message in `bytes`, which came with `descriptors` descriptors.
///
/// # Errors
/// [`MessageError`].
pub fn decode<'a, M: Deserialize<'a>>(bytes: &'a [u8], descriptors: usize) -> Result<M, MessageError> {
    let have = bytes.len();
    let Some((&head, body)) = bytes.split_first_chunk::<HEAD>() else {
        return Err(MessageError::Truncated { have, need: HEAD });
    };
    let [m0, m1, m2, m3, v0, v1, d0, d1, l0, l1, l2, l3] = head;
    if [m0, m1, m2, m3] != MAGIC {
        return Err(MessageError::Magic);
    }
    let version = u16::from_be_bytes([v0, v1]);
    if !(SPOKEN.oldest..=SPOKEN.newest).contains(&version) {
        return Err(MessageError::Version(version));
    }
    let need = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
    if body.len() < need {
        return Err(MessageError::Truncated { have, need: HEAD.saturating_add(need) });
    }
    if body.len() > need || have > MESSAGE_BYTES {
        return Err(MessageError::TooLong(body.len() - need));
    }
    let told = usize::from(u16::from_be_bytes([d0, d1]));
    if told != descriptors || told > MESSAGE_DESCRIPTORS {
        return Err(MessageError::Descriptors { have: descriptors, need: told });
    }
    serde_json::from_slice(body).map_err(|error| MessageError::Body(error.to_string()))
}

impl Ask {
    /// How many descriptors come with it.
    #[must_use]
    pub const fn descriptors(&self) -> usize {
        match self {
            Self::KeepTap { spec, .. } => spec.queues + 1,
            Self::KeepUdp { .. } => 1,
            _ => 0,
        }
    }

    /// Holds what comes from a switch against what any switch can have to ask for.
    ///
    /// # Errors
    /// [`MessageError::Value`] or [`MessageError::Descriptors`].
    pub fn check(&self, descriptors: usize) -> Result<(), MessageError> {
        let netns = match self {
            Self::Tap { spec } | Self::Configure { spec } | Self::KeepTap { spec, .. } => {
                if !(1..=MOST_QUEUES).contains(&spec.queues) {
                    return Err(MessageError::Value("a TAP has 1 to 16 queues"));
                }
                if !spec.kind.is_tap() && (spec.queues > 1 || spec.netns.is_none()) {
                    return Err(MessageError::Value(
                        "an interface of somebody else's has 1 queue and stands in a namespace of its own",
                    ));
                }
                if spec.mac.require_unicast().is_err() {
                    return Err(MessageError::Value("an interface's MAC address is a unicast address"));
                }
                spec.netns.as_deref()
            }
            Self::Mark { tap, .. } | Self::Close { tap } => tap.netns.as_deref(),
            _ => None,
        };
        if netns.is_some_and(|netns| netns.len() > LONGEST_NAMESPACE || !is_namespace(netns)) {
            return Err(MessageError::Value("a namespace is a name under /run/netns or an absolute path"));
        }
        if self.descriptors() == descriptors {
            Ok(())
        } else {
            Err(MessageError::Descriptors { have: descriptors, need: self.descriptors() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::PortKind;
    use crate::types::Mtu;

    fn spec() -> TapSpec {
        TapSpec {
            name: "web-1".parse().unwrap(),
            kind: PortKind::Tap,
            netns: Some("guest".into()),
            mac: "02:00:00:00:00:05".parse().unwrap(),
            mtu: Mtu::ETHERNET,
            queues: 2,
            persistent: true,
        }
    }

    /// A switch that was taken over could else listen to its host's own network card.
    #[test]
    fn an_interface_of_the_hosts_own_namespace_is_not_attached_to() {
        let netdev = |netns: Option<&str>, queues| TapSpec {
            kind: PortKind::Netdev,
            netns: netns.map(str::to_owned),
            queues,
            ..spec()
        };
        assert_eq!(Ask::Tap { spec: netdev(Some("vm"), 1) }.check(0), Ok(()));
        for spec in [netdev(None, 1), netdev(Some("vm"), 2)] {
            assert!(matches!(Ask::Tap { spec }.check(0), Err(MessageError::Value(_))));
        }
    }

    fn head(version: u16, descriptors: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&b"SHKP"[..], &version.to_be_bytes(), &descriptors.to_be_bytes(), &length, body].concat()
    }

    /// A keeper of this release meets switches of later ones: these bytes may never change.
    #[test]
    fn golden_bytes() {
        let keep = Ask::KeepTap { spec: spec(), udp_trains: true, binding: Some(7) };
        let golden: [(Vec<u8>, usize, &str); 4] = [
            (
                encode(&Ask::Hello { speaks: SPOKEN, keep_seconds: 300 }, 0).unwrap(),
                0,
                r#"{"ask":"hello","speaks":{"oldest":1,"newest":1},"keep_seconds":300}"#,
            ),
            (
                encode(&keep, 3).unwrap(),
                3,
                r#"{"ask":"keep_tap","spec":{"name":"web-1","netns":"guest","mac":"02:00:00:00:00:05","mtu":1500,"queues":2,"persistent":true},"udp_trains":true,"binding":7}"#,
            ),
            (
                encode(&Ask::Udp { address: "192.0.2.1:4789".parse().unwrap(), purpose: UdpUse::Receive }, 0)
                    .unwrap(),
                0,
                r#"{"ask":"udp","address":"192.0.2.1:4789","purpose":"receive"}"#,
            ),
            (encode(&Ask::End {}, 0).unwrap(), 0, r#"{"ask":"end"}"#),
        ];
        for (bytes, descriptors, body) in golden {
            let expected = head(1, u16::try_from(descriptors).unwrap(), body.as_bytes());
            assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&expected));
            let ask: Ask = decode(&bytes, descriptors).unwrap();
            ask.check(descriptors).unwrap();
            assert_eq!(encode(&ask, descriptors).unwrap(), bytes);
        }
        let answers = [
            (
                Answer::Welcome { version: 1, netns: (4, 26) },
                r#"{"answer":"welcome","version":1,"netns":[4,26]}"#,
            ),
            (
                Answer::Tap { queue_frames: 1000, udp_trains: true, existed: true, binding: None },
                r#"{"answer":"tap","queue_frames":1000,"udp_trains":true,"existed":true,"binding":null}"#,
            ),
            (Answer::Done {}, r#"{"answer":"done"}"#),
        ];
        for (answer, body) in answers {
            let bytes = encode(&answer, 0).unwrap();
            assert_eq!(
                String::from_utf8_lossy(&bytes),
                String::from_utf8_lossy(&head(1, 0, body.as_bytes()))
            );
            assert_eq!(decode::<Answer>(&bytes, 0).unwrap(), answer);
        }
    }

    #[test]
    fn garbage_is_refused_each_kind_with_its_word() {
        let good = encode(&Ask::Status {}, 0).unwrap();
        let refused = |bytes: &[u8], descriptors| decode::<Ask>(bytes, descriptors).unwrap_err();
        for cut in 0..good.len() {
            assert!(matches!(refused(&good[..cut], 0), MessageError::Truncated { .. }), "{cut}");
        }
        assert_eq!(refused(&[&good[..], b"x"].concat(), 0), MessageError::TooLong(1));
        assert_eq!(refused(&[b"GET ", &good[4..]].concat(), 0), MessageError::Magic);
        assert_eq!(refused(&head(2, 0, b"{}"), 0), MessageError::Version(2));
        assert_eq!(refused(&head(0, 0, b"{}"), 0), MessageError::Version(0));
        assert_eq!(refused(&good, 1), MessageError::Descriptors { have: 1, need: 0 });
        assert_eq!(refused(&head(1, 2, b"{}"), 0), MessageError::Descriptors { have: 0, need: 2 });
        for body in
            ["", "{}", "[1]", "{\"ask\":\"format_disk\"}", "{\"ask\":\"end\",\"now\":true}", "\u{fffd}"]
        {
            assert!(matches!(refused(&head(1, 0, body.as_bytes()), 0), MessageError::Body(_)), "{body}");
        }
        let long = Ask::Close { tap: TapName { name: spec().name, netns: Some("x".repeat(MESSAGE_BYTES)) } };
        assert!(matches!(encode(&long, 0), Err(MessageError::TooLong(_))));
        assert!(matches!(
            encode(&Ask::End {}, MESSAGE_DESCRIPTORS + 1),
            Err(MessageError::Descriptors { .. })
        ));
        let many = u16::try_from(MESSAGE_DESCRIPTORS + 1).unwrap();
        assert!(matches!(
            refused(&head(1, many, b"{}"), MESSAGE_DESCRIPTORS + 1),
            MessageError::Descriptors { .. }
        ));
    }

    #[test]
    fn what_no_switch_has_to_ask_for_is_refused() {
        let tap = |change: fn(&mut TapSpec)| {
            let mut spec = spec();
            change(&mut spec);
            Ask::Tap { spec }.check(0)
        };
        assert_eq!(tap(|_| {}), Ok(()));
        assert_eq!(tap(|spec| spec.netns = None), Ok(()));
        assert_eq!(tap(|spec| spec.netns = Some("/proc/1/ns/net".into())), Ok(()));
        for netns in ["", ".", "..", "../etc", "a/b", "a\0b", "/a\0"] {
            let ask = Ask::Close { tap: TapName { name: spec().name, netns: Some(netns.into()) } };
            assert!(ask.check(0).is_err(), "{netns:?}");
        }
        assert!(tap(|spec| spec.netns = Some("x".repeat(4097))).is_err());
        assert!(tap(|spec| spec.queues = 0).is_err());
        assert!(tap(|spec| spec.queues = 17).is_err());
        assert!(tap(|spec| spec.mac = crate::types::MacAddr::BROADCAST).is_err());
        let keep = Ask::KeepTap { spec: spec(), udp_trains: true, binding: None };
        assert_eq!(keep.check(3), Ok(()));
        assert_eq!(keep.check(2), Err(MessageError::Descriptors { have: 2, need: 3 }));
        // Interface names are checked as they are read.
        let body = r#"{"ask":"close","tap":{"name":"../x","netns":null}}"#;
        let error = decode::<Ask>(&head(1, 0, body.as_bytes()), 0).unwrap_err().to_string();
        assert!(error.contains("not a port name"), "{error}");
    }

    #[test]
    fn the_newest_common_version_is_spoken() {
        let versions = |oldest, newest| Versions { oldest, newest };
        assert_eq!(versions(1, 1).common(versions(1, 3)), Some(1));
        assert_eq!(versions(1, 4).common(versions(2, 3)), Some(3));
        assert_eq!(versions(1, 1).common(versions(2, 3)), None);
        assert_eq!(versions(4, 5).common(versions(2, 3)), None);
    }
}
