//! DHCP for IPv4 (RFC 2131, RFC 2132): requests are read without allocation, replies are written in one pass.
//!
//! Our own codec, because clients send what libraries refuse or lose: client identifiers of any form (RFC 4361 DUIDs,
//! plain text), options split over several (RFC 3396), options in the `file` and `sname` fields (option 52), no END.
//! Never here: which address to give; that is the lease's.

mod options;
mod reply;

use std::net::Ipv4Addr;

pub use options::{Options, Value};
pub use reply::Reply;

use super::{Layer, ParseError, take};
use crate::types::MacAddr;

/// Where servers listen.
pub const SERVER_PORT: u16 = 67;
/// Where clients listen.
pub const CLIENT_PORT: u16 = 68;
/// Bytes up to the options: the fixed fields and the magic cookie.
pub const HEADER_BYTES: usize = 240;
/// The shortest reply that old BOOTP clients and relays accept (RFC 1542 §2.1: 300 bytes of BOOTP message).
pub const LEAST_BYTES: usize = 300;
/// The flag by which a client asks for broadcast replies: it cannot yet receive unicast (RFC 2131 §4.1).
pub const BROADCAST_FLAG: u16 = 0x8000;

const SNAME: usize = 44;
const SNAME_BYTES: usize = 64;
const FILE: usize = 108;
const FILE_BYTES: usize = 128;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// Bytes of IP and UDP header, which option 57 counts: RFC 2131 §2 puts it beside the 576 bytes of an IP datagram.
const DATAGRAM_HEADER_BYTES: u16 = 28;
const LEAST_DATAGRAM_BYTES: u16 = 576;

/// Option codes (RFC 2132 unless said otherwise).
pub mod code {
    /// Filler without length.
    pub const PAD: u8 = 0;
    /// Subnet mask.
    pub const SUBNET_MASK: u8 = 1;
    /// Default gateways.
    pub const ROUTERS: u8 = 3;
    /// Name servers.
    pub const DNS: u8 = 6;
    /// The client's name.
    pub const HOST_NAME: u8 = 12;
    /// DNS domain.
    pub const DOMAIN: u8 = 15;
    /// Interface MTU.
    pub const MTU: u8 = 26;
    /// Broadcast address.
    pub const BROADCAST: u8 = 28;
    /// The address that the client wants.
    pub const REQUESTED_IP: u8 = 50;
    /// Lease time in seconds.
    pub const LEASE_SECONDS: u8 = 51;
    /// Options stand in `file` and `sname` too.
    pub const OVERLOAD: u8 = 52;
    /// Message type.
    pub const MESSAGE_TYPE: u8 = 53;
    /// The server's identifier.
    pub const SERVER_ID: u8 = 54;
    /// The options that the client would like.
    pub const PARAMETER_REQUESTS: u8 = 55;
    /// A text for people.
    pub const MESSAGE: u8 = 56;
    /// The largest message that the client takes.
    pub const MAX_MESSAGE: u8 = 57;
    /// T1 in seconds.
    pub const RENEWAL_SECONDS: u8 = 58;
    /// T2 in seconds.
    pub const REBINDING_SECONDS: u8 = 59;
    /// What kind of client this is.
    pub const VENDOR_CLASS: u8 = 60;
    /// Client identifier.
    pub const CLIENT_ID: u8 = 61;
    /// Two messages instead of four (RFC 4039).
    pub const RAPID_COMMIT: u8 = 80;
    /// What a relay wants back (RFC 3046).
    pub const RELAY_AGENT: u8 = 82;
    /// Routes with prefix lengths (RFC 3442).
    pub const CLASSLESS_ROUTES: u8 = 121;
    /// Private use: the platform's wireserver, one IPv4 address.
    pub const WIRESERVER: u8 = 245;
    /// Nothing follows.
    pub const END: u8 = 255;
}

/// Option 53.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum MessageType {
    /// Client: is there a server?
    Discover = 1,
    /// Server: this is what I have.
    Offer = 2,
    /// Client: I take it, or want it still.
    Request = 3,
    /// Client: somebody else has that address.
    Decline = 4,
    /// Server: it is yours.
    Ack = 5,
    /// Server: it is not, start again.
    Nak = 6,
    /// Client: I need it no more.
    Release = 7,
    /// Client: I have an address, tell me the rest.
    Inform = 8,
}

