//! Which programs the laboratory needs, and the Debian package that holds each.

use super::LabError;
use std::{env, path::Path};

/// A program and its package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Name in `PATH`.
    pub program: &'static str,
    /// Debian package.
    pub package: &'static str,
}

impl Tool {
    /// `ip`
    pub const IP: Self = Self { program: "ip", package: "iproute2" };
    /// `ping`
    pub const PING: Self = Self { program: "ping", package: "iputils-ping" };
    /// `tcpdump`
    pub const TCPDUMP: Self = Self { program: "tcpdump", package: "tcpdump" };
    /// `tshark`
    pub const TSHARK: Self = Self { program: "tshark", package: "tshark" };
    /// `iperf3`
    pub const IPERF3: Self = Self { program: "iperf3", package: "iperf3" };
    /// `ethtool`
    pub const ETHTOOL: Self = Self { program: "ethtool", package: "ethtool" };
    /// `bridge`, of iproute2
    pub const BRIDGE: Self = Self { program: "bridge", package: "iproute2" };
    /// `unshare`
    pub const UNSHARE: Self = Self { program: "unshare", package: "util-linux" };
    /// `nsenter`
    pub const NSENTER: Self = Self { program: "nsenter", package: "util-linux" };
    /// `setpriv`
    pub const SETPRIV: Self = Self { program: "setpriv", package: "util-linux" };

    /// Is it in `PATH`, or in one of the `sbin` directories that a user's `PATH` may lack?
    #[must_use]
    pub fn is_installed(self) -> bool {
        let path = env::var_os("PATH").unwrap_or_default();
        let usual = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(Into::into);
        env::split_paths(&path).chain(usual).any(|dir| dir.join(self.program).is_file())
    }
}

/// Checks that each program is there and that TAP devices can be made.
///
/// # Errors
/// `MissingTool` for the first that is not installed; `NoTun` without access to `/dev/net/tun`.
pub fn require(tools: &[Tool]) -> Result<(), LabError> {
    let always = [Tool::UNSHARE, Tool::NSENTER, Tool::SETPRIV, Tool::IP];
    for tool in always.iter().chain(tools) {
        if !tool.is_installed() {
            return Err(LabError::MissingTool { program: tool.program, package: tool.package });
        }
    }
    let tun = Path::new("/dev/net/tun");
    match std::fs::OpenOptions::new().read(true).write(true).open(tun) {
        Ok(_) => Ok(()),
        Err(source) => Err(LabError::NoTun { source }),
    }
}
