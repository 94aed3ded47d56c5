//! Files with keys: written whole or not at all, and read by their owner alone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::IdentityError;

/// A file of keys is a few KiB.
const LARGEST: u64 = 256 << 10;

fn failed(act: &'static str, file: &Path) -> impl FnOnce(std::io::Error) -> IdentityError {
    move |source| IdentityError::File { act, file: file.into(), source }
}

/// Makes a directory for keys, mode 0700, and those above it.
pub(super) fn make_directory(path: &Path) -> Result<(), IdentityError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("make the directory", path))
}

/// Reads a file; none when it is not there.
pub(super) fn read(path: &Path) -> Result<Option<String>, IdentityError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed("open the file", path))?,
    };
    let mode = file.metadata().map_err(failed("look at the file", path))?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Exposed { file: path.into(), mode });
    }
    let mut text = String::new();
    file.take(LARGEST).read_to_string(&mut text).map_err(failed("read the file", path))?;
    Ok(Some(text))
}

/// Writes a file, mode 0600, so that after a crash there is the old one or the new one and nothing else.
pub(super) fn write(path: &Path, text: &str) -> Result<(), IdentityError> {
    let fresh = path.with_extension("new");
    // One that a crash left behind may have another mode.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(failed("remove the file", &fresh)(error));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)
        .map_err(failed("create the file", &fresh))?;
    file.write_all(text.as_bytes()).map_err(failed("write the file", &fresh))?;
    file.sync_all().map_err(failed("write the file to disk", &fresh))?;
    fs::rename(&fresh, path).map_err(failed("rename the file", &fresh))?;
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("write the directory to disk", directory))
}

/// Removes a file that may be gone already.
pub(super) fn remove(path: &Path) -> Result<(), IdentityError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove the file", path)(error)),
        _ => Ok(()),
    }
}
