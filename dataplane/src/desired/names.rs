//! Names that reach a kernel or a guest: checked once, trusted afterwards.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not usable as an interface's name.
    #[error(
        "`{0}` is not a port name: expected 1 to 15 letters, digits, `-`, `_` or `.`, beginning with a letter or digit"
    )]
    Port(String),
    /// Not a DNS name.
    #[error(
        "`{0}` is not a domain name: expected labels of 1 to 63 letters, digits and `-`, joined by dots, at most 253 in all"
    )]
    Domain(String),
    /// Not a label.
    #[error("`{0}` is not a label: expected 1 to 64 printable ASCII characters without space")]
    Label(String),
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $error:path, $check:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Box<str>);

        impl $type {
            /// The name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                if $check(text) { Ok(Self(text.into())) } else { Err($error(text.into())) }
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0.into()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name! {
    /// A port's name, which is also its interface's name: at most 15 bytes (`IFNAMSIZ` − 1).
    PortName, NameError::Port, is_port_name
}

name! {
    /// A DNS name of one or more labels, without the root's dot.
    DomainName, NameError::Domain, is_domain_name
}

name! {
    /// What the owner of a port calls its present role: opaque to the switch, which tells it to the metadata service.
    Label, NameError::Label, is_label
}

fn is_label(text: &str) -> bool {
    matches!(text.len(), 1..=64) && text.bytes().all(|b| b.is_ascii_graphic())
}

fn is_port_name(text: &str) -> bool {
    matches!(text.len(), 1..=15)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn is_domain_name(text: &str) -> bool {
    matches!(text.len(), 1..=253)
        && text.split('.').all(|label| {
            matches!(label.len(), 1..=63)
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_names_are_interface_names() {
        for right in ["web-1", "a", "0", "fifteen-bytes-x"] {
            assert!(right.parse::<PortName>().is_ok(), "{right}");
        }
        for wrong in ["", ".", "..", "-a", "sixteen-bytes-xx", "a/b", "a b", "ä"] {
            assert!(wrong.parse::<PortName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn labels_are_printable_and_short() {
        let longest = "x".repeat(64);
        for right in ["7", "!~", "{\"a\":1}", longest.as_str()] {
            assert!(right.parse::<Label>().is_ok(), "{right}");
        }
        let long = "x".repeat(65);
        for wrong in ["", " ", "a b", "a\n", "a\u{7f}", "ä", long.as_str()] {
            assert!(wrong.parse::<Label>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn domain_names_have_proper_labels() {
        for right in ["red.example", "a", "x1-y.z"] {
            assert!(right.parse::<DomainName>().is_ok(), "{right}");
        }
        let long = "a".repeat(64);
        for wrong in ["", ".", "a.", "-a", "a-", "a..b", "a_b", long.as_str()] {
            assert!(wrong.parse::<DomainName>().is_err(), "{wrong}");
        }
    }
}
