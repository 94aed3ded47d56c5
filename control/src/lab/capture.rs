//! tcpdump as a witness: captures an interface into a file, which is judged afterwards, here or by tshark.

use super::{LabError, Process, Record, World, read_pcap, wait_until};
use rustix::process::Signal;
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    thread,
    time::Duration,
};

/// A capture that is going on.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Process,
    inside: String,
    file: PathBuf,
}

impl Capture {
    /// Starts to capture `device` in namespace `netns`; returns when packets are really being captured. `filter` is in
    /// tcpdump's language, empty for everything.
    ///
    /// # Errors
    /// As [`World::spawn`]; `TimedOut` when tcpdump does not begin to listen.
    pub fn start(world: &World, netns: &str, device: &str, filter: &str) -> Result<Self, LabError> {
        let inside = format!("/run/lab/log/{netns}-{device}-{}.pcap", unique());
        let mut arguments = vec!["-i", device, "-n", "-U", "-Z", "root"];
        // In immediate mode each slot of the kernel's ring is as long as the longest packet to be kept: whole packets of
        // the physical network, and of a longer one that was never cut the headers and more.
        arguments.extend(["-s", "2048", "-B", "65536"]);
        arguments.extend(["--time-stamp-precision", "nano", "--immediate-mode", "-w", &inside]);
        if !filter.is_empty() {
            arguments.push(filter);
        }
        let mut tcpdump = world.spawn(Some(netns), "tcpdump", &arguments)?;
        wait_until(&format!("tcpdump on {netns}/{device}"), Duration::from_secs(20), || {
            if let Some(status) = tcpdump.ended() {
                let command = format!("tcpdump -i {device}");
                return Err(LabError::Failed { command, status, output: tcpdump.output() });
            }
            Ok(tcpdump.output().contains("listening on").then_some(()))
        })?;
        Ok(Self { tcpdump, file: world.outside(&inside), inside })
    }

    /// The file, as a path of the world (for tshark).
    #[must_use]
    pub fn inside(&self) -> &str {
        &self.inside
    }

    /// What has been captured so far.
    ///
    /// # Errors
    /// As [`read_pcap`].
    pub fn so_far(&self) -> Result<Vec<Record>, LabError> {
        read_pcap(&self.file)
    }

    /// Ends the capture and gives all of it.
    ///
    /// # Errors
    /// `TimedOut` when tcpdump does not end; `Unreadable` when the kernel dropped packets before tcpdump could take
    /// them, for then the capture proves nothing; as [`read_pcap`].
    pub fn stop(&mut self) -> Result<Vec<Record>, LabError> {
        if self.tcpdump.ended().is_none() {
            self.let_it_catch_up();
            self.tcpdump.signal(Signal::INT);
            self.tcpdump.wait(Duration::from_secs(20))?;
        }
        let output = self.tcpdump.output();
        let dropped = output.lines().find(|line| line.contains("dropped by kernel"));
        if dropped.is_some_and(|line| !line.starts_with("0 ")) {
            let why = "packets were lost before they could be captured".to_owned();
            return Err(LabError::Unreadable { command: "tcpdump".to_owned(), why, output });
        }
        self.so_far()
    }

    /// What waits in the kernel's ring when tcpdump is told to end is lost: waits until its file has stopped to grow, or
    /// for a second if it never does.
    fn let_it_catch_up(&self) {
        let size = || fs::metadata(&self.file).map_or(0, |file| file.len());
        for _ in 0..20 {
            let before = size();
            thread::sleep(Duration::from_millis(50));
            if size() == before {
                break;
            }
        }
    }
}

