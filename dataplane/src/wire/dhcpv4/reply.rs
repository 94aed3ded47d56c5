//! Writing a server's reply: fixed fields, options in a fixed order, and what to do when they do not fit.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::super::NoRoom;
use super::{
    FILE, FILE_BYTES, HEADER_BYTES, LEAST_BYTES, MAGIC, Message, MessageType, SNAME, SNAME_BYTES, Value, code,
};
use crate::types::MacAddr;

/// A server's message. What is `None` or empty is not sent.
///
/// Options are written in this order: 53, 54, 51, 58, 59, 1, 3, 6, 15, 26, 28, 121, 245, 12, 80, 56, 61, and 82 last
/// (RFC 3046 §2.2). If they do not fit, they are placed by importance (53, 54, 51, 1, 61, 82, 3, 121, 245, 26, 6, 28,
/// 58, 59, 80, 15, 12, 56), each into the first field with room: options, `file`, `sname` (option 52); what fits
/// nowhere is left out.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// Option 53.
    pub message_type: MessageType,
    /// The request's.
    pub xid: u32,
    /// The request's; a NAK to a relay sets the broadcast flag (RFC 2131 §4.3.2).
    pub flags: u16,
    /// The request's, in an ACK.
    pub ciaddr: Ipv4Addr,
    /// The client's address. Unspecified in a NAK and in the answer to INFORM.
    pub yiaddr: Ipv4Addr,
    /// The next server of a boot; usually unspecified.
    pub siaddr: Ipv4Addr,
    /// The request's.
    pub giaddr: Ipv4Addr,
    /// The request's.
    pub chaddr: MacAddr,
    /// Option 54.
    pub server_id: Ipv4Addr,
    /// Option 51.
    pub lease_seconds: Option<u32>,
    /// Option 58, T1.
    pub renewal_seconds: Option<u32>,
    /// Option 59, T2.
    pub rebinding_seconds: Option<u32>,
    /// Option 1.
    pub subnet_mask: Option<Ipv4Addr>,
    /// Option 3.
    pub routers: &'a [Ipv4Addr],
    /// Option 6.
    pub dns: &'a [Ipv4Addr],
    /// Option 15.
    pub domain: &'a str,
    /// Option 26, in bytes of IP packet.
    pub mtu: Option<u16>,
    /// Option 28.
    pub broadcast: Option<Ipv4Addr>,
    /// Option 121: destination and router. Clients that see it ignore option 3 (RFC 3442), so the default route
    /// belongs here too.
    pub classless_routes: &'a [(Ipv4Net, Ipv4Addr)],
    /// Option 245.
    pub wireserver: Option<Ipv4Addr>,
    /// Option 12.
    pub host_name: &'a str,
    /// Option 80.
    pub rapid_commit: bool,
    /// Option 56: why not.
    pub message: &'a str,
    /// Option 61: the request's, whatever its form (RFC 6842 §3).
    pub client_id: Option<Value<'a>>,
    /// Option 82: the request's, unchanged (RFC 3046 §2.2).
    pub relay_agent: Option<Value<'a>>,
    /// Bytes that the client takes, see [`Message::reply_limit_bytes`].
    pub limit_bytes: usize,
}

impl<'a> Reply<'a> {
    /// A reply to `request` that carries what every reply does: nothing of a lease.
    #[must_use]
    pub fn to(request: &Message<'a>, message_type: MessageType, server_id: Ipv4Addr) -> Self {
        Self {
            message_type,
            xid: request.xid,
            flags: request.flags,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            siaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: request.giaddr,
            chaddr: request.chaddr,
            server_id,
            lease_seconds: None,
            renewal_seconds: None,
            rebinding_seconds: None,
            subnet_mask: None,
            routers: &[],
            dns: &[],
            domain: "",
            mtu: None,
            broadcast: None,
            classless_routes: &[],
            wireserver: None,
            host_name: "",
            rapid_commit: false,
            message: "",
            client_id: request.client_id,
            relay_agent: request.relay_agent,
            limit_bytes: request.reply_limit_bytes(),
        }
    }

