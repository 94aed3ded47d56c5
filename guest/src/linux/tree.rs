//! Files below a root directory. Symbolic links are followed as the system below that root would follow them and can
//! lead nowhere else (`openat2` with `RESOLVE_IN_ROOT`); files are replaced as a whole, by a rename.
//!
//! Never here: what the files mean.

use crate::os::OsError;
use rustix::{
    fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid},
    io::Errno,
};
use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

/// Name that a file has until it is whole. One process writes, one file at a time.
const UNFINISHED: &str = ".shunt-guest.unfinished";

/// A root directory.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    path: PathBuf,
}

/// Who a file belongs to: user and group.
pub(super) type Owner = (u32, u32);

impl Tree {
    /// Opens the root.
    ///
    /// # Errors
    /// `File`.
    pub fn open(path: &Path) -> Result<Self, OsError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .map_err(|errno| OsError::file("open", path.display())(errno.into()))?;
        Ok(Self { root, path: path.to_owned() })
    }

    /// The path by which everybody else finds `inside`, as long as no link is on the way.
    #[must_use]
    pub fn outside(&self, inside: &str) -> PathBuf {
        self.path.join(inside.trim_start_matches('/'))
    }

    fn resolve(&self, inside: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.root, inside, flags | OFlags::CLOEXEC, Mode::empty(), how)
    }

    /// Reads a regular file of at most `limit` bytes.
    ///
    /// # Errors
    /// `File`; `Unfit` when it is longer or no regular file.
    pub fn read(&self, inside: &str, limit: u64) -> Result<Vec<u8>, OsError> {
        let failed = |errno: Errno| OsError::file("read", inside)(errno.into());
        // Without NONBLOCK a named pipe would hold us for ever.
        let file = self.resolve(inside, OFlags::RDONLY | OFlags::NONBLOCK).map_err(failed)?;
        read_regular(file, inside, limit)
    }

    /// The same, but a file that is not there is empty.
    ///
    /// # Errors
    /// As [`Tree::read`].
    pub fn read_or_empty(&self, inside: &str, limit: u64) -> Result<Vec<u8>, OsError> {
        match self.read(inside, limit) {
            Err(OsError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Ok(Vec::new())
            }
            other => other,
        }
    }

    /// Is it a regular file, perhaps through links?
    #[must_use]
    pub fn is_file(&self, inside: &str) -> bool {
        self.resolve(inside, OFlags::PATH)
            .and_then(rustix::fs::fstat)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
    }

    /// Puts a file in place of whatever is there; directories on the way are made (mode 0755).
    ///
    /// # Errors
    /// `File`.
    pub fn replace(&self, inside: &str, content: &[u8], mode: u32) -> Result<(), OsError> {
        let (directory, name) = self.directory_of(inside)?;
        put(directory.as_fd(), name, content, mode, None)
            .map_err(|errno| OsError::file("write", inside)(errno.into()))
    }

    /// The same with mode and owner of the file that is there now, `mode` being for a new one.
    ///
    /// # Errors
    /// `File`.
    pub fn replace_like(&self, inside: &str, content: &[u8], mode: u32) -> Result<(), OsError> {
        let (directory, name) = self.directory_of(inside)?;
        let (mode, owner) = match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                (stat.st_mode & 0o7777, Some((stat.st_uid, stat.st_gid)))
            }
            _ => (mode, None),
        };
        put(directory.as_fd(), name, content, mode, owner)
            .map_err(|errno| OsError::file("write", inside)(errno.into()))
    }

    /// Puts a symbolic link in place of whatever is there.
    ///
    /// # Errors
    /// `File`.
    pub fn link(&self, inside: &str, target: &str) -> Result<(), OsError> {
        let (directory, name) = self.directory_of(inside)?;
        let attempt = || {
            let _ = rustix::fs::unlinkat(&directory, UNFINISHED, AtFlags::empty());
            rustix::fs::symlinkat(target, &directory, UNFINISHED)?;
            rustix::fs::renameat(&directory, UNFINISHED, &directory, name)
        };
        attempt().map_err(|errno: Errno| OsError::file("link", inside)(errno.into()))
    }

    /// Opens a directory, made if it is not there.
    ///
    /// # Errors
    /// `File`.
    pub(super) fn directory(&self, inside: &str, mode: u32) -> Result<OwnedFd, OsError> {
        let failed = |errno: Errno| OsError::file("open directory", inside)(errno.into());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match self.resolve(inside, flags) {
            Err(Errno::NOENT) => {
                let (parent, name) = self.directory_of(inside)?;
                match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(mode)) {
                    Ok(()) | Err(Errno::EXIST) => self.resolve(inside, flags).map_err(failed),
                    Err(errno) => Err(OsError::file("make directory", inside)(errno.into())),
                }
            }
            other => other.map_err(failed),
        }
    }

    /// The directory of a path, made if need be, and the last name of the path.
    fn directory_of<'a>(&self, inside: &'a str) -> Result<(OwnedFd, &'a str), OsError> {
        let (directory, name) = inside.rsplit_once('/').unwrap_or(("", inside));
        if name.is_empty() {
            return Err(OsError::Unfit(format!("{inside} names no file")));
        }
        if directory.is_empty() {
            let failed = |errno: Errno| OsError::file("open directory", "/")(errno.into());
            return Ok((self.resolve("/", OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?, name));
        }
        Ok((self.directory(directory, 0o755)?, name))
    }
}

/// Puts a file into an open directory: whole or not at all, never through a link.
pub(super) fn put(
    directory: BorrowedFd<'_>,
    name: &str,
    content: &[u8],
    mode: u32,
    owner: Option<Owner>,
) -> Result<(), Errno> {
    let _ = rustix::fs::unlinkat(directory, UNFINISHED, AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Nobody reads it before it has its owner and its mode.
    let file = rustix::fs::openat(directory, UNFINISHED, flags, Mode::from_raw_mode(0o600))?;
    let mut file = File::from(file);
    file.write_all(content).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    if let Some(owner) = owner {
        give(file.as_fd(), owner)?;
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
    rustix::fs::renameat(directory, UNFINISHED, directory, name)
}

/// Gives an open file to its owner. In a user namespace that knows one user only nobody else can own a file (EINVAL):
/// then it stays root's, which is all that can be had there.
pub(super) fn give(file: BorrowedFd<'_>, (user, group): Owner) -> Result<(), Errno> {
    match rustix::fs::fchown(file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group))) {
        Err(Errno::INVAL) => Ok(()),
        other => other,
    }
}

/// Reads an open file if it is a regular one and not too long.
pub(super) fn read_regular(file: OwnedFd, name: &str, limit: u64) -> Result<Vec<u8>, OsError> {
    let stat = rustix::fs::fstat(&file).map_err(|errno| OsError::file("read", name)(errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(OsError::Unfit(format!("{name} is no regular file")));
    }
    let mut content = Vec::new();
    File::from(file).take(limit + 1).read_to_end(&mut content).map_err(OsError::file("read", name))?;
    if u64::try_from(content.len()).is_ok_and(|length| length > limit) {
        return Err(OsError::Unfit(format!("{name} is longer than {limit} bytes")));
    }
    Ok(content)
}
