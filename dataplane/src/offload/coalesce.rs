//! Joining arrivals of one flow into super-packets, by the rules of Linux's GRO, so that a guest takes a burst in one
//! step.
//!
//! Only what cutting would give back exactly is joined (IPv4 identifications of unfragmentable packets aside, which
//! mean nothing: RFC 6864 §4.1), and only if its L4 checksum is right. Joining ends with the batch: nothing waits for
//! a next one. Frames of one flow keep their order. Headers go to a side buffer, payloads are gathered from where
//! they are. No allocation once the buffers have grown to the largest batch.

use std::io::IoSlice;

use arrayvec::ArrayVec;

use super::headers::{ETHERNET, Headers, TCP, UDP, bytes, put, word};
use crate::packet::{Checksum, Offload, SegmentKind, Segmentation};
use crate::types::PortId;

/// The most frames of one super-packet.
pub const MAX_JOINED: usize = 64;

/// Pieces of one [`Joined`]: headers, then a payload per frame.
pub type Pieces<'a> = ArrayVec<IoSlice<'a>, { MAX_JOINED + 1 }>;

/// Ethernet, IPv4 or IPv6 without options, and the longest TCP header.
const MAX_HEADERS: usize = ETHERNET + 40 + 60;
const SLOTS: usize = 64;
const NONE: usize = usize::MAX;

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
/// SYN, RST, URG and CWR speak of one segment only.
const ALONE: u8 = 0xa6;

/// A frame that was decapsulated, and where it goes.
#[derive(Debug, Clone, Copy)]
pub struct Arrived<'f> {
    /// The port to deliver it to; frames of different ports are never joined.
    pub port: PortId,
    /// Whether that port's device takes UDP super-packets.
    pub udp_trains: bool,
    /// The frame, from its Ethernet header.
    pub frame: &'f [u8],
    /// What is known of it.
    pub offload: Offload,
}

/// One frame to be delivered: an arrival as it came, or several as a super-packet.
#[derive(Debug)]
pub struct Joined<'a> {
    /// The port to deliver it to.
    pub port: PortId,
    /// What to tell the device. A lone frame whose checksum was right is `Verified`.
    pub offload: Offload,
    /// The bytes, in order.
    pub pieces: Pieces<'a>,
    /// How many arrivals it stands for.
    pub frames: usize,
}

/// The memory of [`Coalescer::join`], kept from batch to batch for its buffers only.
pub struct Coalescer {
    groups: Vec<Group>,
    /// By frame: the next frame of its group.
    next: Vec<usize>,
    headers: Vec<[u8; MAX_HEADERS]>,
    /// By flow hash: the group that the flow's next frame might join.
    slots: [usize; SLOTS],
}

#[derive(Debug)]
struct Group {
    first: usize,
    last: usize,
    frames: usize,
    checksum: Checksum,
    /// Set while more may follow, and once something has.
    flow: Option<Flow>,
    /// Which side buffer holds the headers of a super-packet.
    header: usize,
}

/// What the frames of a group have in common, and what the next one must continue.
#[derive(Debug, Clone, Copy)]
struct Flow {
    headers: Headers,
    segment_bytes: usize,
    payload_bytes: usize,
    sequence: u32,
    flags: u8,
    closed: bool,
}

impl Default for Coalescer {
    fn default() -> Self {
        Self::new()
    }
}

impl Coalescer {
    /// With buffers for a batch of 256 frames; a larger batch makes them grow.
    #[must_use]
    pub fn new() -> Self {
        Self {
            groups: Vec::with_capacity(256),
            next: Vec::with_capacity(256),
            headers: Vec::with_capacity(128),
            slots: [NONE; SLOTS],
        }
    }

    /// Joins what can be joined of a batch. The result's order is that of the first frames.
    pub fn join<'a>(&'a mut self, batch: &'a [Arrived<'_>]) -> impl Iterator<Item = Joined<'a>> {
        self.groups.clear();
        self.next.clear();
        self.headers.clear();
        self.slots = [NONE; SLOTS];
        for (index, arrived) in batch.iter().enumerate() {
            self.next.push(NONE);
            self.admit(batch, index, arrived);
        }
        for group in &mut self.groups {
            if group.frames > 1 {
                group.header = self.headers.len();
                let first = batch.get(group.first).map(|arrived| arrived.frame).unwrap_or_default();
                self.headers.push(group.super_headers(first));
            }
        }
        let Self { groups, next, headers, .. } = self;
        groups.iter().filter_map(|group| group.joined(batch, next, headers))
    }

    fn admit(&mut self, batch: &[Arrived<'_>], index: usize, arrived: &Arrived<'_>) {
        let Arrived { port, frame, offload, .. } = *arrived;
        let found = if offload.segmentation.is_none() { Headers::find(frame) } else { None };
        let Some(headers) = found else {
            self.groups.push(Group::new(index, offload.checksum, None));
            return;
        };
        let checksum = verify(frame, &headers, offload.checksum);
        let flow = if checksum == Checksum::Complete || (headers.protocol == UDP && !arrived.udp_trains) {
            None
        } else {
            Flow::of(frame, headers)
        };
        let Some(slot) = self.slots.get_mut(slot(port, frame, &headers)) else { return };
        if let (Some(flow), Some(group)) = (flow, self.groups.get_mut(*slot))
            && let Some(first) = batch.get(group.first).filter(|first| first.port == port)
            && group.append(first.frame, frame, flow)
        {
            let before = std::mem::replace(&mut group.last, index);
            if let Some(next) = self.next.get_mut(before) {
                *next = index;
            }
            return;
        }
        // Also for a frame that cannot be joined: what follows it in its flow must not overtake it.
        *slot = self.groups.len();
        self.groups.push(Group::new(index, checksum, flow));
    }
}

