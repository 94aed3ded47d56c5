//! Joining and cutting: the input is a batch of frames of a few flows, most of which continue their flow.
//!
//! What may be joined is asked of an oracle that knows the rules of Linux's GRO, written frame by frame.

use std::collections::{HashMap, VecDeque};

use dataplane::offload::coalesce::{Arrived, Coalescer, MAX_JOINED};
use dataplane::offload::segment::{Cut, MAX_HEADERS};
use dataplane::packet::{Checksum, Offload, Segmentation};
use dataplane::types::PortId;

use crate::dice::Dice;
use crate::sum;

const MOST_FRAMES: usize = 80;
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;

/// Cutting what was joined gives back each flow's frames, all of them, in order, byte by byte; only lawful neighbours
/// are joined, and with one flow all of them; of everything else nothing is changed.
///
/// # Panics
/// When that is not so.
pub fn check(input: &[u8]) {
    let mut dice = Dice::new(input);
    let frames = batch(&mut dice);
    let arrived: Vec<_> = frames.iter().map(Made::arrived).collect();
    let mut coalescer = Coalescer::new();
    // A batch before leaves nothing behind.
    assert_eq!(coalescer.join(&arrived).count(), coalescer.join(&arrived).count());

    let mut waiting: HashMap<Key, VecDeque<&Made>> = HashMap::new();
    for made in &frames {
        waiting.entry(made.key()).or_default().push_back(made);
    }
    let is_one_flow = waiting.len() == 1;
    let mut lengths = vec![];
    for joined in coalescer.join(&arrived) {
        let whole: Vec<u8> = joined.pieces.iter().flat_map(|piece| piece.to_vec()).collect();
        let key = (joined.port, flow_of(&whole));
        let queue = waiting.get_mut(&key).expect("of a flow of the batch");
        let members: Vec<&Made> = queue.drain(..joined.frames).collect();
        lengths.push(joined.frames);
        if let [alone] = members[..] {
            assert_eq!(whole, alone.frame, "a lone frame stays as it is");
            check_alone(alone, joined.offload);
            continue;
        }
        assert!(is_lawful(&members), "joined {members:?}");
        let asked = joined.offload.segmentation.expect("a super-packet says so");
        check_super(&whole, joined.offload);
        let again = cut(&whole, asked);
        assert_eq!(again.len(), members.len());
        for (again, made) in again.iter().zip(&members) {
            assert_eq!(but_meaningless_id(again), but_meaningless_id(&made.with_checksum()), "{made:?}");
        }
    }
    assert!(waiting.values().all(VecDeque::is_empty), "every frame, once");
    if is_one_flow {
        assert_eq!(lengths, greedy(&frames), "neighbours that may be joined are");
    }
}

type Key = (PortId, Vec<u8>);

/// A frame of the batch and what is known of it.
#[derive(Debug)]
struct Made {
    port: PortId,
    udp_trains: bool,
    frame: Vec<u8>,
    offload: Offload,
    /// Where its transport header is, and its payload, and its end.
    at: [usize; 3],
    tcp: bool,
    v6: bool,
    checksum_is_right: bool,
    has_options: bool,
}

impl Made {
    fn arrived(&self) -> Arrived<'_> {
        Arrived { port: self.port, udp_trains: self.udp_trains, frame: &self.frame, offload: self.offload }
    }

    fn key(&self) -> Key {
        (self.port, flow_of(&self.frame))
    }

    /// The frame as it would be if its checksum had been completed on the way.
    fn with_checksum(&self) -> Vec<u8> {
        let mut frame = self.frame.clone();
        fill_checksum(&mut frame, self);
        frame
    }

    fn payload(&self) -> usize {
        self.at[2] - self.at[1]
    }

    fn flags(&self) -> u8 {
        if self.tcp { self.frame[self.at[0] + 13] } else { 0 }
    }

    fn sequence(&self) -> u32 {
        let at = self.at[0] + 4;
        u32::from_be_bytes(self.frame[at..at + 4].try_into().unwrap())
    }

    fn id(&self) -> u16 {
        u16::from_be_bytes([self.frame[18], self.frame[19]])
    }

    /// May be joined with others at all.
    fn is_joinable(&self) -> bool {
        self.checksum_is_right
            && (self.tcp || self.udp_trains)
            && !self.has_options
            && self.payload() > 0
            && self.at[2] == self.frame.len()
            && self.flags() & (SYN | RST | URG | CWR) == 0
    }

    /// Everything that has to be the same in all frames of a super-packet.
    fn common(&self) -> Vec<u8> {
        let mut headers = self.frame[..self.at[1]].to_vec();
        let transport = self.at[0];
        if self.v6 {
            headers[18..20].fill(0);
        } else {
            headers[16..20].fill(0);
            headers[24..26].fill(0);
        }
        if self.tcp {
            headers[transport + 4..transport + 8].fill(0);
            headers[transport + 13] &= !(FIN | PSH);
            headers[transport + 16..transport + 18].fill(0);
        } else {
            headers[transport + 4..transport + 8].fill(0);
        }
        headers
    }
}

