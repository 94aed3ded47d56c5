//! The Internet checksum by the book (RFC 1071 section 4.1), word by word: slow, obvious, and not the code under test.

use std::net::IpAddr;

/// The folded one's-complement sum of all words, an odd last byte being a word's high half.
pub(crate) fn of(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

/// The pseudo-header in front of a transport's `message` (RFC 9293 section 3.1, RFC 8200 section 8.1), and the message.
pub(crate) fn with_pseudo(source: IpAddr, destination: IpAddr, protocol: u8, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let mut all = Vec::with_capacity(40 + message.len());
    for ip in [source, destination] {
        match ip {
            IpAddr::V4(ip) => all.extend(ip.octets()),
            IpAddr::V6(ip) => all.extend(ip.octets()),
        }
    }
    all.extend(length);
    all.extend([0, 0, 0, protocol]);
    all.extend(message);
    of(&all)
}

/// What the sum over bytes that hold their own right checksum is.
pub(crate) const VALID: u16 = 0xffff;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_1071_example() {
        assert_eq!(of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
        assert_eq!(of(&[0xff]), 0xff00);
        assert_eq!(of(&[]), 0);
    }
}
