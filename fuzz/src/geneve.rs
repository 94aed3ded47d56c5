//! Geneve (RFC 8926 sections 3.4 and 3.5): the input is a UDP payload.

use dataplane::wire::geneve;

/// The header is accepted exactly when the RFC's rules say so, header, options and inner frame add up to the payload,
/// the option walk ends at the options' end, and what is read can be written and read again.
///
/// # Panics
/// When that is not so.
pub fn check(input: &[u8]) {
    let parsed = geneve::parse(input).ok();
    assert_eq!(parsed.map(|(vni, frame)| (vni.value(), frame)), by_the_rfc(input));
    let Some((vni, frame)) = parsed else { return };
    assert_eq!(8 + usize::from(input[0] & 0x3f) * 4 + frame.len(), input.len(), "lengths add up");
    let header = geneve::to_bytes(vni);
    assert_eq!(header[0], 0, "no options are sent, and the version is 0");
    assert_eq!(geneve::parse(&[&header, frame].concat()), Ok((vni, frame)));
}

fn by_the_rfc(payload: &[u8]) -> Option<(u32, &[u8])> {
    let header = payload.get(..8)?;
    let (version, words, control) = (header[0] >> 6, usize::from(header[0] & 0x3f), header[1] >> 7);
    let vni = u32::from_be_bytes([0, header[4], header[5], header[6]]);
    let options = payload[8..].get(..words * 4)?;
    let is_ours = version == 0 && control == 0 && header[2..4] == [0x65, 0x58] && vni != 0;
    (is_ours && options_are_harmless(options)).then_some((vni, &payload[8 + words * 4..]))
}

/// By recursion, four bytes and `length` words at a time: the lengths must end exactly at the area's end, and no option
/// may be critical, for none is known.
fn options_are_harmless(options: &[u8]) -> bool {
    match *options {
        [] => true,
        [_, _, kind, length, ref rest @ ..] => {
            let words = usize::from(length & 0x1f);
            kind >> 7 == 0 && words * 4 <= rest.len() && options_are_harmless(&rest[words * 4..])
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_as_we_read_them() {
        assert!(options_are_harmless(&[]));
        assert!(options_are_harmless(&[1, 2, 5, 1, 9, 9, 9, 9, 1, 2, 5, 0xe0]));
        assert!(!options_are_harmless(&[1, 2, 0x85, 0]));
        assert!(!options_are_harmless(&[1, 2, 5, 1]));
        assert!(!options_are_harmless(&[1, 2, 5]));
    }

    #[test]
    fn the_rfc_as_we_read_it() {
        assert_eq!(by_the_rfc(&[1, 0x40, 0x65, 0x58, 0, 0, 7, 1, 1, 2, 5, 0, 9]), Some((7, &[9][..])));
        for wrong in [
            [0x40, 0, 0x65, 0x58, 0, 0, 7, 0],
            [0, 0x80, 0x65, 0x58, 0, 0, 7, 0],
            [0, 0, 0x08, 0x00, 0, 0, 7, 0],
            [0, 0, 0x65, 0x58, 0, 0, 0, 0],
            [1, 0, 0x65, 0x58, 0, 0, 7, 0],
        ] {
            assert_eq!(by_the_rfc(&wrong), None, "{wrong:?}");
        }
    }
}
