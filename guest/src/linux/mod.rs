//! Linux: files below a root, the kernel's host name, udhcpc's signals.
//!
//! Never here: HTTP, or a decision about when something is done.

mod dhcp;
mod script;
mod tree;
mod user;

pub use dhcp::Renewal;
pub use tree::Tree;

use crate::{
    config::{FileConfig, UserConfig},
    os::{Os, OsError, ScriptEnd},
};
use std::{fs, path::Path, time::Duration};

/// A Linux system whose files are below a root.
#[derive(Debug)]
pub struct Linux {
    tree: Tree,
    /// Is the root this very system's, so that its kernel takes the host name too?
    live: bool,
    renewal: Renewal,
}

impl Linux {
    /// The system below `root`; with `/` it is the running one.
    ///
    /// # Errors
    /// `File` when there is no such directory.
    pub fn new(root: &Path, renewal: Renewal) -> Result<Self, OsError> {
        Ok(Self { tree: Tree::open(root)?, live: root == Path::new("/"), renewal })
    }

    /// Its files.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }
}

impl Os for Linux {
    fn boot_id(&self) -> Result<String, OsError> {
        let path = "/proc/sys/kernel/random/boot_id";
        Ok(fs::read_to_string(path).map_err(OsError::file("read", path))?.trim().to_owned())
    }

    fn hostname(&self) -> Option<String> {
        if self.live {
            return Some(rustix::system::uname().nodename().to_string_lossy().into_owned());
        }
        let name = self.tree.read("/etc/hostname", 256).ok()?;
        Some(String::from_utf8_lossy(&name).trim().to_owned())
    }

    fn set_hostname(&self, name: &str) -> Result<(), OsError> {
        if self.live && self.hostname().as_deref() != Some(name) {
            rustix::system::sethostname(name.as_bytes()).map_err(OsError::call("set the host name"))?;
        }
        self.tree.replace("/etc/hostname", format!("{name}\n").as_bytes(), 0o644)?;
        let hosts = self.tree.read_or_empty("/etc/hosts", 1 << 20)?;
        let hosts = with_own_name(&String::from_utf8_lossy(&hosts), name);
        self.tree.replace("/etc/hosts", hosts.as_bytes(), 0o644)
    }

    fn set_user(&self, user: &UserConfig) -> Result<(), OsError> {
        user::set(&self.tree, user)
    }

    fn set_time_zone(&self, zone: &str) -> Result<(), OsError> {
        let target = format!("/usr/share/zoneinfo/{zone}");
        if !self.tree.is_file(&target) {
            return Err(OsError::Unfit(format!("the system has no time zone {zone} ({target})")));
        }
        self.tree.link("/etc/localtime", &target)?;
        self.tree.replace("/etc/timezone", format!("{zone}\n").as_bytes(), 0o644)
    }

    fn write_file(&self, file: &FileConfig) -> Result<(), OsError> {
        let unfit = || OsError::Unfit(format!("the description of {} was not checked", file.path));
        let (content, mode) = file.content().zip(file.permissions()).ok_or_else(unfit)?;
        self.tree.replace(&file.path, &content, mode)
    }

    fn run_script(&self, script: &str, generation: u64, limit: Duration) -> Result<ScriptEnd, OsError> {
        script::run(&self.tree, script, generation, limit)
    }

    fn release_lease(&self) {
        self.renewal.release();
    }

    fn renew_lease(&self) {
        self.renewal.renew();
    }
}

/// The text of `/etc/hosts` with `127.0.1.1` meaning `name` and nothing else changed.
fn with_own_name(hosts: &str, name: &str) -> String {
    let short = name.split('.').next().unwrap_or(name);
    let own = if short == name { format!("127.0.1.1 {name}") } else { format!("127.0.1.1 {name} {short}") };
    let others = hosts.lines().filter(|line| line.split_whitespace().next() != Some("127.0.1.1"));
    let mut lines: Vec<&str> = others.collect();
    // After the first line, which is localhost's everywhere.
    lines.insert(lines.len().min(1), &own);
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn system() -> (tempfile::TempDir, Linux) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        let linux = Linux::new(dir.path(), Renewal::Nothing).unwrap();
        (dir, linux)
    }

    #[test]
    fn the_host_name_is_written_and_nothing_else_of_hosts_changes() {
        let (dir, linux) = system();
        let hosts = dir.path().join("etc/hosts");
        fs::write(&hosts, "127.0.0.1 localhost\n127.0.1.1 pool-1\n10.0.0.9 db\n").unwrap();
        let before = rustix::system::uname().nodename().to_owned();
        linux.set_hostname("web-1.blue.example").unwrap();
        assert_eq!(
            fs::read_to_string(&hosts).unwrap(),
            "127.0.0.1 localhost\n127.0.1.1 web-1.blue.example web-1\n10.0.0.9 db\n"
        );
        assert_eq!(linux.hostname().unwrap(), "web-1.blue.example");
        assert_eq!(
            rustix::system::uname().nodename(),
            &*before,
            "the machine that runs the test keeps its name"
        );
        linux.set_hostname("a").unwrap();
        assert!(fs::read_to_string(&hosts).unwrap().contains("127.0.1.1 a\n"));
    }

    #[test]
    fn a_time_zone_must_be_known() {
        let (dir, linux) = system();
        assert!(linux.set_time_zone("Europe/Berlin").unwrap_err().to_string().contains("Europe/Berlin"));
        fs::create_dir_all(dir.path().join("usr/share/zoneinfo/Europe")).unwrap();
        fs::write(dir.path().join("usr/share/zoneinfo/Europe/Berlin"), "TZif").unwrap();
        for _ in 0..2 {
            linux.set_time_zone("Europe/Berlin").unwrap();
        }
        let link = fs::read_link(dir.path().join("etc/localtime")).unwrap();
        assert_eq!(link, Path::new("/usr/share/zoneinfo/Europe/Berlin"));
    }

    #[test]
    fn files_stay_below_the_root_whatever_links_say() {
        let (dir, linux) = system();
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), dir.path().join("etc/away")).unwrap();
        symlink("../../../../../../../..", dir.path().join("etc/up")).unwrap();
        let written = |path: &str| {
            let file =
                FileConfig { path: path.into(), mode: "0600".into(), content_base64: "aGVsbG8K".into() };
            linux.write_file(&file)
        };
        assert!(written("/etc/away/a").is_err(), "below the root there is no such directory");
        written("/etc/up/b").unwrap();
        written("/new/deep/c").unwrap();
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        let deep = dir.path().join("new/deep/c");
        assert_eq!(fs::read_to_string(&deep).unwrap(), "hello\n");
        assert_eq!(fs::metadata(&deep).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(dir.path().join("b").exists(), "up from the root is the root");
    }

    #[test]
    fn a_file_is_replaced_not_written_through_a_link() {
        let (dir, linux) = system();
        fs::write(dir.path().join("etc/shadow"), "root:*:\n").unwrap();
        symlink("/etc/shadow", dir.path().join("etc/motd")).unwrap();
        let file =
            FileConfig { path: "/etc/motd".into(), mode: "0644".into(), content_base64: "aGVsbG8K".into() };
        linux.write_file(&file).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("etc/shadow")).unwrap(), "root:*:\n");
        assert_eq!(fs::read_to_string(dir.path().join("etc/motd")).unwrap(), "hello\n");
    }
}
