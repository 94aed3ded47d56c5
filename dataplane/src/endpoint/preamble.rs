//! The line in front of a guest's bytes: who they are from, on the switch's word.

use std::net::SocketAddrV4;

use serde::{Deserialize, Serialize};

use crate::desired::{Label, PortName};
use crate::tables::Port;
use crate::types::Vni;

/// One line of JSON, ended by a line feed; everything behind it is the guest's. Fields may be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preamble {
    /// The port that the connection came in by.
    pub port: PortName,
    /// Its label, of the same snapshot as its network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Label>,
    /// The network that it is in.
    pub network: Vni,
    /// The guest's end: one of the port's addresses there.
    pub peer: SocketAddrV4,
    /// What the guest connected to.
    pub address: SocketAddrV4,
}

impl Preamble {
    pub(super) fn of(port: &Port, peer: SocketAddrV4, address: SocketAddrV4) -> Self {
        let (name, label) = (port.config.name.clone(), port.config.label.clone());
        Self { port: name, label, network: port.vni, peer, address }
    }

    /// As it is written, line feed included.
    pub(super) fn line(&self) -> Vec<u8> {
        // Names and numbers: this cannot fail.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_as_documented() {
        let mut preamble = Preamble {
            port: "web-1".parse().unwrap(),
            label: Some("7".parse().unwrap()),
            network: Vni::new(100).unwrap(),
            peer: "10.0.0.5:43211".parse().unwrap(),
            address: "169.254.169.254:80".parse().unwrap(),
        };
        let line = r#"{"port":"web-1","label":"7","network":100,"peer":"10.0.0.5:43211","address":"169.254.169.254:80"}"#;
        assert_eq!(preamble.line(), format!("{line}\n").into_bytes());
        preamble.label = None;
        assert_eq!(preamble.line(), format!("{}\n", line.replace(r#""label":"7","#, "")).into_bytes());
    }
}
