//! How much memory does an entry take, all told, and how much stays when all are removed?
//!
//! Not a time, so not criterion's: the process's resident memory (`/proc/self/statm`) before, with all entries (hosts and the
//! writer's books included), at its highest meanwhile, and after all but ten entries were removed.
//! `directory_memory/{ours/ipv4/1M,ours/ipv4/10M,ours/ipv6/1M,papaya/ipv4/10M,std/ipv4/10M}`.

#![expect(clippy::print_stdout, reason = "the result")]
#![expect(clippy::expect_used, reason = "a benchmark that cannot run should say so loudly")]

mod directory;

use std::collections::HashMap;
use std::fs;

use dataplane::directory::{DirectoryWriter, Engine, Entry};
use directory::{entry, entry_v6};
use foldhash::quality::RandomState;

/// Resident bytes now.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("Linux");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("pages") * 4096
}

/// The most that was resident since the last call.
fn highest() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a high-water mark");
    // "5" resets the mark; where that is not allowed the figure is the process's highest.
    let _ = fs::write("/proc/self/clear_refs", "5");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("KiB") * 1024
}

fn print(name: &str, count: u64, before: u64, full: u64, peak: u64, after: u64) {
    println!(
        "directory_memory/{name}: {:.1} bytes an entry, {:.1} at the highest; {} KiB left after removal",
        full.saturating_sub(before) as f64 / count as f64,
        peak.saturating_sub(before) as f64 / count as f64,
        after.saturating_sub(before) / 1024
    );
}

fn ours(name: &str, count: usize, announced: bool, entry: fn(usize) -> Entry) {
    highest();
    let before = resident();
    let (writer, mut readers) = DirectoryWriter::on(Engine::Slots, 0x5eed, 1);
    if announced {
        writer.extend((0..count).map(entry)).expect("hosts are few");
    } else {
        for Entry { vni, ip, location } in (0..count).map(entry) {
            writer.set(vni, ip, location).expect("hosts are few");
            // A worker at work: it does not keep old tables.
            readers.iter_mut().for_each(dataplane::directory::DirectoryReader::refresh);
        }
    }
    readers.iter_mut().for_each(dataplane::directory::DirectoryReader::refresh);
    let Entry { vni, ip, location } = entry(0);
    writer.set(vni, ip, location).expect("hosts are few");
    let (full, peak) = (resident(), highest());
    for Entry { vni, ip, .. } in (10..count).map(entry) {
        writer.remove(vni, ip);
        readers.iter_mut().for_each(dataplane::directory::DirectoryReader::refresh);
    }
    writer.set(vni, ip, location).expect("hosts are few");
    print(name, count as u64, before, full, peak, resident());
}

fn main() {
    ours("ours/ipv4/1M", 1_000_000, true, entry);
    ours("ours/ipv4/10M", 10_000_000, true, entry);
    ours("ours/ipv4/10M/one_by_one", 10_000_000, false, entry);
    ours("ours/ipv6/1M", 1_000_000, true, entry_v6);

    highest();
    let before = resident();
    let map = papaya::HashMap::with_hasher(RandomState::default());
    for entry in (0..10_000_000).map(entry) {
        map.pin().insert((entry.vni, entry.ip), entry.location);
    }
    let (full, peak) = (resident(), highest());
    for entry in (10..10_000_000).map(entry) {
        map.pin().remove(&(entry.vni, entry.ip));
    }
    print("papaya/ipv4/10M", 10_000_000, before, full, peak, resident());
    drop(map);

    highest();
    let before = resident();
    let mut map = HashMap::with_hasher(RandomState::default());
    for entry in (0..10_000_000).map(entry) {
        map.insert((entry.vni, entry.ip), entry.location);
    }
    let (full, peak) = (resident(), highest());
    for entry in (10..10_000_000).map(entry) {
        map.remove(&(entry.vni, entry.ip));
    }
    print("std/ipv4/10M", 10_000_000, before, full, peak, resident());
}