/// Addresses, protocol and ports; for what is none of ours, the frame itself.
fn flow_of(frame: &[u8]) -> Vec<u8> {
    match frame[12..14] {
        [8, 0] => {
            let transport = 14 + usize::from(frame[14] & 15) * 4;
            [&frame[23..24], &frame[26..34], &frame[transport..transport + 4]].concat()
        }
        _ => [&frame[20..21], &frame[22..58]].concat(),
    }
}

/// IPv4 identifications of packets that must not be fragmented mean nothing (RFC 6864 section 4.1).
fn but_meaningless_id(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if frame[12..14] == [8, 0] && frame[20] & 0x40 != 0 {
        frame[18..20].fill(0);
        frame[24..26].fill(0);
    }
    frame
}

/// The rules of joining, over the whole group at once.
fn is_lawful(members: &[&Made]) -> bool {
    let first = members[0];
    let (last, others) = members.split_last().unwrap();
    let mut behind = 0_u32;
    let follows = members.iter().zip(0_u16..).all(|(made, nth)| {
        let is_next = !made.tcp || made.sequence() == first.sequence().wrapping_add(behind);
        behind += u32::try_from(made.payload()).unwrap();
        let may_be_fragmented = !made.v6 && made.frame[20] & 0x40 == 0;
        is_next && (!may_be_fragmented || made.id() == first.id().wrapping_add(nth))
    });
    follows
        && members.len() <= MAX_JOINED
        && members.iter().all(|made| made.is_joinable() && made.common() == first.common())
        && others.iter().all(|made| made.payload() == first.payload() && made.flags() & (FIN | PSH) == 0)
        && last.payload() <= first.payload()
        && first.at[1] + behind as usize <= 14 + 65_535
}

/// How many frames each super-packet has if each takes all that it may.
fn greedy(frames: &[Made]) -> Vec<usize> {
    let mut lengths = vec![];
    let mut group: Vec<&Made> = vec![];
    for made in frames {
        group.push(made);
        if group.len() > 1 && !is_lawful(&group) {
            lengths.push(group.len() - 1);
            group = vec![made];
        }
    }
    lengths.extend(Some(group.len()).filter(|length| *length > 0));
    lengths
}

fn check_alone(made: &Made, told: Offload) {
    assert_eq!(told.segmentation, made.offload.segmentation);
    match (made.offload.checksum, told.checksum) {
        (Checksum::Complete, Checksum::Verified) => assert!(made.checksum_is_right),
        (Checksum::Complete, Checksum::Partial { start, offset }) => {
            assert!(made.checksum_is_right);
            assert_eq!(usize::from(start), made.at[0]);
            assert_eq!(offset, if made.tcp { 16 } else { 6 });
        }
        (known, told) => assert_eq!(known, told),
    }
}

/// The partial checksum stands where it belongs, and its field holds the pseudo-header's sum.
fn check_super(whole: &[u8], offload: Offload) {
    let Checksum::Partial { start, offset } = offload.checksum else {
        panic!("a super-packet asks for its checksum")
    };
    let (start, offset) = (usize::from(start), usize::from(offset));
    let (from, to, protocol) = addresses(whole);
    let nothing = vec![0; whole.len() - start];
    let pseudo = sum::with_pseudo(from, to, protocol, &nothing);
    assert_eq!(whole[start + offset..start + offset + 2], pseudo.to_be_bytes());
    if whole[12..14] == [8, 0] {
        assert_eq!(sum::of(&whole[14..34]), sum::VALID);
        assert_eq!(usize::from(u16::from_be_bytes([whole[16], whole[17]])), whole.len() - 14);
    } else {
        assert_eq!(usize::from(u16::from_be_bytes([whole[18], whole[19]])), whole.len() - 54);
    }
}

