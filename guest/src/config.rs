//! What the metadata service says and what is reported back: the two JSON documents, their limits and checks.
//!
//! Fields that are not known are passed over, so that an old agent understands a newer host. Never here: what is done
//! with them.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The longest configuration document, in bytes.
pub const CONFIG_BYTES: u64 = 8 << 20;
/// How many files a configuration may carry.
pub const FILES: usize = 256;
/// The longest file, in bytes after decoding.
pub const FILE_BYTES: usize = 1 << 20;
/// The longest script, in bytes.
pub const SCRIPT_BYTES: usize = 256 << 10;
/// How many ssh keys a user may have, and the longest of them in bytes.
pub const SSH_KEYS: usize = 64;
/// The longest ssh key line, in bytes.
pub const SSH_KEY_BYTES: usize = 16 << 10;
/// The longest detail of a report, in bytes.
pub const DETAIL_BYTES: usize = 4 << 10;

/// The configuration of a guest, as `GET /shunt/v1/config` gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestConfig {
    /// Grows with each change of this VM.
    pub generation: u64,
    /// The VM that this is meant for; another one's traces on a disk that was copied are not believed.
    pub vm_id: String,
    /// The tag: this is the placeholder's configuration, nobody owns the VM yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// Machine name.
    pub hostname: String,
    /// The user to be made, or whose password and keys are to be set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserConfig>,
    /// Name of a zone such as `Europe/Berlin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Files to be written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileConfig>,
    /// Run once per generation, after everything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// What the network will be; the lease brings the same, so this is for information.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkInfo>,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserConfig {
    /// Login name.
    pub name: String,
    /// Hashed password as `crypt(5)` writes it (`$6$…`, `$5$…`, `$y$…`); plain text is refused. Without one
    /// a new user has keys only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<String>,
    /// Lines for `authorized_keys`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssh_keys: Vec<String>,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileConfig {
    /// Absolute path without `..`.
    pub path: String,
    /// Octal digits: `0644`.
    #[serde(default = "default_mode")]
    pub mode: String,
    /// Content, base64 with padding.
    pub content_base64: String,
}

fn default_mode() -> String {
    "0644".to_owned()
}

/// The network that the lease will bring.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInfo {
    /// Addresses with prefix length.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Routers.
    #[serde(default)]
    pub gateways: Vec<String>,
    /// Name servers.
    #[serde(default)]
    pub dns: Vec<String>,
    /// Search domain.
    #[serde(default)]
    pub domain: Option<String>,
}

/// What a guest tells about itself, as `POST /shunt/v1/report` takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestReport {
    /// The generation that this is about.
    pub generation: u64,
    /// How far it got.
    pub phase: Phase,
    /// What failed, or the script's last words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// One life of the guest: it does not change over a network change.
    pub boot_id: String,
    /// The machine name now in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The guest's addresses with their prefixes' lengths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}

/// How far a guest got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It runs on the placeholder's configuration: the early success.
    Partial,
    /// The configuration is applied.
    Ready,
    /// It could not be applied; the detail says why.
    Failed,
    /// It lives.
    Alive,
}

/// Why a configuration is refused.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the configuration's `{field}` {problem}")]
pub struct ConfigError {
    /// Path of the field within the document.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

fn wrong(field: impl Into<String>, problem: impl Into<String>) -> ConfigError {
    ConfigError { field: field.into(), problem: problem.into() }
}

impl GuestConfig {
    /// Checks everything that can be checked without looking at the system.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        check_hostname(&self.hostname)?;
        if let Some(user) = &self.user {
            user.check()?;
        }
        if let Some(zone) = &self.time_zone {
            check_time_zone(zone)?;
        }
        if self.files.len() > FILES {
            return Err(wrong("files", format!("has {} entries; {FILES} are the most", self.files.len())));
        }
        for (index, file) in self.files.iter().enumerate() {
            file.check(index)?;
        }
        match &self.script {
            Some(script) if script.len() > SCRIPT_BYTES => {
                Err(wrong("script", format!("is {} bytes long; {SCRIPT_BYTES} are the most", script.len())))
            }
            _ => Ok(()),
        }
    }
}

