//! Users: lines of `passwd`, `group` and `shadow`, a home, `authorized_keys`.
//!
//! A home belongs to its user, who may put links there while root writes: below a home nothing is followed.
//! Never here: hashing of passwords; what comes is hashed.

use super::tree::{Owner, Tree, give, put, read_regular};
use crate::{config::UserConfig, os::OsError};
use rustix::{
    fs::{FileType, FlockOperation, Mode, OFlags},
    io::Errno,
};
use std::{
    fs::OpenOptions,
    os::fd::{AsFd, OwnedFd},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The longest of the three files that is read, in bytes.
const TABLE_BYTES: u64 = 4 << 20;
/// Users of people, by custom.
const FIRST_UID: u32 = 1000;
const LAST_UID: u32 = 59_999;

/// Makes a user, or sets the password and adds the keys of one that is there.
pub(super) fn set(tree: &Tree, user: &UserConfig) -> Result<(), OsError> {
    let _lock = lock(tree)?;
    let passwd = table(tree, "/etc/passwd")?;
    let known = line_of(&passwd, &user.name);
    let (owner, home) = match known {
        Some(line) => existing(line)?,
        None => add(tree, &passwd, &user.name)?,
    };
    if known.is_none() || user.password_hash.is_some() {
        let shadow = table(tree, "/etc/shadow")?;
        let days = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400;
        let shadow = with_password(&shadow, &user.name, user.password_hash.as_deref().unwrap_or("!"), days);
        tree.replace_like("/etc/shadow", shadow.as_bytes(), 0o600)?;
    }
    let home_fd = tree.directory(&home, 0o755)?;
    if known.is_none() {
        give(home_fd.as_fd(), owner).map_err(|errno| OsError::file("own", &home)(errno.into()))?;
    }
    if user.ssh_keys.is_empty() { Ok(()) } else { authorize(&home_fd, &home, owner, &user.ssh_keys) }
}

/// The lock that `passwd`, `useradd` and their like take (lckpwdf(3)); they hold it for moments.
fn lock(tree: &Tree) -> Result<std::fs::File, OsError> {
    let path = tree.outside("/etc/.pwd.lock");
    let name = path.display().to_string();
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(OsError::file("open", &name))?;
    for _ in 0..200 {
        match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::AGAIN | Errno::ACCESS) => thread::sleep(Duration::from_millis(10)),
            Err(errno) => return Err(OsError::file("lock", &name)(errno.into())),
        }
    }
    Err(OsError::Unfit(format!("{name} has been locked by another program for two seconds")))
}

fn table(tree: &Tree, path: &str) -> Result<String, OsError> {
    let bytes = tree.read_or_empty(path, TABLE_BYTES)?;
    String::from_utf8(bytes).map_err(|_| OsError::Unfit(format!("{path} is not text")))
}

fn line_of<'a>(table: &'a str, name: &str) -> Option<&'a str> {
    table.lines().find(|line| line.split(':').next() == Some(name))
}

/// Owner and home that a line of `passwd` names.
fn existing(line: &str) -> Result<(Owner, String), OsError> {
    let mut fields = line.split(':').skip(2);
    let mut number = || fields.next().and_then(|field| field.parse().ok());
    let (user, group) = (number(), number());
    let home = fields.nth(1).filter(|home| home.starts_with('/') && home.len() > 1);
    match (user, group, home) {
        (Some(user), Some(group), Some(home)) => Ok(((user, group), home.trim_end_matches('/').to_owned())),
        _ => Err(OsError::Unfit(format!("/etc/passwd has a line that is no user's: {line}"))),
    }
}

