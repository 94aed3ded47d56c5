//! Watches the interface's `carrier_changes`. The counter is exact however short a bounce was; netlink messages are not:
//! the kernel merges them for a second, across namespaces.
//!
//! Its descriptors stay open, and a look is one `pread`: hosts of a hundred waiting guests pay for each. Never here: what a change leads to.

use std::{fs::File, io, os::unix::fs::FileExt, path::PathBuf};

/// What happened since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// The interface is seen for the first time, and its link is up.
    Found,
    /// The link is down now and was up before.
    Down,
    /// The link is up now and was down, now or for a moment.
    Up,
}

/// A watch over one interface.
#[derive(Debug)]
pub(crate) struct Carrier {
    directory: PathBuf,
    files: Option<(File, File)>,
    /// Count at the last look; `None` while the interface has not been seen.
    seen: Option<u64>,
    up: bool,
    /// Looks at the count alone since the last whole one.
    glances: u32,
}

/// An interface that is taken down by hand may keep its count: so often the state is read although the count is the same.
const GLANCES: u32 = 20;

impl Carrier {
    /// Watches the interface whose `/sys/class/net` directory this is; it need not be there yet.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory, files: None, seen: None, up: false, glances: 0 }
    }

    /// Looks.
    pub(crate) fn look(&mut self) -> Change {
        if self.glances < GLANCES
            && let (Some((changes, _)), Some(seen)) = (&self.files, self.seen)
            && number(changes).is_ok_and(|count| count == seen)
        {
            self.glances += 1;
            return Change::None;
        }
        self.glances = 0;
        let Ok((count, up)) = self.read() else {
            // The interface is gone. When one of its name comes back that is news, whatever its counter says.
            self.files = None;
            self.seen = None;
            return if std::mem::take(&mut self.up) { Change::Down } else { Change::None };
        };
        let before = self.seen.replace(count);
        let was_up = std::mem::replace(&mut self.up, up);
        if before == Some(count) && was_up == up {
            Change::None
        } else if up && before.is_none() {
            Change::Found
        } else if up {
            Change::Up
        } else if was_up {
            Change::Down
        } else {
            Change::None
        }
    }

    /// Count and state as of one moment.
    fn read(&mut self) -> io::Result<(u64, bool)> {
        if self.files.is_none() {
            let open = |name: &str| File::open(self.directory.join(name));
            self.files = Some((open("carrier_changes")?, open("carrier")?));
        }
        let Some((changes, carrier)) = &self.files else { return Err(io::ErrorKind::NotFound.into()) };
        let mut count = number(changes)?;
        loop {
            // An interface that is administratively down has no carrier to read (EINVAL).
            let up = match number(carrier) {
                Ok(up) => up == 1,
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => false,
                Err(error) => return Err(error),
            };
            let again = number(changes)?;
            if again == count {
                return Ok((count, up));
            }
            count = again;
        }
    }
}

fn number(file: &File) -> io::Result<u64> {
    let mut text = [0; 24];
    let length = file.read_at(&mut text, 0)?;
    let text = text.get(..length).unwrap_or_default();
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or(io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn changes_are_told_once_and_short_ones_too() {
        let dir = tempfile::tempdir().unwrap();
        let net = dir.path().join("net");
        let set = |count: u64, up: u8| {
            fs::create_dir_all(&net).unwrap();
            fs::write(net.join("carrier_changes"), format!("{count}\n")).unwrap();
            fs::write(net.join("carrier"), format!("{up}\n")).unwrap();
        };
        let mut carrier = Carrier::new(net.clone());
        assert_eq!(carrier.look(), Change::None, "no interface yet");
        set(1, 0);
        assert_eq!(carrier.look(), Change::None);
        set(2, 1);
        assert_eq!(carrier.look(), Change::Up);
        assert_eq!(carrier.look(), Change::None);
        set(3, 0);
        assert_eq!(carrier.look(), Change::Down);
        assert_eq!(carrier.look(), Change::None);
        set(4, 1);
        assert_eq!(carrier.look(), Change::Up);
        set(6, 1);
        assert_eq!(carrier.look(), Change::Up, "down and up between two looks");
        assert_eq!(carrier.look(), Change::None);
        set(6, 0);
        let down = (0..=GLANCES).map(|_| carrier.look()).find(|change| *change != Change::None);
        assert_eq!(down, Some(Change::Down), "taken down by hand: the count is the same");
        set(6, 1);
        assert_eq!(Carrier::new(net).look(), Change::Found);
    }
}