/// What is true of the frame's L4 checksum: `Verified`, `Partial`, or `Complete` if it is wrong, absent or unknown.
fn verify(frame: &[u8], headers: &Headers, known: Checksum) -> Checksum {
    if known != Checksum::Complete {
        return known;
    }
    let field = headers.transport + usize::from(headers.checksum_offset());
    let (Some(transport), Some(found), Ok(length)) = (
        frame.get(headers.transport..headers.end),
        word(frame, field),
        u16::try_from(headers.end - headers.transport),
    ) else {
        return Checksum::Complete;
    };
    // In UDP over IPv4 zero means that there is none.
    if found == 0 && headers.protocol == UDP {
        return Checksum::Complete;
    }
    let pseudo = headers.pseudo(frame, length);
    if pseudo.add_bytes(transport).is_valid() {
        return Checksum::Verified;
    }
    // A kernel's tunnel on the same machine leaves inner checksums to a device that never comes (veth).
    match u16::try_from(headers.transport) {
        Ok(start) if found == pseudo.fold() => Checksum::Partial { start, offset: headers.checksum_offset() },
        _ => Checksum::Complete,
    }
}

/// Where the flow's open group is remembered. A collision costs a join, nothing else.
fn slot(port: PortId, frame: &[u8], headers: &Headers) -> usize {
    let half = |at| bytes(frame, at).map_or(0, u64::from_ne_bytes);
    let addresses = if headers.v6 { half(30) ^ half(46) } else { half(26) };
    let ports = bytes(frame, headers.transport).map_or(0, u32::from_ne_bytes);
    let mixed = (addresses ^ u64::from(ports).rotate_left(32) ^ u64::from(port.0))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from(mixed >> 58).unwrap_or_default()
}

impl Flow {
    /// Of a frame that others might join; `None` if it must travel alone.
    fn of(frame: &[u8], headers: Headers) -> Option<Self> {
        let options =
            if headers.v6 { headers.transport != ETHERNET + 40 } else { headers.transport != ETHERNET + 20 };
        let payload_bytes = headers.end - headers.payload;
        if options || payload_bytes == 0 || headers.end != frame.len() {
            return None;
        }
        let (sequence, flags) = if headers.protocol == TCP {
            let flags = *frame.get(headers.transport + 13)?;
            (u32::from_be_bytes(bytes(frame, headers.transport + 4)?), flags)
        } else {
            let length = usize::from(word(frame, headers.transport + 4)?);
            if length != headers.end - headers.transport {
                return None;
            }
            (0, 0)
        };
        let closed = flags & (FIN | PSH) != 0;
        (flags & ALONE == 0).then_some(Self {
            headers,
            segment_bytes: payload_bytes,
            payload_bytes,
            sequence,
            flags,
            closed,
        })
    }
}

impl Group {
    const fn new(first: usize, checksum: Checksum, flow: Option<Flow>) -> Self {
        Self { first, last: first, frames: 1, checksum, flow, header: NONE }
    }

    /// Takes `frame` if it continues the group; false leaves the group as it was.
    fn append(&mut self, first: &[u8], frame: &[u8], next: Flow) -> bool {
        let frames = self.frames;
        let Some(flow) = &mut self.flow else { return false };
        let behind = u32::try_from(flow.payload_bytes).unwrap_or(u32::MAX);
        let fits = !flow.closed
            && frames < MAX_JOINED
            && next.payload_bytes <= flow.segment_bytes
            && flow.headers.payload + flow.payload_bytes + next.payload_bytes
                <= ETHERNET + usize::from(u16::MAX);
        let continues = fits
            && same_headers(first, &flow.headers, frame, &next.headers, frames)
            && (flow.headers.protocol == UDP || next.sequence == flow.sequence.wrapping_add(behind));
        if continues {
            flow.closed = next.closed || next.payload_bytes < flow.segment_bytes;
            flow.flags |= next.flags;
            flow.payload_bytes += next.payload_bytes;
            self.frames += 1;
        }
        continues
    }