/// Adds lines to `group` and `passwd`.
fn add(tree: &Tree, passwd: &str, name: &str) -> Result<(Owner, String), OsError> {
    let groups = table(tree, "/etc/group")?;
    let user = free_number(passwd, 2).ok_or_else(|| OsError::Unfit("no user number is free".to_owned()))?;
    let own_group = line_of(&groups, name).and_then(|line| line.split(':').nth(2)?.parse().ok());
    let group = match own_group {
        Some(group) => group,
        None => {
            let group = free_number(&groups, 2)
                .ok_or_else(|| OsError::Unfit("no group number is free".to_owned()))?;
            let groups = with_line(&groups, &format!("{name}:x:{group}:"));
            tree.replace_like("/etc/group", groups.as_bytes(), 0o644)?;
            group
        }
    };
    let shell = if tree.is_file("/bin/bash") { "/bin/bash" } else { "/bin/sh" };
    let home = format!("/home/{name}");
    let passwd = with_line(passwd, &format!("{name}:x:{user}:{group}::{home}:{shell}"));
    tree.replace_like("/etc/passwd", passwd.as_bytes(), 0o644)?;
    Ok(((user, group), home))
}

/// The number after the highest that is in use.
fn free_number(table: &str, field: usize) -> Option<u32> {
    let numbers = table.lines().filter_map(|line| line.split(':').nth(field)?.parse::<u32>().ok());
    let highest = numbers.filter(|number| (FIRST_UID..=LAST_UID).contains(number)).max();
    let next = highest.map_or(FIRST_UID, |highest| highest + 1);
    (next <= LAST_UID).then_some(next)
}

fn with_line(table: &str, line: &str) -> String {
    let gap = if table.is_empty() || table.ends_with('\n') { "" } else { "\n" };
    format!("{table}{gap}{line}\n")
}

