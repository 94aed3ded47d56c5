//! Batches of frames through the pipeline, timed.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use criterion::{Criterion, Throughput};
use dataplane::directory::{DirectoryReader, DirectoryWriter, Entry, Location};
use dataplane::packet::{Buffer, Packet};
use dataplane::pipeline::{BATCH, Verdict, Verdicts};
use dataplane::types::{MacAddr, PhysicalIp};

use crate::{Field, NETWORK, print_median, stranger, with_address};

/// Entries of [`directory`].
pub const ENTRIES: u32 = 1_000_000;

/// A million stations, spread over 250 hosts.
///
/// # Panics
/// Never: there is room for so many.
#[must_use]
pub fn directory() -> (DirectoryWriter, DirectoryReader) {
    let (writer, mut readers) = DirectoryWriter::new(0x5eed, 1);
    let entry = |number: u32| {
        let [_, a, b, c] = number.to_be_bytes();
        let physical_ip = PhysicalIp::from(Ipv4Addr::new(192, 0, 2, 2 + u8::try_from(number % 250).unwrap()));
        Entry {
            vni: *NETWORK,
            ip: stranger(number).into(),
            location: Location { physical_ip, mac: MacAddr([2, 1, 0, a, b, c]), version: 1 },
        }
    };
    writer.extend((0..ENTRIES).map(entry)).unwrap();
    let mut reader = readers.pop().unwrap();
    reader.refresh();
    (writer, reader)
}

/// What is sent, and what it is called.
#[derive(Debug, Clone, Copy)]
pub struct Walk<'a> {
    /// The question.
    pub group: &'a str,
    /// The case.
    pub name: &'a str,
    /// A frame, or a tunnel packet.
    pub template: &'a [u8],
    /// Where its (inner) IPv4 header begins.
    pub ip_at: usize,
    /// Which of its addresses is another in each packet.
    pub field: Field,
}

impl Walk<'_> {
    /// Runs `handle` on batches of the template with addresses that `address` gives, and times nothing else.
    ///
    /// # Panics
    /// When a verdict is not as expected.
    pub fn measure(
        &self,
        criterion: &mut Criterion,
        mut address: impl FnMut() -> Ipv4Addr,
        mut handle: impl FnMut(&mut [Packet<'_>], &mut Verdicts),
        expected: fn(&Verdict) -> bool,
    ) {
        let mut buffers: Vec<_> = (0..BATCH).map(|_| Buffer::new()).collect();
        let mut verdicts = Verdicts::new();
        let mut template = self.template.to_vec();
        let mut batches_ns = Vec::new();
        let mut group = criterion.benchmark_group(self.group);
        group.throughput(Throughput::Elements(BATCH as u64));
        group.bench_function(self.name, |bencher| {
            bencher.iter_custom(|batches| {
                let mut spent = Duration::ZERO;
                for _ in 0..batches {
                    let mut packets: ArrayVec<Packet<'_>, BATCH> = buffers
                        .iter_mut()
                        .map(|buffer| {
                            with_address(&mut template, self.ip_at, self.field, address());
                            buffer.load(&template)
                        })
                        .collect();
                    let began = Instant::now();
                    handle(&mut packets, &mut verdicts);
                    let elapsed = began.elapsed();
                    batches_ns.push(u32::try_from(elapsed.as_nanos()).unwrap_or(u32::MAX));
                    spent += elapsed;
                    assert!(verdicts.iter().all(expected), "{:?}", verdicts.first());
                }
                spent
            });
        });
        group.finish();
        print_median(self.group, self.name, batches_ns);
    }
}