fn cut(whole: &[u8], asked: Segmentation) -> Vec<Vec<u8>> {
    let plan = Cut::plan(whole, 0, asked).expect("what was joined can be cut");
    let mut headers = [0; MAX_HEADERS];
    let pieces = (0..plan.count()).map(|index| {
        let payload = plan.write(whole, index, &mut headers).expect("a planned piece");
        [&headers[..plan.header_bytes()], &whole[payload]].concat()
    });
    let pieces: Vec<_> = pieces.collect();
    for piece in &pieces {
        let (from, to, protocol) = addresses(piece);
        let transport = if piece[12..14] == [8, 0] { 34 } else { 54 };
        assert_eq!(sum::with_pseudo(from, to, protocol, &piece[transport..]), sum::VALID);
    }
    pieces
}

fn addresses(frame: &[u8]) -> (std::net::IpAddr, std::net::IpAddr, u8) {
    let v4 = |at: usize| <[u8; 4]>::try_from(&frame[at..at + 4]).unwrap().into();
    let v6 = |at: usize| <[u8; 16]>::try_from(&frame[at..at + 16]).unwrap().into();
    if frame[12..14] == [8, 0] { (v4(26), v4(30), frame[23]) } else { (v6(22), v6(38), frame[20]) }
}

/// What a flow's next frame continues.
#[derive(Clone, Copy)]
struct Flow {
    v6: bool,
    tcp: bool,
    may_be_fragmented: bool,
    port: PortId,
    source_port: u8,
    id: u16,
    sequence: u32,
    size: usize,
    options: usize,
}

fn batch(dice: &mut Dice<'_>) -> Vec<Made> {
    let udp_trains = !dice.rarely(8);
    let count = 1 + usize::from(dice.byte()) % 4;
    let mut flows: Vec<Flow> = (0..count).map(|nth| flow(dice, nth)).collect();
    let mut frames = vec![];
    while !dice.is_empty() && frames.len() < MOST_FRAMES {
        let choice = dice.byte();
        let flow = &mut flows[usize::from(choice) % count];
        frames.push(next_of(dice, flow, udp_trains, choice >> 4));
    }
    frames
}

fn flow(dice: &mut Dice<'_>, nth: usize) -> Flow {
    let kind = dice.byte();
    Flow {
        v6: kind & 1 != 0,
        tcp: kind & 2 == 0,
        may_be_fragmented: kind & 4 != 0,
        port: PortId(u32::from(kind >> 7)),
        // Sometimes two flows are one.
        source_port: if kind & 0x18 == 0x18 { 0 } else { u8::try_from(nth).unwrap() },
        id: dice.word(),
        sequence: u32::from_be_bytes(dice.array()),
        size: dice.pick(&[100, 1, 2, 1000, 1400, 8000, 30_000]),
        options: usize::from(kind >> 5 & 3) * 4,
    }
}