fn unique() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What a judge wants to know of an Ethernet frame. Written against the RFCs alone and independent of the switch's own
/// parsers, so that the two cannot be wrong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Source MAC.
    pub source_mac: [u8; 6],
    /// Destination MAC.
    pub destination_mac: [u8; 6],
    /// EtherType.
    pub ether_type: u16,
    /// Source address, of IPv4, IPv6 and ARP (the sender).
    pub source: Option<IpAddr>,
    /// Destination address, of IPv4, IPv6 and ARP (the target).
    pub destination: Option<IpAddr>,
    /// IP protocol.
    pub protocol: Option<u8>,
    /// UDP ports, source first, unless it is a later fragment.
    pub udp_ports: Option<(u16, u16)>,
    /// UDP payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Reads a frame; `None` when it is too short for its own headers.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (destination_mac, rest) = bytes.split_first_chunk::<6>()?;
        let (source_mac, rest) = rest.split_first_chunk::<6>()?;
        let (ether_type, rest) = rest.split_first_chunk::<2>()?;
        let mut frame = Self {
            source_mac: *source_mac,
            destination_mac: *destination_mac,
            ether_type: u16::from_be_bytes(*ether_type),
            source: None,
            destination: None,
            protocol: None,
            udp_ports: None,
            payload: Vec::new(),
        };
        match frame.ether_type {
            0x0800 => frame.read_ipv4(rest)?,
            0x86dd => frame.read_ipv6(rest)?,
            0x0806 => {
                frame.source = ipv4(rest, 14).map(IpAddr::V4);
                frame.destination = ipv4(rest, 24).map(IpAddr::V4);
            }
            _ => {}
        }
        Some(frame)
    }

    /// The VNI and the inner frame of a VXLAN (UDP 4789) or Geneve (UDP 6081) packet.
    #[must_use]
    pub fn inner(&self) -> Option<(u32, Self)> {
        let (_, port) = self.udp_ports?;
        let header = self.payload.first_chunk::<8>()?;
        let [first, _, _, _, a, b, c, _] = *header;
        let length = match port {
            4789 => 8,
            6081 => 8 + usize::from(first & 0x3f) * 4,
            _ => return None,
        };
        Some((u32::from_be_bytes([0, a, b, c]), Self::parse(self.payload.get(length..)?)?))
    }

    fn read_ipv4(&mut self, packet: &[u8]) -> Option<()> {
        self.source = ipv4(packet, 12).map(IpAddr::V4);
        self.destination = ipv4(packet, 16).map(IpAddr::V4);
        self.protocol = packet.get(9).copied();
        let fragment = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x1fff;
        if fragment == 0 {
            self.read_udp(packet.get(usize::from(packet.first()? & 15) * 4..)?);
        }
        Some(())
    }

    fn read_ipv6(&mut self, packet: &[u8]) -> Option<()> {
        let address = |at: usize| packet.get(at..)?.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets));
        self.source = address(8).map(IpAddr::V6);
        self.destination = address(24).map(IpAddr::V6);
        self.protocol = packet.get(6).copied();
        self.read_udp(packet.get(40..)?);
        Some(())
    }

    fn read_udp(&mut self, segment: &[u8]) {
        if let (Some(17), Some(([a, b, c, d, l, m, _, _], _))) =
            (self.protocol, segment.split_first_chunk::<8>())
        {
            self.udp_ports = Some((u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])));
            let length = usize::from(u16::from_be_bytes([*l, *m])).min(segment.len());
            self.payload = segment.get(8..length).unwrap_or_default().to_vec();
        }
    }
}

fn ipv4(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    bytes.get(at..)?.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp_in_ipv4(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        frame.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        let length = u16::try_from(payload.len() + 8).unwrap();
        for word in [ports.0, ports.1, length, 0] {
            frame.extend(word.to_be_bytes());
        }
        frame.extend(payload);
        frame
    }

    #[test]
    fn the_vni_and_the_inner_frame_of_vxlan_and_geneve_are_read() {
        let inner = udp_in_ipv4((1, 2), b"hello");
        let vxlan = [&[8, 0, 0, 0, 0, 0, 100, 0], inner.as_slice()].concat();
        let geneve = [&[1, 0, 0x65, 0x58, 0, 0, 200, 0, 9, 9, 9, 9], inner.as_slice()].concat();
        for (port, packet, vni) in [(4789, vxlan, 100), (6081, geneve, 200)] {
            let (found, inner) = Frame::parse(&udp_in_ipv4((50000, port), &packet)).unwrap().inner().unwrap();
            assert_eq!(
                (found, inner.payload.as_slice(), inner.udp_ports),
                (vni, &b"hello"[..], Some((1, 2)))
            );
            assert_eq!(inner.source, Some("10.0.0.1".parse().unwrap()));
        }
    }

    #[test]
    fn short_frames_are_no_frames() {
        let frame = udp_in_ipv4((1, 2), b"");
        assert_eq!(Frame::parse(frame.get(..13).unwrap()), None);
        assert_eq!(Frame::parse(frame.get(..20).unwrap()), None);
    }
}
