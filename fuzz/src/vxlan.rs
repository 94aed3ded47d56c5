//! VXLAN (RFC 7348 section 5): the input is a UDP payload.

use dataplane::types::Vni;
use dataplane::wire::vxlan;

/// The header is accepted exactly when the RFC's own words say so, header and inner frame add up to the payload, and
/// what is read can be written and read again.
///
/// # Panics
/// When that is not so.
pub fn check(input: &[u8]) {
    let parsed = vxlan::parse(input).ok();
    assert_eq!(parsed.map(|(vni, frame)| (vni.value(), frame)), by_the_rfc(input));
    let Some((vni, frame)) = parsed else { return };
    assert_eq!(frame.len() + vxlan::HEADER_BYTES, input.len());
    let header = vxlan::to_bytes(vni);
    assert_eq!(
        [header[0], header[1], header[2], header[3], header[7]],
        [8, 0, 0, 0, 0],
        "reserved bits are zero"
    );
    assert_eq!(vxlan::parse(&[&header, frame].concat()), Ok((vni, frame)));
}

/// "The I flag MUST be set to 1 for a valid VNI"; everything else is reserved, and ignored. VNI 0 is nobody's here.
fn by_the_rfc(payload: &[u8]) -> Option<(u32, &[u8])> {
    let header = payload.get(..8)?;
    let vni = u32::from_be_bytes([0, header[4], header[5], header[6]]);
    (header[0] >> 3 & 1 == 1 && (1..=Vni::MAX).contains(&vni)).then_some((vni, &payload[8..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rfc_as_we_read_it() {
        assert_eq!(by_the_rfc(&[8, 9, 9, 9, 0, 1, 2, 9, 5]), Some((0x102, &[5][..])));
        assert_eq!(by_the_rfc(&[0xf7, 0, 0, 0, 0, 1, 2, 0]), None);
        assert_eq!(by_the_rfc(&[8, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(by_the_rfc(&[8, 0, 0, 0, 0, 0, 1]), None);
    }
}