fn check_hostname(name: &str) -> Result<(), ConfigError> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    // 64 is the kernel's limit (sethostname(2)).
    if name.len() <= 64 && name.split('.').all(label) {
        return Ok(());
    }
    Err(wrong("hostname", "is no host name: labels of letters, digits and hyphens, 64 characters in all"))
}

fn check_time_zone(zone: &str) -> Result<(), ConfigError> {
    let part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+-".contains(&byte))
    };
    if zone.len() <= 64 && zone.split('/').all(part) {
        return Ok(());
    }
    Err(wrong("time_zone", "is no name of a time zone such as Europe/Berlin"))
}

impl UserConfig {
    fn check(&self) -> Result<(), ConfigError> {
        let mut bytes = self.name.bytes();
        let first = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let rest =
            bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte));
        if !(first && rest && self.name.len() <= 32) {
            return Err(wrong("user.name", "is no login name: [a-z_][a-z0-9_-]*, 32 characters at most"));
        }
        if let Some(password) = &self.password_hash {
            let hashed = password.starts_with('$') && password.matches('$').count() >= 3;
            let plain = password.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
            if !(hashed && plain && password.len() <= 256) {
                return Err(wrong(
                    "user.password_hash",
                    "is not hashed; crypt(5) strings such as $6$… are taken",
                ));
            }
        }
        if self.ssh_keys.len() > SSH_KEYS {
            let problem = format!("has {} entries; {SSH_KEYS} are the most", self.ssh_keys.len());
            return Err(wrong("user.ssh_keys", problem));
        }
        for (index, key) in self.ssh_keys.iter().enumerate() {
            if key.trim().is_empty() || key.len() > SSH_KEY_BYTES || key.bytes().any(|b| b.is_ascii_control())
            {
                return Err(wrong(format!("user.ssh_keys[{index}]"), "is not one line of at most 16 KiB"));
            }
        }
        Ok(())
    }
}

impl FileConfig {
    fn check(&self, index: usize) -> Result<(), ConfigError> {
        let named = |field: &str| format!("files[{index}].{field}");
        let path = &self.path;
        let parts = path.strip_prefix('/').filter(|rest| !rest.is_empty() && !rest.ends_with('/'));
        let sound = parts.is_some_and(|rest| rest.split('/').all(|part| part != ".." && part != "."));
        if !sound || path.len() > 4095 || path.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(wrong(named("path"), "is not an absolute path of a file without `.` and `..`"));
        }
        self.permissions().ok_or_else(|| wrong(named("mode"), "is not an octal mode such as 0644"))?;
        // Four characters carry three bytes.
        if self.content_base64.len() / 4 * 3 > FILE_BYTES {
            return Err(wrong(named("content_base64"), format!("is more than {FILE_BYTES} bytes")));
        }
        self.content().ok_or_else(|| wrong(named("content_base64"), "is not base64 with padding")).map(drop)
    }

    /// The permission bits; `None` when they cannot be read.
    #[must_use]
    pub fn permissions(&self) -> Option<u32> {
        let digits =
            (3..=4).contains(&self.mode.len()) && self.mode.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| u32::from_str_radix(&self.mode, 8).ok()).flatten()
    }

    /// The content; `None` when it cannot be decoded.
    #[must_use]
    pub fn content(&self) -> Option<Vec<u8>> {
        use base64::{Engine, engine::general_purpose::STANDARD};
        STANDARD.decode(&self.content_base64).ok()
    }
}

impl GuestReport {
    /// The same with a detail that is short enough to be taken.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        if let Some(detail) = &mut self.detail {
            let mut end = detail.len().min(DETAIL_BYTES);
            while !detail.is_char_boundary(end) {
                end -= 1;
            }
            detail.truncate(end);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> GuestConfig {
        serde_json::from_str(include_str!("../../control/tests/golden/guest_config_full.json")).unwrap()
    }

