//! What a host's certificate says.

use std::str::FromStr;

use jiff::Timestamp;
use x509_parser::extensions::GeneralName;

use super::IdentityError;
use crate::model::HostId;

const URI: &str = "spiffe://shunt/host/";

/// What is read from a certificate whose signature TLS has verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostCertificate {
    /// Whose it is.
    pub host: HostId,
    /// When it was made, less the allowance for clocks.
    pub not_before: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
}

impl HostCertificate {
    /// True when two thirds of its life are over: time for a new one.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        let life = self.not_after.as_second() - self.not_before.as_second();
        now.as_second() >= self.not_before.as_second() + life / 3 * 2
    }
}

pub(super) fn uri_of(host: HostId) -> String {
    format!("{URI}{host}")
}

/// Reads a host's certificate (DER). It does not verify it: that is the work of the TLS it came by.
///
/// # Errors
/// `Certificate` when it is none, or names no host, or more than one thing.
pub fn host_certificate(der: &[u8]) -> Result<HostCertificate, IdentityError> {
    let refused = |why: String| IdentityError::Certificate { why };
    let (_, parsed) =
        x509_parser::parse_x509_certificate(der).map_err(|error| refused(format!("not X.509: {error}")))?;
    let names = parsed.subject_alternative_name().map_err(|error| refused(error.to_string()))?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let [GeneralName::URI(uri)] = names else {
        return Err(refused("it does not have exactly one name, an URI".to_owned()));
    };
    let id = uri.strip_prefix(URI).ok_or_else(|| refused(format!("its name does not begin with {URI}")))?;
    let host = HostId::from_str(id).map_err(|error| refused(error.to_string()))?;
    // One identity, one spelling.
    if uri_of(host) != *uri {
        return Err(refused("its name is not in the usual form".to_owned()));
    }
    let at = |time: x509_parser::time::ASN1Time| {
        Timestamp::from_second(time.timestamp()).map_err(|error| refused(error.to_string()))
    };
    let validity = parsed.validity();
    Ok(HostCertificate { host, not_before: at(validity.not_before)?, not_after: at(validity.not_after)? })
}
