//! What a guest is told by the metadata service, and what it reports. The agent in `guest/` has the same forms: the files in
//! `control/tests/golden/` are read by the tests of both.

use std::net::IpAddr;

use dataplane::types::CustomerIp;
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::VmId;

/// A machine's configuration, as the metadata service publishes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestConfig {
    /// The machine's, grows with every change of it.
    pub generation: u64,
    /// Which machine; the same before and after a hand-over.
    pub vm_id: VmId,
    /// The tag: true while this is a placeholder's configuration, and only then present.
    #[serde(default, skip_serializing_if = "is_false")]
    pub partial: bool,
    /// The machine's name.
    pub hostname: String,
    /// What its owner wants in it.
    #[serde(flatten)]
    pub settings: Settings,
    /// Its network, for information: the guest gets it by DHCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<GuestNetwork>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// What the owner of a machine wants in it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Settings {
    /// The first user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<GuestUser>,
    /// A name of the time zone database, such as `Europe/Berlin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Files to write.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<GuestFile>,
    /// What to run when all else is done, by its first line's interpreter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestUser {
    /// Login name.
    pub name: String,
    /// Its password as crypt(5) keeps it, such as `$6$…`; absent: none, keys only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<String>,
    /// Public keys, in OpenSSH's form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssh_keys: Vec<String>,
}

/// A file to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestFile {
    /// Absolute path.
    pub path: String,
    /// Permissions, octal.
    #[serde(default = "plain_mode")]
    pub mode: String,
    /// What is in it, base64.
    pub content_base64: String,
}

fn plain_mode() -> String {
    "0644".to_owned()
}

/// The network that a guest is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestNetwork {
    /// Its addresses with their prefixes' lengths.
    pub addresses: Vec<IpNet>,
    /// Default gateways, at most one of each family.
    pub gateways: Vec<CustomerIp>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// DNS domain.
    pub domain: Option<String>,
}

/// How far a guest has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It has booted, seen the tag, and waits: the early success.
    Partial,
    /// It has applied the configuration.
    Ready,
    /// It could not apply it.
    Failed,
    /// It lives.
    Alive,
}

/// What a guest says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestReport {
    /// Of the configuration that it speaks about.
    pub generation: u64,
    /// How far it has come.
    pub phase: Phase,
    /// What went wrong, or a remark; at most 4 KiB are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Its kernel's boot id: another one means that it was rebooted.
    pub boot_id: String,
    /// The name it has now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The addresses it has now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpNet>,
}

/// A report and when it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedReport {
    /// What was said.
    #[serde(flatten)]
    pub report: GuestReport,
    /// When its host received it.
    pub at: Timestamp,
}
