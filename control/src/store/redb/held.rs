//! A file whose writes are held back until its content has been accepted.
//!
//! Opening a database writes to it: a flag, a repair after a crash. That must not happen to a file which is then
//! refused. So all that the database does to the file while it is being opened is kept in memory, in order, and
//! [`Held::accept`] does it then, syncs included; a crash in between is as good as one without this.
//!
//! Never here: what the content is, or whether it is accepted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

const PAGE: usize = 4096;
/// Most bytes that are held. Opening writes the database's own book-keeping, a small part of the file.
const MAX_HELD: usize = 256 << 20;

/// The file, shared by the database and by who decides about it.
#[derive(Debug, Clone)]
pub(super) struct Held(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: FileBackend,
    /// `None`: accepted, everything goes to the file.
    held: RwLock<Option<Holding>>,
}

#[derive(Debug)]
struct Holding {
    log: Vec<Act>,
    bytes: usize,
    /// Whole pages as they would be.
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
    length: u64,
    /// How much of the file is still to be seen: what was cut off reads as zeroes when the file grows again.
    visible: u64,
}

#[derive(Debug)]
enum Act {
    Write(u64, Vec<u8>),
    SetLength(u64),
    Sync,
}

impl Held {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let held = Holding { log: Vec::new(), bytes: 0, pages: BTreeMap::new(), length, visible: length };
        let file = FileBackend::new(file).map_err(io::Error::other)?;
        Ok(Self(Arc::new(Inner { file, held: RwLock::new(Some(held)) })))
    }

    /// Does what was held back, and holds nothing back from now on.
    pub(super) fn accept(&self) -> io::Result<()> {
        let mut held = self.0.write();
        let Some(holding) = held.take() else { return Ok(()) };
        for act in holding.log {
            match act {
                Act::Write(offset, data) => self.0.file.write(offset, &data)?,
                Act::SetLength(length) => self.0.file.set_len(length)?,
                Act::Sync => self.0.file.sync_data()?,
            }
        }
        Ok(())
    }
}

impl Inner {
    fn read(&self) -> RwLockReadGuard<'_, Option<Holding>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Option<Holding>> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holding {
    /// The page as the file has it, with zeroes where it has nothing.
    fn original(&self, file: &FileBackend, page: u64) -> io::Result<Box<[u8; PAGE]>> {
        let mut bytes = Box::new([0; PAGE]);
        let start = page * PAGE as u64;
        let there = usize::try_from(self.visible.saturating_sub(start)).unwrap_or(PAGE).min(PAGE);
        if let Some(there) = bytes.get_mut(..there).filter(|there| !there.is_empty()) {
            file.read(start, there)?;
        }
        Ok(bytes)
    }

    fn read(&self, file: &FileBackend, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (page, within, out) in pieces_mut(offset, out) {
            let original;
            let bytes = match self.pages.get(&page) {
                Some(bytes) => bytes,
                None => {
                    original = self.original(file, page)?;
                    &original
                }
            };
            if let Some(from) = bytes.get(within..within + out.len()) {
                out.copy_from_slice(from);
            }
        }
        Ok(())
    }

    fn write(&mut self, file: &FileBackend, offset: u64, data: &[u8]) -> io::Result<()> {
        self.bytes += data.len();
        if self.bytes > MAX_HELD {
            return Err(io::Error::other("opening it would write more than this program keeps in memory"));
        }
        let mut rest = data;
        let mut at = offset;
        while !rest.is_empty() {
            let (page, within) = place(at);
            let (now, later) = rest.split_at(rest.len().min(PAGE - within));
            let original = self.original(file, page)?;
            let bytes = self.pages.entry(page).or_insert(original);
            if let Some(to) = bytes.get_mut(within..within + now.len()) {
                to.copy_from_slice(now);
            }
            at += now.len() as u64;
            rest = later;
        }
        self.length = self.length.max(at);
        self.log.push(Act::Write(offset, data.to_vec()));
        Ok(())
    }

