//! A database file on trial: what the database writes while it opens the file stays in memory until the file is accepted.
//!
//! Opening a file that was not closed properly repairs it, and every opening notes in the header that the file is in use. A
//! file that is then refused must be what it was before, byte for byte: here nothing of it has been written. A file that is
//! accepted gets the same writes, in the same order and with the same syncs, so that losing power amid them is what it
//! would have been without a trial. Never here: what makes a file acceptable.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};

/// Bytes that are kept together in memory; the size of the database's own pages.
const PAGE: usize = 4096;

/// The file, for the database and for who judges it: clones are the same file.
#[derive(Clone)]
pub(super) struct Trial(Arc<Inner>);

struct Inner {
    file: FileBackend,
    /// None once the file is accepted.
    held: RwLock<Option<Held>>,
}

/// What was written since the trial began. An opening that repairs writes headers and little more, whatever the file's size.
struct Held {
    steps: Vec<Step>,
    /// What the pages that were written would be now, by number.
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
    /// What the file's length would be now.
    length: u64,
    /// Up to here the file's own bytes show: it was never shorter.
    own: u64,
}

enum Step {
    Write(u64, Vec<u8>),
    SetLength(u64),
    Sync,
}

impl Trial {
    /// Opens the file at `path`. An empty one is no database.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn open(path: &Path) -> Result<Self, DatabaseError> {
        let file = File::options().read(true).write(true).open(path).map_err(redb::StorageError::from)?;
        let length = file.metadata().map_err(redb::StorageError::from)?.len();
        if length == 0 {
            let empty = io::Error::new(io::ErrorKind::InvalidData, "it is empty");
            return Err(redb::StorageError::from(empty).into());
        }
        let held = Held { steps: Vec::new(), pages: BTreeMap::new(), length, own: length };
        Ok(Self(Arc::new(Inner { file: FileBackend::new(file)?, held: RwLock::new(Some(held)) })))
    }

    /// Ends the trial well: writes what was held back, and lets everything through from now on.
    ///
    /// # Errors
    /// The kernel's. Then the trial goes on, and nothing more is written.
    pub(super) fn accept(&self) -> io::Result<()> {
        let mut held = self.0.held.write().unwrap_or_else(PoisonError::into_inner);
        for step in held.iter().flat_map(|held| &held.steps) {
            match step {
                Step::Write(offset, bytes) => self.0.file.write(*offset, bytes)?,
                Step::SetLength(length) => self.0.file.set_len(*length)?,
                Step::Sync => self.0.file.sync_data()?,
            }
        }
        *held = None;
        Ok(())
    }

    /// Acts on what is held back, or on the file once it is accepted.
    fn write_by<T>(
        &self,
        on_trial: impl FnOnce(&mut Held, &FileBackend) -> io::Result<T>,
        accepted: impl FnOnce(&FileBackend) -> io::Result<T>,
    ) -> io::Result<T> {
        if self.0.held.read().unwrap_or_else(PoisonError::into_inner).is_none() {
            return accepted(&self.0.file);
        }
        match self.0.held.write().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(held) => on_trial(held, &self.0.file),
            None => accepted(&self.0.file),
        }
    }
}

impl Held {
    fn read(&self, file: &FileBackend, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if end(offset, out.len()).is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let own = usize::try_from(self.own.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        let (own, grown) = out.split_at_mut(own);
        file.read(offset, own)?;
        grown.fill(0);
        for piece in pieces(offset, out.len()) {
            let kept = self.pages.get(&piece.page).and_then(|page| page.get(piece.within.clone()));
            if let (Some(kept), Some(out)) = (kept, out.get_mut(piece.outside)) {
                out.copy_from_slice(kept);
            }
        }
        Ok(())
    }

    fn write(&mut self, file: &FileBackend, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = end(offset, bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        for piece in pieces(offset, bytes.len()) {
            if !self.pages.contains_key(&piece.page) {
                let mut page = Box::new([0; PAGE]);
                let begin = piece.page.saturating_mul(PAGE as u64);
                let there = usize::try_from(self.length.saturating_sub(begin)).unwrap_or(PAGE).min(PAGE);
                if there > 0 {
                    self.read(file, begin, page.split_at_mut(there).0)?;
                }
                self.pages.insert(piece.page, page);
            }
            let kept = self.pages.get_mut(&piece.page).and_then(|page| page.get_mut(piece.within));
            if let (Some(kept), Some(bytes)) = (kept, bytes.get(piece.outside)) {
                kept.copy_from_slice(bytes);
            }
        }
        self.length = self.length.max(end);
        self.steps.push(Step::Write(offset, bytes.to_vec()));
        Ok(())
    }

    fn set_length(&mut self, length: u64) {
        self.own = self.own.min(length);
        self.pages.retain(|page, _| page.saturating_mul(PAGE as u64) < length);
        let (last, left) = split(length);
        if let Some(cut) = self.pages.get_mut(&last).and_then(|page| page.get_mut(left..)) {
            cut.fill(0);
        }
        self.length = length;
        self.steps.push(Step::SetLength(length));
    }
}

/// What of a range lies in one page.
struct Piece {
    page: u64,
    within: std::ops::Range<usize>,
    outside: std::ops::Range<usize>,
}

fn end(offset: u64, length: usize) -> Option<u64> {
    offset.checked_add(u64::try_from(length).ok()?)
}

/// The page of an offset, and the place in it.
fn split(offset: u64) -> (u64, usize) {
    // What is below PAGE fits.
    (offset / PAGE as u64, usize::try_from(offset % PAGE as u64).unwrap_or(0))
}

/// A range, page by page.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = Piece> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = end(offset, done).filter(|_| done < length)?;
        let (page, begin) = split(at);
        let long = (PAGE - begin).min(length - done);
        let piece = Piece { page, within: begin..begin + long, outside: done..done + long };
        done += long;
        Some(piece)
    })
}

/// By length only: a database that logs its opening would print every page.
impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial").finish_non_exhaustive()
    }
}

impl StorageBackend for Trial {
    fn len(&self) -> io::Result<u64> {
        let held = self.0.held.read().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().map_or_else(|| self.0.file.len(), |held| Ok(held.length))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let held = self.0.held.read().unwrap_or_else(PoisonError::into_inner);
        match held.as_ref() {
            Some(held) => held.read(&self.0.file, offset, out),
            None => self.0.file.read(offset, out),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.write_by(
            |held, _| {
                held.set_length(len);
                Ok(())
            },
            |file| file.set_len(len),
        )
    }

    fn sync_data(&self) -> io::Result<()> {
        self.write_by(
            |held, _| {
                held.steps.push(Step::Sync);
                Ok(())
            },
            FileBackend::sync_data,
        )
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_by(|held, file| held.write(file, offset, data), |file| file.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.0.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests;
