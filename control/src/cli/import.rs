//! A file of directory entries: read by all processors, sent in parts, committed as one.
//!
//! Never here: what a switch does with them.

mod line;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::thread;

use dataplane::ctl::protocol::{Counted, Packed};
use dataplane::ctl::{Client, Request};
use dataplane::switch::Mapping;

use super::failure::Failure;

/// Entries sent in one request.
const TOGETHER: usize = 50_000;
/// Where nobody looks at a terminal, progress is a line for so many entries.
const LINE_EVERY: usize = 200_000;

/// All entries of a text, in order, in a part for each processor.
///
/// # Errors
/// The first line that is none.
pub(super) fn parse(text: &str, file: &Path) -> Result<Vec<Vec<Mapping>>, Failure> {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let parts = parts(text, processors);
    let parsed: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = parts.iter().map(|part| scope.spawn(|| parse_part(part))).collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    let mut entries = Vec::with_capacity(parsed.len());
    let mut lines_before = 0;
    for (parsed, part) in parsed.into_iter().zip(parts) {
        let parsed = parsed.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        entries.push(parsed.map_err(|(lines, what)| {
            let place = format!("{}, line {}", file.display(), lines_before + lines);
            Failure::usage(what, place, "correct the line; nothing was imported")
        })?);
        lines_before += part.bytes().filter(|byte| *byte == b'\n').count();
    }
    Ok(entries)
}

/// Cuts a text behind line ends into about `count` parts of about the same size.
fn parts(text: &str, count: usize) -> Vec<&str> {
    let size = text.len().div_ceil(count.max(1)).max(1);
    let (mut parts, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let end = rest.as_bytes().iter().skip(size - 1).position(|byte| *byte == b'\n');
        // A line's end is a character's end.
        let (part, after) =
            rest.split_at_checked(end.map_or(rest.len(), |end| end + size)).unwrap_or((rest, ""));
        parts.push(part);
        rest = after;
    }
    parts
}

/// # Errors
/// The number of the first line that is no entry, counted from the part's first, and what is wrong with it.
fn parse_part(part: &str) -> Result<Vec<Mapping>, (usize, String)> {
    let mut entries = Vec::with_capacity(part.len() / 90);
    for (number, line) in (1_usize..).zip(part.lines()) {
        if !line.trim().is_empty() {
            entries.push(line::entry(line).map_err(|what| (number, what))?);
        }
    }
    Ok(entries)
}

/// Sends entries, and has the switch take them all at once.
///
/// # Errors
/// What the switch refuses; its directory is then as it was.
pub(super) fn send(client: &mut Client, parts: Vec<Vec<Mapping>>) -> Result<Counted, Failure> {
    let mut progress = Progress::new(parts.iter().map(Vec::len).sum());
    for part in parts {
        for together in part.chunks(TOGETHER) {
            let packed = Packed(together.to_vec());
            let staged: Counted = client.call(&Request::DirectoryStage { entries: vec![], packed })?;
            progress.tell(staged.entries);
        }
    }
    progress.commit();
    let committed = client.call(&Request::DirectoryCommit {});
    progress.end();
    Ok(committed?)
}

/// How far an import is, for somebody who watches. A courtesy: a terminal that goes away does not stop the import.
struct Progress {
    of: usize,
    told: usize,
    terminal: bool,
}

impl Progress {
    fn new(of: usize) -> Self {
        Self { of, told: 0, terminal: io::stderr().is_terminal() }
    }

    fn tell(&mut self, sent: usize) {
        if self.terminal && self.of > TOGETHER {
            let _ = write!(io::stderr(), "\rsent {sent} of {} entries", self.of);
            self.told = sent;
        } else if !self.terminal && sent / LINE_EVERY > self.told / LINE_EVERY {
            let _ = writeln!(io::stderr(), "sent {sent} of {} entries", self.of);
            self.told = sent;
        }
    }

    fn commit(&self) {
        if self.told > 0 && self.terminal {
            let _ = write!(io::stderr(), "\rsent {} of {} entries, waiting for the disk", self.told, self.of);
        }
    }

    fn end(&self) {
        if self.told > 0 && self.terminal {
            let _ = writeln!(io::stderr());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: usize) -> String {
        (0..lines)
            .map(|n| match n % 3 {
                0 => String::from("\n"),
                1 => String::from("  \r\n"),
                _ => format!(
                    "{{\"network\":7,\"ip\":\"10.0.{}.{}\",\"mac\":\"02:00:00:00:00:07\",\"physical_ip\":\"192.0.2.2\"}}\n",
                    n / 250,
                    n % 250
                ),
            })
            .collect()
    }

    #[test]
    fn parts_are_whole_lines_and_together_the_text() {
        let text = format!("{}é", text(100));
        for count in [1, 2, 3, 7, 50, 1000] {
            let parts = parts(&text, count);
            assert_eq!(parts.concat(), text);
            assert!(parts.len() <= count && parts.iter().rev().skip(1).all(|part| part.ends_with('\n')));
        }
        assert_eq!(parts("", 4), Vec::<&str>::new());
    }

    #[test]
    fn all_entries_come_in_order_and_a_wrong_line_by_its_number() {
        let file = Path::new("f");
        let good = text(300);
        let entries = parse(&good, file).unwrap().concat();
        assert_eq!(entries.len(), 100);
        assert!(entries.is_sorted_by_key(|entry| entry.ip));
        for wrong in [2, 101, 299] {
            let lines = good.lines().enumerate().map(|(n, line)| {
                if n == wrong || n == 299 { "{\"network\":0}\n".to_owned() } else { format!("{line}\n") }
            });
            let failure = parse(&lines.collect::<String>(), file).unwrap_err();
            let said = format!("{failure:?}");
            assert!(said.contains(&format!("\"f, line {}\"", wrong + 1)), "{said}");
        }
    }
}