    /// Writes the message to the front of `out`, padded to [`LEAST_BYTES`], and gives its length. `out` must not be
    /// the request's buffer: values of it are echoed.
    ///
    /// # Errors
    /// [`NoRoom`] below 300 bytes. A larger buffer that is still too small for all options is no error.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, NoRoom> {
        let have = out.len();
        let limit = self.limit_bytes.clamp(LEAST_BYTES, have.max(LEAST_BYTES));
        let short = NoRoom { need: LEAST_BYTES, have };
        let (header, options) =
            out.get_mut(..limit).and_then(<[u8]>::split_first_chunk_mut::<HEADER_BYTES>).ok_or(short)?;
        self.write_header(header);
        let table = self.table();
        let total: usize = table.iter().map(|(_, content)| content.space()).sum();
        let used = if total < options.len() {
            let mut area = Area { rest: options };
            table.iter().try_for_each(|(code, content)| content.write(*code, &mut area))?;
            area.finish(limit - HEADER_BYTES)?
        } else {
            self.write_overloaded(header, options, &table)?
        };
        let length = (HEADER_BYTES + used).max(LEAST_BYTES);
        out.get_mut(HEADER_BYTES + used..length).unwrap_or_default().fill(code::PAD);
        Ok(length)
    }

    fn write_header(&self, header: &mut [u8; HEADER_BYTES]) {
        header.fill(0);
        let [f0, f1] = self.flags.to_be_bytes();
        let MacAddr([a, b, c, d, e, f]) = self.chaddr;
        let fixed = [
            [2, 1, 6, 0], // a reply, Ethernet, six bytes of address, no hops
            self.xid.to_be_bytes(),
            [0, 0, f0, f1],
            self.ciaddr.octets(),
            self.yiaddr.octets(),
            self.siaddr.octets(),
            self.giaddr.octets(),
            [a, b, c, d],
            [e, f, 0, 0],
        ];
        for (place, bytes) in header.iter_mut().zip(fixed.as_flattened()) {
            *place = *bytes;
        }
        if let Some(cookie) = header.last_chunk_mut() {
            *cookie = MAGIC;
        }
    }

    /// All options in writing order.
    fn table(&self) -> [(u8, Content<'_>); IMPORTANCE.len()] {
        use Content::{Absent, Bytes, Four, Routes};
        let four = |value: Option<[u8; 4]>| value.map_or(Absent, Four);
        let text = |text: &'a str| if text.is_empty() { Absent } else { Bytes(text.as_bytes()) };
        let seconds = |value: Option<u32>| four(value.map(u32::to_be_bytes));
        let address = |value: Option<Ipv4Addr>| four(value.map(|ip| ip.octets()));
        [
            (code::MESSAGE_TYPE, Content::One(self.message_type as u8)),
            (code::SERVER_ID, Four(self.server_id.octets())),
            (code::LEASE_SECONDS, seconds(self.lease_seconds)),
            (code::RENEWAL_SECONDS, seconds(self.renewal_seconds)),
            (code::REBINDING_SECONDS, seconds(self.rebinding_seconds)),
            (code::SUBNET_MASK, address(self.subnet_mask)),
            (code::ROUTERS, Content::addresses(self.routers)),
            (code::DNS, Content::addresses(self.dns)),
            (code::DOMAIN, text(self.domain)),
            (code::MTU, self.mtu.map_or(Absent, |mtu| Content::Two(mtu.to_be_bytes()))),
            (code::BROADCAST, address(self.broadcast)),
            (
                code::CLASSLESS_ROUTES,
                if self.classless_routes.is_empty() { Absent } else { Routes(self.classless_routes) },
            ),
            (code::WIRESERVER, address(self.wireserver)),
            (code::HOST_NAME, text(self.host_name)),
            (code::RAPID_COMMIT, if self.rapid_commit { Bytes(&[]) } else { Absent }),
            (code::MESSAGE, text(self.message)),
            (code::CLIENT_ID, Content::echo(&self.client_id)),
            (code::RELAY_AGENT, Content::echo(&self.relay_agent)),
        ]
    }

    /// The slow way: places options by importance, then writes each field in the usual order.
    fn write_overloaded(
        &self,
        header: &mut [u8; HEADER_BYTES],
        options: &mut [u8],
        table: &[(u8, Content<'_>)],
    ) -> Result<usize, NoRoom> {
        // One byte per field for END, and three for option 52 itself.
        let mut room = [options.len().saturating_sub(4), FILE_BYTES - 1, SNAME_BYTES - 1];
        let mut placed = [None; IMPORTANCE.len()];
        for wanted in IMPORTANCE {
            for (place, (_, content)) in placed.iter_mut().zip(table).filter(|(_, (code, _))| *code == wanted)
            {
                let need = content.space();
                // RFC 3046 §2.2: 82 is the last of the options field, or is not sent.
                let fields = if wanted == code::RELAY_AGENT { 1 } else { room.len() };
                let field = room.iter_mut().take(fields).enumerate().find(|(_, left)| **left >= need);
                if let Some((field, left)) = field {
                    *left -= need;
                    *place = Some(field);
                }
            }
        }
        let write = |field: usize, area: &mut Area<'_>| {
            let mine = table.iter().zip(&placed).filter(|(_, place)| **place == Some(field));
            for ((code, content), _) in mine {
                if *code == code::RELAY_AGENT {
                    continue;
                }
                content.write(*code, area)?;
            }
            Ok::<(), NoRoom>(())
        };
        let uses = |field| {
            let mut used = table.iter().zip(&placed).filter(|((_, content), _)| content.space() > 0);
            used.any(|(_, place)| *place == Some(field))
        };
        let which = u8::from(uses(1)) | u8::from(uses(2)) << 1;
        let mut fields = [(1, FILE, FILE_BYTES), (2, SNAME, SNAME_BYTES)];
        for (field, at, bytes) in fields.iter_mut().filter(|(field, ..)| uses(*field)) {
            let place = header.get_mut(*at..*at + *bytes).unwrap_or_default();
            let mut area = Area { rest: place };
            write(*field, &mut area)?;
            area.finish(*bytes)?;
        }
        let whole = options.len();
        let mut area = Area { rest: options };
        write(0, &mut area)?;
        if which != 0 {
            area.put(&[code::OVERLOAD, 1, which])?;
        }
        for ((code, content), place) in table.iter().zip(&placed) {
            if *code == code::RELAY_AGENT && place.is_some() {
                content.write(*code, &mut area)?;
            }
        }
        area.finish(whole)
    }
}

/// Which options matter most when not all fit: what makes the lease valid, what must be echoed, what makes the guest
/// reachable, then comfort.
const IMPORTANCE: [u8; 18] = [
    code::MESSAGE_TYPE,
    code::SERVER_ID,
    code::LEASE_SECONDS,
    code::SUBNET_MASK,
    code::CLIENT_ID,
    code::RELAY_AGENT,
    code::ROUTERS,
    code::CLASSLESS_ROUTES,
    code::WIRESERVER,
    code::MTU,
    code::DNS,
    code::BROADCAST,
    code::RENEWAL_SECONDS,
    code::REBINDING_SECONDS,
    code::RAPID_COMMIT,
    code::DOMAIN,
    code::HOST_NAME,
    code::MESSAGE,
];

/// An option's value before it is written.
enum Content<'a> {
    Absent,
    One(u8),
    Two([u8; 2]),
    Four([u8; 4]),
    Bytes(&'a [u8]),
    Addresses(&'a [Ipv4Addr]),
    Routes(&'a [(Ipv4Net, Ipv4Addr)]),
    Echo(&'a Value<'a>),
}

impl<'a> Content<'a> {
    const fn addresses(list: &'a [Ipv4Addr]) -> Self {
        if list.is_empty() { Self::Absent } else { Self::Addresses(list) }
    }

    const fn echo(value: &'a Option<Value<'a>>) -> Self {
        match value {
            Some(value) => Self::Echo(value),
            None => Self::Absent,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Absent => 0,
            Self::One(_) => 1,
            Self::Two(_) => 2,
            Self::Four(_) => 4,
            Self::Bytes(bytes) => bytes.len(),
            Self::Addresses(list) => list.len() * 4,
            Self::Routes(list) => list.iter().map(|(to, _)| 5 + significant(to)).sum(),
            Self::Echo(value) => value.len(),
        }
    }

    /// Bytes in the message, codes and lengths included.
    fn space(&self) -> usize {
        match self {
            Self::Absent => 0,
            present => {
                let length = present.len();
                length + 2 * length.div_ceil(LARGEST_PIECE).max(1)
            }
        }
    }

    fn write(&self, code: u8, area: &mut Area<'_>) -> Result<(), NoRoom> {
        if matches!(self, Self::Absent) {
            return Ok(());
        }
        let mut option = OptionWriter::begin(code, self.len(), area)?;
        match self {
            Self::Absent => Ok(()),
            Self::One(byte) => option.put(&[*byte]),
            Self::Two(bytes) => option.put(bytes),
            Self::Four(bytes) => option.put(bytes),
            Self::Bytes(bytes) => option.put(bytes),
            Self::Addresses(list) => list.iter().try_for_each(|ip| option.put(&ip.octets())),
            // RFC 3442: prefix length, the prefix's significant octets, router.
            Self::Routes(list) => list.iter().try_for_each(|(to, router)| {
                let octets = to.network().octets();
                option.put(&[to.prefix_len()])?;
                option.put(octets.get(..significant(to)).unwrap_or_default())?;
                option.put(&router.octets())
            }),
            Self::Echo(value) => value.pieces().try_for_each(|piece| option.put(piece)),
        }
    }
}

const LARGEST_PIECE: usize = 255;

fn significant(prefix: &Ipv4Net) -> usize {
    usize::from(prefix.prefix_len()).div_ceil(8)
}

/// Writes one option, as several of the same code when it is longer than 255 bytes (RFC 3396 §5).
struct OptionWriter<'w, 'b> {
    code: u8,
    area: &'w mut Area<'b>,
    /// Bytes of the value still to come.
    remaining: usize,
    /// Bytes until the piece at hand is full.
    piece: usize,
}

impl<'w, 'b> OptionWriter<'w, 'b> {
    fn begin(code: u8, length: usize, area: &'w mut Area<'b>) -> Result<Self, NoRoom> {
        let mut writer = Self { code, area, remaining: length, piece: 0 };
        writer.open_piece()?;
        Ok(writer)
    }

    fn open_piece(&mut self) -> Result<(), NoRoom> {
        let length = u8::try_from(self.remaining).unwrap_or(u8::MAX);
        self.piece = usize::from(length);
        self.area.put(&[self.code, length])
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<(), NoRoom> {
        loop {
            let (now, later) = bytes.split_at_checked(self.piece).unwrap_or((bytes, &[]));
            self.area.put(now)?;
            self.piece -= now.len();
            self.remaining = self.remaining.saturating_sub(now.len());
            if later.is_empty() {
                return Ok(());
            }
            self.open_piece()?;
            bytes = later;
        }
    }
}

/// A field that options are written into, from its front.
struct Area<'b> {
    rest: &'b mut [u8],
}

impl Area<'_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        let have = self.rest.len();
        match std::mem::take(&mut self.rest).split_at_mut_checked(bytes.len()) {
            Some((place, rest)) => {
                place.copy_from_slice(bytes);
                self.rest = rest;
                Ok(())
            }
            None => Err(NoRoom { need: bytes.len(), have }),
        }
    }

    /// Writes END and gives the bytes used of the field's `whole`.
    fn finish(mut self, whole: usize) -> Result<usize, NoRoom> {
        self.put(&[code::END])?;
        Ok(whole - self.rest.len())
    }
}