    #[test]
    fn examples_survive_a_round_trip() {
        for text in [
            include_str!("../../control/tests/golden/guest_config_full.json"),
            include_str!("../../control/tests/golden/guest_config_partial.json"),
        ] {
            let parsed: GuestConfig = serde_json::from_str(text).unwrap();
            parsed.check().unwrap();
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_value(parsed).unwrap(), value);
        }
        for text in [
            include_str!("../../control/tests/golden/guest_report_ready.json"),
            include_str!("../../control/tests/golden/guest_report_failed.json"),
        ] {
            let parsed: GuestReport = serde_json::from_str(text).unwrap();
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_value(parsed).unwrap(), value);
        }
    }

    #[test]
    fn fields_of_a_newer_host_are_passed_over() {
        let text = r#"{"generation":1,"vm_id":"v","hostname":"h","colour":"blue"}"#;
        assert!(serde_json::from_str::<GuestConfig>(text).unwrap().check().is_ok());
    }

    #[test]
    fn each_wrong_field_is_named() {
        type Spoil = fn(&mut GuestConfig);
        let cases: &[(&str, Spoil)] = &[
            ("hostname", |c| c.hostname = "a b".into()),
            ("hostname", |c| c.hostname = "-a".into()),
            ("hostname", |c| c.hostname = String::new()),
            ("hostname", |c| c.hostname = "a".repeat(65)),
            ("time_zone", |c| c.time_zone = Some("../../etc/shadow".into())),
            ("time_zone", |c| c.time_zone = Some("/etc/shadow".into())),
            ("user.name", |c| c.user.as_mut().unwrap().name = "root:x".into()),
            ("user.name", |c| c.user.as_mut().unwrap().name = "../x".into()),
            ("user.password_hash", |c| c.user.as_mut().unwrap().password_hash = Some("secret".into())),
            ("user.password_hash", |c| c.user.as_mut().unwrap().password_hash = Some("$6$a$b:0:0".into())),
            ("user.password_hash", |c| {
                c.user.as_mut().unwrap().password_hash = Some("$6$a$b\nroot::".into())
            }),
            ("user.ssh_keys[1]", |c| c.user.as_mut().unwrap().ssh_keys.push("a\nb".into())),
            ("user.ssh_keys", |c| c.user.as_mut().unwrap().ssh_keys = vec!["k".into(); SSH_KEYS + 1]),
            ("files[0].path", |c| c.files[0].path = "etc/motd".into()),
            ("files[0].path", |c| c.files[0].path = "/etc/../motd".into()),
            ("files[0].path", |c| c.files[0].path = "/".into()),
            ("files[0].path", |c| c.files[0].path = "/etc/".into()),
            ("files[0].path", |c| c.files[0].path = "/etc/a\0b".into()),
            ("files[0].mode", |c| c.files[0].mode = "0999".into()),
            ("files[0].mode", |c| c.files[0].mode = "+644".into()),
            ("files[0].content_base64", |c| c.files[0].content_base64 = "%".into()),
            ("files[0].content_base64", |c| c.files[0].content_base64 = "A".repeat(FILE_BYTES * 2)),
            ("files", |c| c.files = vec![c.files[0].clone(); FILES + 1]),
            ("script", |c| c.script = Some("#".repeat(SCRIPT_BYTES + 1))),
        ];
        for (index, (field, spoil)) in cases.iter().enumerate() {
            let mut spoiled = config();
            spoil(&mut spoiled);
            let refused = spoiled.check().unwrap_err();
            assert_eq!(&refused.field, field, "case {index}: {refused}");
        }
    }

    #[test]
    fn a_long_detail_is_cut_between_characters() {
        let text = include_str!("../../control/tests/golden/guest_report_failed.json");
        let mut report: GuestReport = serde_json::from_str(text).unwrap();
        report.detail = Some(format!("x{}", "ß".repeat(DETAIL_BYTES)));
        assert_eq!(report.bounded().detail.unwrap().len(), DETAIL_BYTES - 1);
    }
}