    fn set_length(&mut self, file: &FileBackend, length: u64) -> io::Result<()> {
        if length < self.length {
            let (page, within) = place(length);
            self.pages.retain(|held, _| *held <= page);
            // Of the page that is cut, the rest must read as zeroes should the file grow again.
            self.visible = self.visible.min(length);
            let cut = match self.pages.remove(&page) {
                Some(bytes) => bytes,
                None => self.original(file, page)?,
            };
            let mut cut = cut;
            if let Some(gone) = cut.get_mut(within..) {
                gone.fill(0);
            }
            self.pages.insert(page, cut);
        }
        self.length = length;
        self.log.push(Act::SetLength(length));
        Ok(())
    }
}

/// The page of an offset, and the place in it.
fn place(offset: u64) -> (u64, usize) {
    let page = PAGE as u64;
    (offset / page, usize::try_from(offset % page).unwrap_or_default())
}

/// Cuts `out` where pages end: (page, place in it, piece).
fn pieces_mut(offset: u64, mut out: &mut [u8]) -> Vec<(u64, usize, &mut [u8])> {
    let mut pieces = Vec::new();
    let mut at = offset;
    while !out.is_empty() {
        let (page, within) = place(at);
        let (now, later) = out.split_at_mut(out.len().min(PAGE - within));
        at += now.len() as u64;
        pieces.push((page, within, now));
        out = later;
    }
    pieces
}

impl StorageBackend for Held {
    fn len(&self) -> io::Result<u64> {
        match &*self.0.read() {
            Some(holding) => Ok(holding.length),
            None => self.0.file.len(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match &*self.0.read() {
            Some(holding) => holding.read(&self.0.file, offset, out),
            None => self.0.file.read(offset, out),
        }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        if self.0.read().is_none() {
            return self.0.file.set_len(length);
        }
        match &mut *self.0.write() {
            Some(holding) => holding.set_length(&self.0.file, length),
            None => self.0.file.set_len(length),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.0.read().is_none() {
            return self.0.file.sync_data();
        }
        match &mut *self.0.write() {
            Some(holding) => holding.log.push(Act::Sync),
            None => return self.0.file.sync_data(),
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.0.read().is_none() {
            return self.0.file.write(offset, data);
        }
        match &mut *self.0.write() {
            Some(holding) => holding.write(&self.0.file, offset, data),
            None => self.0.file.write(offset, data),
        }
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Write(u64, Vec<u8>),
        SetLength(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let write = (0..20_000u64, proptest::collection::vec(any::<u8>(), 0..9000));
        let step = prop_oneof![
            3 => write.prop_map(|(offset, data)| Step::Write(offset, data)),
            1 => (0..30_000u64).prop_map(Step::SetLength),
        ];
        proptest::collection::vec(step, 0..12)
    }

    fn whole(backend: &impl StorageBackend) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(backend.len().unwrap()).unwrap()];
        backend.read(0, &mut bytes).unwrap();
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// What is held reads as if it were written; the file has none of it before, and all of it after.
        #[test]
        fn held_writes_read_as_if_done(first in proptest::collection::vec(any::<u8>(), 0..10_000), steps in steps()) {
            let mut file = tempfile::tempfile().unwrap();
            io::Write::write_all(&mut file, &first).unwrap();
            let held = Held::new(file.try_clone().unwrap()).unwrap();
            let mirror = FileBackend::new(tempfile::tempfile().unwrap()).unwrap();
            mirror.write(0, &first).unwrap();
            for step in steps {
                match step {
                    Step::Write(offset, data) => {
                        mirror.write(offset, &data).unwrap();
                        held.write(offset, &data).unwrap();
                    }
                    Step::SetLength(length) => {
                        mirror.set_len(length).unwrap();
                        held.set_len(length).unwrap();
                    }
                }
                prop_assert_eq!(whole(&held), whole(&mirror));
            }
            prop_assert_eq!(&whole(&FileBackend::new(file.try_clone().unwrap()).unwrap()), &first);
            held.accept().unwrap();
            prop_assert_eq!(whole(&FileBackend::new(file).unwrap()), whole(&mirror));
        }
    }
}
