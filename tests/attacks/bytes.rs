//! Frames byte by byte, written against the RFCs and independent of the switch's own parsers, so that the two cannot be
//! wrong together.

/// Bytes of a [`Mark`].
pub(crate) const MARK_BYTES: usize = 32;
/// What every frame of one attack carries, so that a capture knows it in any wrapping.
pub(crate) type Mark = [u8; MARK_BYTES];

pub(crate) type Mac = [u8; 6];

pub(crate) const ROUTER: Mac = *b"\x0eSHUNT";
pub(crate) const BROADCAST: Mac = [0xff; 6];

/// The sum that IP, UDP, TCP and ICMP are checked by (RFC 1071).
pub(crate) fn ones_complement(pieces: &[&[u8]]) -> u16 {
    let bytes = pieces.concat();
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

pub(crate) fn ethernet(to: Mac, from: Mac, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from[..], &ether_type.to_be_bytes(), payload].concat()
}

/// An IPv4 header to be filled in.
#[derive(Clone)]
pub(crate) struct V4 {
    pub(crate) from: [u8; 4],
    pub(crate) to: [u8; 4],
    pub(crate) protocol: u8,
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
    /// Flags and offset.
    pub(crate) fragment: u16,
    pub(crate) options: Vec<u8>,
}

impl V4 {
    pub(crate) fn new(from: [u8; 4], to: [u8; 4], protocol: u8) -> Self {
        Self { from, to, protocol, ttl: 64, tos: 0, fragment: 0, options: Vec::new() }
    }

    pub(crate) fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let header_bytes = 20 + self.options.len();
        let [l0, l1] = u16::try_from(header_bytes + payload.len()).unwrap().to_be_bytes();
        let [f0, f1] = self.fragment.to_be_bytes();
        let ihl = 0x40 | u8::try_from(header_bytes / 4).unwrap();
        let mut header = vec![ihl, self.tos, l0, l1, 0x12, 0x34, f0, f1, self.ttl, self.protocol, 0, 0];
        header.extend([self.from, self.to].concat());
        header.extend(&self.options);
        let sum = ones_complement(&[&header]).to_be_bytes();
        header.splice(10..12, sum);
        [header, payload.to_vec()].concat()
    }
}

/// Puts a wrong or right checksum into an IPv4 packet whose header was changed.
pub(crate) fn mend(packet: &mut [u8]) {
    let header_bytes = usize::from(packet[0] & 15) * 4;
    packet[10..12].fill(0);
    let sum = ones_complement(&[&packet[..header_bytes]]).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
}

/// UDP without a checksum, which IPv4 allows.
pub(crate) fn udp(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    [&ports.0.to_be_bytes()[..], &ports.1.to_be_bytes(), &length.to_be_bytes(), &[0, 0], payload].concat()
}

/// TCP with a data offset in words and a checksum of zeros.
pub(crate) fn tcp(ports: (u16, u16), flags: u8, words: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    header.extend([0, 0, 0, 1, 0, 0, 0, 0, words << 4, flags, 0x10, 0, 0, 0, 0, 0]);
    [header, payload.to_vec()].concat()
}

/// ICMP with its checksum.
pub(crate) fn icmp(kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let sum = ones_complement(&[&[kind, code, 0, 0], &rest, payload]).to_be_bytes();
    [&[kind, code][..], &sum, &rest, payload].concat()
}

pub(crate) const ARP_REQUEST: u16 = 1;
pub(crate) const ARP_REPLY: u16 = 2;

pub(crate) fn arp(operation: u16, sender: (Mac, [u8; 4]), target: (Mac, [u8; 4]), mark: &Mark) -> Vec<u8> {
    let head = [&[0, 1, 8, 0, 6, 4][..], &operation.to_be_bytes()].concat();
    [&head[..], &sender.0, &sender.1, &target.0, &target.1, mark].concat()
}

/// An IPv6 packet; `payload` begins with whatever `next` names.
pub(crate) fn v6(from: [u8; 16], to: [u8; 16], next: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let [l0, l1] = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[0x60, 0, 0, 0, l0, l1, next, hop_limit][..], &from, &to, payload].concat()
}

/// Any upper-layer message of IPv6 whose checksum stands in bytes 2 and 3 (ICMPv6) or 6 and 7 (UDP).
fn summed(from: [u8; 16], to: [u8; 16], protocol: u8, at: usize, mut message: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let sum = ones_complement(&[&from, &to, &length, &[0, 0, 0, protocol], &message]).to_be_bytes();
    message.splice(at..at + 2, sum);
    message
}

pub(crate) fn icmpv6(from: [u8; 16], to: [u8; 16], kind: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
    summed(from, to, 58, 2, [&[kind, 0, 0, 0], &rest[..], payload].concat())
}

pub(crate) fn udp6(from: [u8; 16], to: [u8; 16], ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    summed(from, to, 17, 6, udp(ports, payload))
}

/// A neighbour discovery option that nobody knows and everybody must skip, with the mark in it.
pub(crate) fn nd_option(mark: &Mark) -> Vec<u8> {
    [&[200, 5][..], mark, &[0; 6]].concat()
}

/// An extension header of eight bytes: "next header" and an option of padding.
pub(crate) fn padding_header(next: u8) -> Vec<u8> {
    vec![next, 0, 1, 4, 0, 0, 0, 0]
}

/// IPv6's fragment header.
pub(crate) fn fragment_header(next: u8, offset: u16, more: bool) -> Vec<u8> {
    let [a, b] = (offset << 3 | u16::from(more)).to_be_bytes();
    vec![next, 0, a, b, 0, 0, 0x12, 0x34]
}

/// A BOOTP message with the given operation, client and options.
pub(crate) fn bootp(operation: u8, client: Mac, options: &[u8], mark: &Mark) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..4].copy_from_slice(&[operation, 1, 6, 0]);
    message[28..34].copy_from_slice(&client);
    // The mark stands where a server's name would.
    message[44..44 + MARK_BYTES].copy_from_slice(mark);
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    [&message[..], options, &[255]].concat()
}

pub(crate) fn vxlan(flags: u8, vni: u32, inner: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = vni.to_be_bytes();
    [&[flags, 0, 0, 0, a, b, c, 0], inner].concat()
}

/// Geneve with its first two bytes, its protocol and its options as they are given.
pub(crate) fn geneve(first: [u8; 2], protocol: u16, vni: u32, options: &[u8], inner: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = vni.to_be_bytes();
    [&first[..], &protocol.to_be_bytes(), &[a, b, c, 0], options, inner].concat()
}