/// The text of `shadow` with a user's hash; the other fields of a line that is there stay.
fn with_password(shadow: &str, name: &str, hash: &str, days: u64) -> String {
    if line_of(shadow, name).is_none() {
        return with_line(shadow, &format!("{name}:{hash}:{days}:0:99999:7:::"));
    }
    let lines = shadow.lines().map(|line| match line.split(':').next() {
        Some(user) if user == name => {
            let rest: Vec<&str> = line.split(':').skip(3).collect();
            let rest = if rest.is_empty() { "0:99999:7:::".to_owned() } else { rest.join(":") };
            format!("{name}:{hash}:{days}:{rest}")
        }
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

/// Adds the keys that are missing; what the user has added stays.
fn authorize(home: &OwnedFd, path: &str, owner: Owner, keys: &[String]) -> Result<(), OsError> {
    let named = format!("{path}/.ssh");
    let failed = |act: &'static str| {
        let named = named.clone();
        move |errno: Errno| OsError::file(act, named)(errno.into())
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let ssh = match rustix::fs::openat(home, ".ssh", flags, Mode::empty()) {
        Err(Errno::NOENT) => {
            rustix::fs::mkdirat(home, ".ssh", Mode::from_raw_mode(0o700))
                .map_err(failed("make directory"))?;
            let ssh = rustix::fs::openat(home, ".ssh", flags, Mode::empty()).map_err(failed("open"))?;
            give(ssh.as_fd(), owner).map_err(failed("own"))?;
            ssh
        }
        other => other.map_err(failed("open"))?,
    };
    let stat = rustix::fs::fstat(&ssh).map_err(failed("look at"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory || ![0, owner.0].contains(&stat.st_uid) {
        return Err(OsError::Unfit(format!("{named} is not the user's own directory")));
    }
    let file = format!("{named}/authorized_keys");
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let present = match rustix::fs::openat(&ssh, "authorized_keys", flags, Mode::empty()) {
        Ok(open) => String::from_utf8_lossy(&read_regular(open, &file, 1 << 20)?).into_owned(),
        Err(Errno::NOENT) => String::new(),
        Err(errno) => return Err(OsError::file("open", &file)(errno.into())),
    };
    let mut text = present.clone();
    for key in keys.iter().map(|key| key.trim()) {
        if !present.lines().any(|line| line.trim() == key) {
            text = with_line(&text, key);
        }
    }
    put(ssh.as_fd(), "authorized_keys", text.as_bytes(), 0o600, Some(owner))
        .map_err(|errno| OsError::file("write", &file)(errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    };

    const HASH: &str = "$6$salt$hash";

    fn alice(keys: &[&str]) -> UserConfig {
        let ssh_keys = keys.iter().map(|key| (*key).to_owned()).collect();
        UserConfig { name: "alice".into(), password_hash: Some(HASH.into()), ssh_keys }
    }

    fn system() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc");
        fs::create_dir_all(&etc).unwrap();
        fs::write(etc.join("passwd"), "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n")
            .unwrap();
        fs::write(etc.join("group"), "root:x:0:\nbob:x:1000:").unwrap();
        fs::write(etc.join("shadow"), "root:*:1:0:99999:7:::\n").unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        (dir, tree)
    }

    fn mode(path: &std::path::Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_new_user_has_lines_a_home_and_keys_and_the_second_time_changes_nothing() {
        let (dir, tree) = system();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        set(&tree, &alice(&["ssh-ed25519 A a@b"])).unwrap();
        let passwd = read("etc/passwd");
        assert!(passwd.ends_with("alice:x:1001:1001::/home/alice:/bin/sh\n"), "{passwd}");
        assert!(read("etc/group").ends_with("bob:x:1000:\nalice:x:1001:\n"));
        assert!(read("etc/shadow").contains("alice:$6$salt$hash:"));
        let (home, ssh) = (dir.path().join("home/alice"), dir.path().join("home/alice/.ssh"));
        let keys = ssh.join("authorized_keys");
        assert_eq!((mode(&home), mode(&ssh), mode(&keys)), (0o755, 0o700, 0o600));
        if rustix::process::geteuid().is_root() {
            assert_eq!(fs::metadata(&keys).unwrap().uid(), 1001);
        }
        let before = ["etc/passwd", "etc/group", "etc/shadow", "home/alice/.ssh/authorized_keys"].map(read);
        set(&tree, &alice(&["ssh-ed25519 A a@b"])).unwrap();
        let after = ["etc/passwd", "etc/group", "etc/shadow", "home/alice/.ssh/authorized_keys"].map(read);
        assert_eq!(before, after);
    }

    #[test]
    fn what_a_user_has_stays() {
        let (dir, tree) = system();
        set(&tree, &alice(&["first"])).unwrap();
        let keys = dir.path().join("home/alice/.ssh/authorized_keys");
        fs::write(&keys, "own key without an end of line").unwrap();
        let mut again = alice(&["first"]);
        again.password_hash = None;
        set(&tree, &again).unwrap();
        assert_eq!(fs::read_to_string(&keys).unwrap(), "own key without an end of line\nfirst\n");
        assert!(fs::read_to_string(dir.path().join("etc/shadow")).unwrap().contains(HASH));
    }

    #[test]
    fn links_below_a_home_are_not_followed() {
        let (dir, tree) = system();
        let (home, precious) = (dir.path().join("home/alice"), dir.path().join("root"));
        fs::create_dir_all(&home).unwrap();
        fs::create_dir_all(&precious).unwrap();
        symlink("/root", home.join(".ssh")).unwrap();
        assert!(set(&tree, &alice(&["key"])).is_err());
        assert_eq!(fs::read_dir(&precious).unwrap().count(), 0);
        fs::remove_file(home.join(".ssh")).unwrap();
        fs::create_dir(home.join(".ssh")).unwrap();
        fs::write(precious.join("secret"), "s").unwrap();
        symlink("/root/secret", home.join(".ssh/authorized_keys")).unwrap();
        assert!(set(&tree, &alice(&["key"])).is_err());
        assert_eq!(fs::read_to_string(precious.join("secret")).unwrap(), "s");
    }

    #[test]
    fn a_password_changes_its_own_line_alone() {
        let shadow = "root:*:1:0:99999:7:::\nalice:!:5:1:2:3:4:5:\nbob:!:5:0:::::\n";
        assert_eq!(
            with_password(shadow, "alice", HASH, 9),
            "root:*:1:0:99999:7:::\nalice:$6$salt$hash:9:1:2:3:4:5:\nbob:!:5:0:::::\n"
        );
    }

    #[test]
    fn a_line_that_is_no_users_is_named() {
        assert!(
            existing("alice:x:nobody:1::/home/alice:/bin/sh").unwrap_err().to_string().contains("alice:x")
        );
        assert!(existing("alice:x:1:1").is_err());
    }
}
