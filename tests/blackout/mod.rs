//! Traffic that goes on while a switch is restarted, and what was lost of it: UDP at a steady rate with numbered
//! datagrams, and a TCP stream, both from one guest to another. The programs run in the guests; this process only reads.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::fmt;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use control::lab::{Guest, World, enter_netns};

/// How often the guest's link has gone or come.
pub(crate) fn carrier_changes(guest: &Guest) -> u64 {
    let file = format!("/sys/class/net/{}/carrier_changes", guest.name());
    guest.run("cat", &[&file]).unwrap().trim().parse().unwrap()
}

/// What was seen.
#[derive(Debug)]
pub(crate) struct Report {
    /// Datagrams a second that really left.
    pub(crate) rate: f64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Of each gap in the numbers: datagrams that are missing, and milliseconds without any.
    pub(crate) gaps: Vec<(u64, f64)>,
    pub(crate) tcp_alive: bool,
    pub(crate) tcp_bytes: u64,
}

impl Report {
    /// The `nth` of a hundred, by packets and by time.
    pub(crate) fn percentile(&self, nth: usize) -> (u64, f64) {
        let mut packets: Vec<u64> = self.gaps.iter().map(|gap| gap.0).collect();
        let mut times: Vec<f64> = self.gaps.iter().map(|gap| gap.1).collect();
        packets.sort_unstable();
        times.sort_by(f64::total_cmp);
        let at = |length: usize| (length * nth / 100).min(length.saturating_sub(1));
        (
            packets.get(at(packets.len())).copied().unwrap_or(0),
            times.get(at(times.len())).copied().unwrap_or(0.0),
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((p50, ms50), (p99, ms99)) = (self.percentile(50), self.percentile(99));
        write!(
            f,
            "{:.0} packets/s sent, {} of {} arrived; gaps: {}, p50 {p50} packets / {ms50:.1} ms, p99 {p99} packets / {ms99:.1} ms; TCP {} ({} bytes)",
            self.rate,
            self.received,
            self.sent,
            self.gaps.len(),
            if self.tcp_alive { "alive" } else { "dead" },
            self.tcp_bytes,
        )
    }
}

/// Running traffic.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    tcp_bytes: Arc<AtomicU64>,
    sender: JoinHandle<(u64, f64)>,
    receiver: JoinHandle<Vec<(u64, f64)>>,
    tcp: [JoinHandle<bool>; 2],
}

const PORT: u16 = 9000;

/// A thread inside of a guest's namespace.
fn inside<T: Send + 'static>(
    world: &Arc<World>,
    guest: &Guest,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let (world, netns) = (Arc::clone(world), guest.name().to_owned());
    thread::spawn(move || {
        enter_netns(&world, &netns).unwrap();
        drop(world);
        work()
    })
}

impl Load {
    /// Sends `rate` datagrams a second, or as many as this machine manages.
    pub(crate) fn start(
        world: &Arc<World>,
        (from, to): (&Guest, &Guest),
        address: Ipv4Addr,
        rate: u64,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (received, tcp_bytes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let ready = Arc::new(std::sync::Barrier::new(3));
        let receiver = inside(world, to, {
            let (stop, received, ready) = (stop.clone(), received.clone(), ready.clone());
            move || {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
                ready.wait();
                let (mut gaps, mut expected, mut last) = (Vec::new(), 0, Instant::now());
                let mut datagram = [0; 64];
                while !stop.load(Ordering::Relaxed) {
                    let Ok(8..) = socket.recv(&mut datagram) else { continue };
                    let number = datagram.first_chunk().copied().map(u64::from_be_bytes).unwrap();
                    if number > expected && expected > 0 {
                        gaps.push((number - expected, last.elapsed().as_secs_f64() * 1000.0));
                    }
                    expected = expected.max(number + 1);
                    last = Instant::now();
                    received.fetch_add(1, Ordering::Relaxed);
                }
                gaps
            }
        });
        let server = inside(world, to, {
            let (stop, bytes, ready) = (stop.clone(), tcp_bytes.clone(), ready.clone());
            move || {
                let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap();
                ready.wait();
                let (mut stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
                let mut buffer = vec![0; 1 << 16];
                while !stop.load(Ordering::Relaxed) {
                    match stream.read(&mut buffer) {
                        // The other end may see the signal to stop first.
                        Ok(0) => return stop.load(Ordering::Relaxed),
                        Ok(read) => {
                            bytes.fetch_add(read as u64, Ordering::Relaxed);
                        }
                        Err(error) if is_timeout(&error) => {}
                        Err(_) => return stop.load(Ordering::Relaxed),
                    }
                }
                true
            }
        });
        ready.wait();
        let sender = inside(world, from, {
            let stop = stop.clone();
            move || {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
                let (begun, mut sent) = (Instant::now(), 0_u64);
                while !stop.load(Ordering::Relaxed) {
                    let due = u64::try_from(begun.elapsed().as_micros()).unwrap() * rate / 1_000_000;
                    // A machine that is late does not send all that it owes at once.
                    for _ in 0..due.saturating_sub(sent).min(64) {
                        // A full queue refuses: then the datagram is lost, and counted so by its number.
                        let _ = socket.send_to(&sent.to_be_bytes(), (address, PORT));
                        sent += 1;
                    }
                    thread::sleep(Duration::from_micros(200));
                }
                (sent, begun.elapsed().as_secs_f64())
            }
        });
        let client = inside(world, from, {
            let stop = stop.clone();
            move || {
                let mut stream = TcpStream::connect((address, PORT)).unwrap();
                stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
                let chunk = vec![7; 8192];
                let mut written = 0;
                while !stop.load(Ordering::Relaxed) {
                    match stream.write(&chunk) {
                        Ok(some) => written += some,
                        Err(error) if is_timeout(&error) => {}
                        Err(_) => return stop.load(Ordering::Relaxed),
                    }
                    // A stream, not a flood: the machine is to have time for the datagrams.
                    thread::sleep(Duration::from_millis(2));
                }
                written > 0
            }
        });
        let load = Self { stop, received, tcp_bytes, sender, receiver, tcp: [server, client] };
        load.wait_for_progress();
        load
    }

    /// Waits until both kinds of traffic arrive (again).
    pub(crate) fn wait_for_progress(&self) {
        let seen = || (self.received.load(Ordering::Relaxed), self.tcp_bytes.load(Ordering::Relaxed));
        let before = seen();
        crate::scene::until("datagrams and a stream to arrive", || {
            let now = seen();
            now.0 > before.0 + 100 && now.1 > before.1
        });
    }

    pub(crate) fn end(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let (sent, seconds) = self.sender.join().unwrap();
        let gaps = self.receiver.join().unwrap();
        let alive = self.tcp.map(|end| end.join().unwrap());
        Report {
            rate: sent as f64 / seconds,
            sent,
            received: self.received.load(Ordering::Relaxed),
            gaps,
            tcp_alive: alive == [true, true],
            tcp_bytes: self.tcp_bytes.load(Ordering::Relaxed),
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}
