//! A guest's directory: `BASE/guests/ID` with `spec.json`, the note about its life, its log, the handle of its user
//! namespace, and the guest's own `etc var home root`. Beside: `BASE/program/shunt-guest`.
//!
//! A guest enters its directory before it gives up the host's user ids, so nothing above needs to be open to it. Never
//! here: processes, namespaces.

use super::super::{
    HypervisorError, VmSpec,
    kept::{self, maps_ranges},
};
use crate::model::VmId;
use serde::Deserialize;
use std::{
    fs, io,
    os::{
        fd::AsRawFd,
        unix::{
            fs::{MetadataExt, PermissionsExt, chown, lchown, symlink},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
};

/// What a guest's first process noted about itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Note {
    pub(super) pid: u32,
    pub(super) started: u64,
    pub(super) machine_boot_id: String,
    pub(super) boot_id: String,
}

/// A guest's directory, there or not.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    path: PathBuf,
    vm: VmId,
}

/// Makes the directories and puts the guest's program where guests can reach it.
pub(super) fn prepare(base: &Path, program: &Path) -> Result<(), HypervisorError> {
    for (name, mode) in [("", 0o711), ("guests", 0o711), ("program", 0o711)] {
        let path = base.join(name);
        fs::create_dir_all(&path).map_err(HypervisorError::file("make", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            .map_err(HypervisorError::file("set the mode of", &path))?;
    }
    let here = base.join("program/shunt-guest");
    let source = fs::metadata(program).map_err(HypervisorError::file("look at", program))?;
    let same = fs::metadata(&here).is_ok_and(|present| {
        present.ino() == source.ino() && present.dev() == source.dev()
            || present.len() == source.len()
                && present.mtime() >= source.mtime()
                && present.dev() != source.dev()
    });
    if same {
        return Ok(());
    }
    // By a rename, for guests may be running the old one.
    let unfinished = base.join("program/unfinished");
    let _ = fs::remove_file(&unfinished);
    fs::hard_link(program, &unfinished)
        .or_else(|_| fs::copy(program, &unfinished).map(drop))
        .and_then(|()| fs::rename(&unfinished, &here))
        .map_err(HypervisorError::file("copy", program))?;
    // Renaming one name of a file over another name of the same file does nothing, so the first may be left.
    let _ = fs::remove_file(&unfinished);
    Ok(())
}

/// Everything below `base` that is named like a machine.
pub(super) fn all(base: &Path) -> Result<Vec<VmId>, HypervisorError> {
    kept::all(&base.join("guests"))
}

impl Directory {
    pub(super) fn new(base: &Path, vm: VmId) -> Self {
        Self { path: base.join("guests").join(vm.to_string()), vm }
    }

    pub(super) fn vm(&self) -> VmId {
        self.vm
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The host's id of the guest's root.
    pub(super) fn first_id(&self) -> u32 {
        kept::first_id(self.vm)
    }

    /// Name of the handle of the user namespace; a file that the namespace is mounted on.
    pub(super) fn user_namespace(&self) -> PathBuf {
        self.path.join("user")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// What it was made as; `None` when it was not, or not to the end.
    pub(super) fn spec(&self) -> Result<Option<VmSpec>, HypervisorError> {
        kept::spec(&self.path)
    }

    /// Makes the directory and a new system in it, unless it is there; the specification is what a start reads.
    pub(super) fn make(&self, spec: &VmSpec) -> Result<(), HypervisorError> {
        let present = self.spec()?;
        if present.as_ref() == Some(spec) {
            return Ok(());
        }
        if present.is_none() {
            self.make_system(spec).map_err(HypervisorError::file("make", &self.path))?;
        }
        kept::keep(&self.path, spec)
    }

    fn make_system(&self, spec: &VmSpec) -> io::Result<()> {
        let root = &self.path;
        for name in ["rootfs", "etc/alternatives", "var/lib", "var/log", "var/tmp", "home", "root"] {
            fs::create_dir_all(root.join(name))?;
        }
        let _ = symlink("/run", root.join("var/run"));
        for (name, text, mode) in [
            ("user", String::new(), 0o600),
            ("log", String::new(), 0o600),
            (
                "etc/passwd",
                "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
                    .to_owned(),
                0o644,
            ),
            ("etc/group", "root:x:0:\nnogroup:x:65534:\n".to_owned(), 0o644),
            ("etc/shadow", "root:*:19000:0:99999:7:::\n".to_owned(), 0o600),
            ("etc/hosts", "127.0.0.1 localhost\n".to_owned(), 0o644),
            ("etc/hostname", format!("{}\n", spec.hostname), 0o644),
            (
                "etc/nsswitch.conf",
                "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n".to_owned(),
                0o644,
            ),
            ("etc/resolv.conf", String::new(), 0o644),
        ] {
            let path = root.join(name);
            // What a first attempt left mounted on the handle is not to be written to.
            if name != "user" || !path.exists() {
                fs::write(&path, text)?;
                fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            }
        }
        fs::set_permissions(root.join("var/tmp"), fs::Permissions::from_mode(0o1777))?;
        fs::set_permissions(root.join("root"), fs::Permissions::from_mode(0o700))?;
        fs::set_permissions(root, fs::Permissions::from_mode(0o700))?;
        if maps_ranges() {
            let id = self.first_id();
            for name in ["etc", "var", "home", "root", "rootfs"] {
                give(&root.join(name), id)?;
            }
            chown(root, Some(id), Some(id))?;
        }
        Ok(())
    }

    /// What its first process noted last.
    pub(super) fn note(&self) -> Option<Note> {
        serde_json::from_slice(&fs::read(self.path.join("running.json")).ok()?).ok()
    }

    /// Removes the note about a life that is over.
    pub(super) fn forget_life(&self) -> Result<(), HypervisorError> {
        let path = self.path.join("running.json");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(HypervisorError::file("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Presses the power button, if somebody listens.
    pub(super) fn press_button(&self) {
        // A socket's path is at most 107 bytes long; that of an open directory always fits.
        if let Ok(directory) = fs::File::open(&self.path) {
            let _ = UnixStream::connect(format!("/proc/self/fd/{}/power", directory.as_raw_fd()));
        }
    }

    /// The end of its log.
    pub(super) fn log_end(&self) -> String {
        kept::end_of(&self.log())
    }

    /// Removes everything.
    pub(super) fn remove(&self) -> Result<(), HypervisorError> {
        kept::remove(&self.path)
    }
}

/// Gives a tree to the guest's root. It was made a moment ago and nobody else could write there.
fn give(path: &Path, id: u32) -> io::Result<()> {
    lchown(path, Some(id), Some(id))?;
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), id)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> VmSpec {
        VmSpec {
            vm: VmId::fixed(7),
            port: "web-1".into(),
            hostname: "pool-1".into(),
            image: "tiny".parse().unwrap(),
            mac: "02:00:00:00:00:05".parse().unwrap(),
            vcpus: 1,
            memory_mib: 128,
        }
    }

    #[test]
    fn a_second_making_keeps_what_the_guest_has() {
        let base = tempfile::tempdir().unwrap();
        let directory = Directory::new(base.path(), spec().vm);
        assert_eq!(directory.spec().unwrap(), None);
        directory.make(&spec()).unwrap();
        fs::write(directory.path().join("etc/passwd"), "mine").unwrap();
        let bigger = VmSpec { memory_mib: 256, ..spec() };
        directory.make(&bigger).unwrap();
        assert_eq!(directory.spec().unwrap(), Some(bigger));
        assert_eq!(fs::read_to_string(directory.path().join("etc/passwd")).unwrap(), "mine");
        assert_eq!(all(base.path()).unwrap(), [spec().vm]);
        directory.remove().unwrap();
        directory.remove().unwrap();
        assert_eq!(all(base.path()).unwrap(), []);
    }

    #[test]
    fn a_newer_form_is_refused_with_a_sentence_and_kept() {
        let base = tempfile::tempdir().unwrap();
        let directory = Directory::new(base.path(), spec().vm);
        directory.make(&spec()).unwrap();
        let path = directory.path().join("spec.json");
        let newer = fs::read_to_string(&path).unwrap().replace("\"schema\":1", "\"schema\":2");
        fs::write(&path, &newer).unwrap();
        assert!(directory.spec().unwrap_err().to_string().contains("form 2"));
        assert!(directory.make(&spec()).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), newer);
    }

    #[test]
    fn a_program_is_put_in_place_once_and_anew_when_it_is_another() {
        let base = tempfile::tempdir().unwrap();
        let program = base.path().join("agent");
        let here = base.path().join("program/shunt-guest");
        fs::write(&program, "one").unwrap();
        prepare(base.path(), &program).unwrap();
        prepare(base.path(), &program).unwrap();
        fs::remove_file(&program).unwrap();
        fs::write(&program, "two").unwrap();
        prepare(base.path(), &program).unwrap();
        assert_eq!(fs::read_to_string(here).unwrap(), "two");
    }
}