impl MessageType {
    const fn new(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Discover,
            2 => Self::Offer,
            3 => Self::Request,
            4 => Self::Decline,
            5 => Self::Ack,
            6 => Self::Nak,
            7 => Self::Release,
            8 => Self::Inform,
            _ => return None,
        })
    }
}

/// A DHCP message whose options have all been walked: fixed fields, and the options that a server acts on.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// True for what servers send.
    pub is_reply: bool,
    /// Transaction id.
    pub xid: u32,
    /// Seconds since the client began.
    pub secs: u16,
    /// See [`BROADCAST_FLAG`].
    pub flags: u16,
    /// The address that the client has and answers ARP for.
    pub ciaddr: Ipv4Addr,
    /// "Your" address, in replies.
    pub yiaddr: Ipv4Addr,
    /// The next server, in replies.
    pub siaddr: Ipv4Addr,
    /// The relay.
    pub giaddr: Ipv4Addr,
    /// The client's MAC address, as it says.
    pub chaddr: MacAddr,
    /// Option 53; a BOOTP client has none.
    pub message_type: Option<MessageType>,
    /// Option 50.
    pub requested_ip: Option<Ipv4Addr>,
    /// Option 54.
    pub server_id: Option<Ipv4Addr>,
    /// Option 57, in bytes of IP datagram, as sent.
    pub max_message_bytes: Option<u16>,
    /// Option 80.
    pub rapid_commit: bool,
    /// Option 55.
    pub parameter_requests: Option<Value<'a>>,
    /// Option 60.
    pub vendor_class: Option<Value<'a>>,
    /// Option 61, type byte included.
    pub client_id: Option<Value<'a>>,
    /// Option 82.
    pub relay_agent: Option<Value<'a>>,
    options: Options<'a>,
}

impl<'a> Message<'a> {
    /// Reads a UDP payload.
    ///
    /// # Errors
    /// `Truncated` (header, or an option that overruns its field), `Unsupported` (op, hardware type, message type,
    /// overload), `Violation` without the magic cookie or with a fixed-size option given twice, `BadLength` for a
    /// fixed-size option of another size.
    pub fn parse(message: &'a [u8]) -> Result<Self, ParseError> {
        const LAYER: Layer = Layer::Dhcpv4;
        let unsupported = |field, found| ParseError::Unsupported { layer: LAYER, field, found };
        let (header, options) = message.split_first_chunk::<HEADER_BYTES>().ok_or(ParseError::Truncated {
            layer: LAYER,
            need: HEADER_BYTES,
            have: message.len(),
        })?;
        let [op, htype, hlen, _hops, x0, x1, x2, x3, s0, s1, f0, f1] = *take::<12>(header, 0, LAYER)?;
        let address = |at| take::<4>(header, at, LAYER).map(|octets| Ipv4Addr::from_octets(*octets));
        if *take::<4>(header, 236, LAYER)? != MAGIC {
            return Err(ParseError::Violation { layer: LAYER, rule: "the magic cookie is missing" });
        }
        if !matches!(op, 1 | 2) {
            return Err(unsupported("op", u32::from(op)));
        }
        if (htype, hlen) != (1, 6) {
            return Err(unsupported("hardware type", u32::from(htype)));
        }
        let mut parsed = Self {
            is_reply: op == 2,
            xid: u32::from_be_bytes([x0, x1, x2, x3]),
            secs: u16::from_be_bytes([s0, s1]),
            flags: u16::from_be_bytes([f0, f1]),
            ciaddr: address(12)?,
            yiaddr: address(16)?,
            siaddr: address(20)?,
            giaddr: address(24)?,
            chaddr: MacAddr(*take::<6>(header, 28, LAYER)?),
            message_type: None,
            requested_ip: None,
            server_id: None,
            max_message_bytes: None,
            rapid_commit: false,
            parameter_requests: None,
            vendor_class: None,
            client_id: None,
            relay_agent: None,
            options: Options::new(options, &[], &[]),
        };
        let mut overload = None;
        let mut walk = parsed.options;
        while let Some((code, value)) = walk.step()? {
            if code == code::OVERLOAD {
                once(&mut overload, fixed::<1>(value)?)?;
            }
            parsed.note(code, value, walk)?;
        }
        if let Some([which]) = overload {
            let file = header.get(FILE..FILE + FILE_BYTES).unwrap_or_default();
            let sname = header.get(SNAME..SNAME + SNAME_BYTES).unwrap_or_default();
            let (file, sname): (&[u8], &[u8]) = match which {
                1 => (file, &[]),
                2 => (&[], sname),
                3 => (file, sname),
                other => return Err(unsupported("option overload", u32::from(other))),
            };
            parsed.read_overloaded(options, file, sname)?;
        }
        Ok(parsed)
    }