    /// The first frame's headers, made those of the whole: length, flags, and the partial checksum's pseudo-header.
    fn super_headers(&self, first: &[u8]) -> [u8; MAX_HEADERS] {
        let mut header = [0; MAX_HEADERS];
        let Some(Flow { headers, payload_bytes, flags, .. }) = self.flow else { return header };
        for (to, from) in header.iter_mut().zip(first.iter().take(headers.payload)) {
            *to = *from;
        }
        let end = headers.payload + payload_bytes;
        let length = u16::try_from(end - headers.transport).unwrap_or(u16::MAX);
        headers.set_ip_length(&mut header, end);
        if headers.protocol == TCP {
            put(&mut header, headers.transport + 13, [flags]);
        } else {
            put(&mut header, headers.transport + 4, length.to_be_bytes());
        }
        let pseudo = headers.pseudo(&header, length).fold();
        put(&mut header, headers.transport + usize::from(headers.checksum_offset()), pseudo.to_be_bytes());
        header
    }

    fn joined<'a>(
        &self,
        batch: &'a [Arrived<'_>],
        next: &[usize],
        headers: &'a [[u8; MAX_HEADERS]],
    ) -> Option<Joined<'a>> {
        let first = batch.get(self.first)?;
        let mut pieces = Pieces::new();
        let Some(flow) = self.flow.filter(|_| self.frames > 1) else {
            pieces.push(IoSlice::new(first.frame));
            let offload = Offload { checksum: self.checksum, ..first.offload };
            return Some(Joined { port: first.port, offload, pieces, frames: 1 });
        };
        pieces.push(IoSlice::new(headers.get(self.header)?.get(..flow.headers.payload)?));
        let mut index = self.first;
        while let Some(arrived) = batch.get(index) {
            pieces.push(IoSlice::new(arrived.frame.get(flow.headers.payload..)?));
            index = next.get(index).copied().unwrap_or(NONE);
        }
        let kind = match (flow.headers.protocol, flow.headers.v6) {
            (UDP, _) => SegmentKind::Udp,
            (_, false) => SegmentKind::TcpV4,
            (_, true) => SegmentKind::TcpV6,
        };
        let offload = Offload {
            checksum: Checksum::Partial {
                start: u16::try_from(flow.headers.transport).ok()?,
                offset: flow.headers.checksum_offset(),
            },
            segmentation: Some(Segmentation {
                kind,
                segment_bytes: u16::try_from(flow.segment_bytes).ok()?,
                header_bytes: u16::try_from(flow.headers.payload).ok()?,
            }),
        };
        Some(Joined { port: first.port, offload, pieces, frames: self.frames })
    }
}

/// True when the headers differ only where cutting makes them differ. `nth`: how many frames stand before `b`.
fn same_headers(a: &[u8], of_a: &Headers, b: &[u8], of_b: &Headers, nth: usize) -> bool {
    let shape = |headers: &Headers| (headers.v6, headers.protocol, headers.transport, headers.payload);
    let same = |from: usize, to: usize| a.get(from..to).is_some() && a.get(from..to) == b.get(from..to);
    let ip = if of_a.v6 {
        // Version, class and flow label; next header, hop limit and addresses.
        same(ETHERNET, ETHERNET + 4) && same(ETHERNET + 6, ETHERNET + 40)
    } else {
        // Version and class; flags, time to live and protocol; addresses.
        same(ETHERNET, ETHERNET + 2)
            && same(ETHERNET + 6, ETHERNET + 10)
            && same(ETHERNET + 12, ETHERNET + 20)
            && identification_continues(a, b, nth)
    };
    let at = of_a.transport;
    shape(of_a) == shape(of_b)
        && same(0, ETHERNET)
        && ip
        && same(at, at + 4)
        && (of_a.protocol == UDP || {
            // Acknowledgement, header length; flags but FIN and PSH; window; urgent pointer and options.
            let flags = |frame: &[u8]| frame.get(at + 13).map(|flags| flags & !(FIN | PSH));
            same(at + 8, at + 13)
                && flags(a) == flags(b)
                && same(at + 14, at + 16)
                && same(at + 18, of_a.payload)
        })
}

/// IPv4 identifications count up, or mean nothing because the packets cannot be fragmented.
fn identification_continues(a: &[u8], b: &[u8], nth: usize) -> bool {
    let unfragmentable = a.get(ETHERNET + 6).is_some_and(|flags| flags & 0x40 != 0);
    let id = |frame| word(frame, ETHERNET + 4);
    let steps = u16::try_from(nth).unwrap_or_default();
    unfragmentable || id(b) == id(a).map(|id| id.wrapping_add(steps))
}