/// The flow's next frame; `whim` 0 to 5 is the plain one.
fn next_of(dice: &mut Dice<'_>, flow: &mut Flow, udp_trains: bool, whim: u8) -> Made {
    let (mut flags, mut size, mut tos, mut ttl, mut window) = (ACK, flow.size, 0, 64, 500_u16);
    let (mut is_right, mut ip_options, mut padding) = (true, 0, 0);
    let mut known = Checksum::Complete;
    match whim {
        6 => flags = dice.pick(&[ACK | PSH, ACK | FIN, ACK | ECE, ACK | CWR, SYN, ACK | RST, ACK | URG]),
        7 => size = usize::from(dice.word()) % (flow.size + 2),
        8 => match dice.byte() % 4 {
            0 => tos = 3,
            1 => ttl = 63,
            2 => window = 501,
            _ => padding = 1 + usize::from(dice.byte() % 20),
        },
        9 => flow.id = dice.word(),
        10 => flow.sequence = flow.sequence.wrapping_add(u32::from(dice.byte())),
        11 => is_right = false,
        12 => known = Checksum::Verified,
        13 => ip_options = if flow.v6 { 8 } else { 4 },
        14 => flow.size = dice.pick(&[100, 1, 1400, 30_000]),
        _ => {}
    }
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let transport_bytes = if flow.tcp { 20 + flow.options } else { 8 };
    let protocol = if flow.tcp { 6 } else { 17 };
    let total = u16::try_from(ip_options + transport_bytes + size).unwrap();
    if flow.v6 {
        let next = if ip_options > 0 { 60 } else { protocol };
        frame.extend([0x86, 0xdd, 0x60 | tos >> 4, tos << 4, 0, 9]);
        frame.extend(total.to_be_bytes());
        frame.extend([next, ttl]);
        frame.extend([[0xfd; 16], [0xfe; 16]].concat());
        if ip_options > 0 {
            frame.extend([protocol, 0, 1, 4, 0, 0, 0, 0]);
        }
    } else {
        let header = [0x45 + u8::try_from(ip_options / 4).unwrap(), tos];
        frame.extend([8, 0]);
        frame.extend(header);
        frame.extend((20 + total).to_be_bytes());
        frame.extend(flow.id.to_be_bytes());
        frame.extend([if flow.may_be_fragmented { 0 } else { 0x40 }, 0, ttl, protocol, 0, 0]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend(vec![1; ip_options]);
        let checksum = !sum::of(&frame[14..34 + ip_options]);
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    }
    let transport = frame.len();
    frame.extend([0x10, flow.source_port, 0x20, 0]);
    if flow.tcp {
        frame.extend(flow.sequence.to_be_bytes());
        frame.extend([0, 0, 0, 7, u8::try_from(transport_bytes / 4).unwrap() << 4, flags]);
        frame.extend(window.to_be_bytes());
        frame.extend([0, 0, 0, 0]);
        frame.extend(vec![1; flow.options]);
    } else {
        frame.extend(u16::try_from(8 + size).unwrap().to_be_bytes());
        frame.extend([0, 0]);
    }
    let payload = frame.len();
    // Each byte of the flow's stream is another: what is lost, doubled or misplaced shows.
    let stream = flow.sequence;
    frame.extend(
        (0..).take(size).map(|at: u32| (stream.wrapping_add(at).wrapping_mul(0x9e37_79b9) >> 24) as u8),
    );
    let mut made = Made {
        port: flow.port,
        udp_trains,
        at: [transport, payload, frame.len()],
        frame,
        offload: Offload { checksum: known, segmentation: None },
        tcp: flow.tcp,
        v6: flow.v6,
        checksum_is_right: is_right || known == Checksum::Verified,
        has_options: ip_options > 0,
    };
    let mut frame = std::mem::take(&mut made.frame);
    fill_checksum(&mut frame, &made);
    if !is_right {
        let at = transport + if flow.tcp { 16 } else { 6 };
        frame[at] ^= 0x40;
    }
    if whim == 15 {
        // As a kernel's tunnel on the same machine leaves it: the pseudo-header only.
        let (from, to, _) = addresses(&frame);
        let pseudo = sum::with_pseudo(from, to, protocol, &vec![0; made.at[2] - transport]);
        let at = transport + if flow.tcp { 16 } else { 6 };
        frame[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
    }
    if !is_right {
        // By chance it may be what such a tunnel leaves.
        let (from, to, _) = addresses(&frame);
        let pseudo = sum::with_pseudo(from, to, protocol, &vec![0; made.at[2] - transport]);
        let at = transport + if flow.tcp { 16 } else { 6 };
        made.checksum_is_right |= frame[at..at + 2] == pseudo.to_be_bytes();
    }
    frame.extend(vec![0xee; padding]);
    made.frame = frame;
    flow.id = flow.id.wrapping_add(1);
    flow.sequence = flow.sequence.wrapping_add(u32::try_from(size).unwrap());
    made
}

fn fill_checksum(frame: &mut [u8], made: &Made) {
    let [transport, _, end] = made.at;
    let at = transport + if made.tcp { 16 } else { 6 };
    let (from, to, _) = addresses(frame);
    let protocol = if made.tcp { 6 } else { 17 };
    frame[at..at + 2].fill(0);
    let checksum = match !sum::with_pseudo(from, to, protocol, &frame[transport..end]) {
        0 if !made.tcp => 0xffff,
        checksum => checksum,
    };
    frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_train_is_one_super_packet() {
        // One flow of TCP over IPv4, ten frames without a whim.
        let input = [&[0, 0, 0, 0, 7, 0, 0, 0, 1, 0][..], &[0; 10]].concat();
        let frames = batch(&mut Dice::new(&input));
        assert_eq!((frames.len(), greedy(&frames)), (10, vec![10]));
        check(&input);
    }
}