    /// Starts over with all fields that hold options, `file` before `sname` (RFC 2131 §4.1).
    fn read_overloaded(
        &mut self,
        options: &'a [u8],
        file: &'a [u8],
        sname: &'a [u8],
    ) -> Result<(), ParseError> {
        self.options = Options::new(options, file, sname);
        (self.message_type, self.requested_ip, self.server_id, self.max_message_bytes) =
            (None, None, None, None);
        (self.rapid_commit, self.parameter_requests, self.vendor_class) = (false, None, None);
        (self.client_id, self.relay_agent) = (None, None);
        let mut walk = self.options;
        while let Some((code, value)) = walk.step()? {
            self.note(code, value, walk)?;
        }
        Ok(())
    }

    /// Keeps what a server acts on. `rest` are the options behind this one.
    fn note(&mut self, code: u8, value: &'a [u8], rest: Options<'a>) -> Result<(), ParseError> {
        let first = |slot: &mut Option<Value<'a>>| {
            slot.get_or_insert(Value::new(code, value, rest));
        };
        match code {
            code::MESSAGE_TYPE => {
                let [kind] = fixed(value)?;
                let kind = MessageType::new(kind).ok_or(ParseError::Unsupported {
                    layer: Layer::Dhcpv4,
                    field: "message type",
                    found: u32::from(kind),
                })?;
                once(&mut self.message_type, kind)?;
            }
            code::REQUESTED_IP => once(&mut self.requested_ip, Ipv4Addr::from_octets(fixed(value)?))?,
            code::SERVER_ID => once(&mut self.server_id, Ipv4Addr::from_octets(fixed(value)?))?,
            code::MAX_MESSAGE => once(&mut self.max_message_bytes, u16::from_be_bytes(fixed(value)?))?,
            code::RAPID_COMMIT => self.rapid_commit = true,
            code::PARAMETER_REQUESTS => first(&mut self.parameter_requests),
            code::VENDOR_CLASS => first(&mut self.vendor_class),
            code::CLIENT_ID => first(&mut self.client_id),
            code::RELAY_AGENT => first(&mut self.relay_agent),
            _ => {}
        }
        Ok(())
    }

    /// All options in order, pads left out; a split option comes in pieces.
    #[must_use]
    pub const fn options(&self) -> Options<'a> {
        self.options
    }

    /// One option's value, pieces joined.
    #[must_use]
    pub fn option(&self, code: u8) -> Option<Value<'a>> {
        let mut walk = self.options;
        while let Some((found, value)) = walk.next() {
            if found == code {
                return Some(Value::new(code, value, walk));
            }
        }
        None
    }

    /// Bytes that a reply's DHCP message may have: option 57 less IP and UDP headers, and never less than every client
    /// must take (RFC 2131 §2).
    #[must_use]
    pub fn reply_limit_bytes(&self) -> usize {
        let datagram = self.max_message_bytes.unwrap_or(LEAST_DATAGRAM_BYTES).max(LEAST_DATAGRAM_BYTES);
        usize::from(datagram - DATAGRAM_HEADER_BYTES)
    }
}

/// The bytes of a fixed-size option.
fn fixed<const N: usize>(value: &[u8]) -> Result<[u8; N], ParseError> {
    value.try_into().map_err(|_| ParseError::BadLength {
        layer: Layer::Dhcpv4,
        claimed: value.len(),
        least: N,
        most: N,
    })
}

/// RFC 3396 would join the two into one of a wrong length; to pick either would let two readers disagree.
fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), ParseError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => {
            Err(ParseError::Violation { layer: Layer::Dhcpv4, rule: "a fixed-size option comes twice" })
        }
    }
}

#[cfg(test)]
mod tests;
