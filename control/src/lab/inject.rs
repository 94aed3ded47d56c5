//! Frames that no honest stack would send, put on an interface byte by byte.

use super::{Guest, Host, LabError, Process, World};
use std::fmt::Write as _;

/// An AF_PACKET socket in the one language that is on every Debian (perl-base is essential), so that neither unsafe
/// code nor a package is needed. Arguments: interface index, then each frame in hexadecimal.
const SEND: &str = r#"
socket(my $s, 17, 3, 0) or die "socket: $!";
my $to = pack("S n i S C C a8", 17, 0x0003, shift, 0, 0, 6, "");
for (@ARGV) { defined send($s, pack("H*", $_), 0, $to) or die "send: $!" }
"#;

/// The same with a virtio header in front of each frame (PACKET_VNET_HDR); tells for each frame, a line each, whether the
/// kernel took it.
const SEND_WITH_HEADER: &str = r#"
socket(my $s, 17, 3, 0) or die "socket: $!";
setsockopt($s, 263, 15, pack("i", 1)) or die "PACKET_VNET_HDR: $!";
my $to = pack("S n i S C C a8", 17, 0x0003, shift, 0, 0, 6, "");
for (@ARGV) { print defined send($s, pack("H*", $_), 0, $to) ? "taken\n" : "refused\n" }
"#;

/// The same frames over and over, as fast as the kernel takes them.
const FLOOD: &str = r#"
socket(my $s, 17, 3, 0) or die "socket: $!";
my $to = pack("S n i S C C a8", 17, 0x0003, shift, 0, 0, 6, "");
my @frames = map { pack("H*", $_) } @ARGV;
while (1) { for (@frames) { send($s, $_, 0, $to) } }
"#;

impl Guest {
    /// Sends frames, as they are, out of the guest's interface.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn send_frames(&self, frames: &[Vec<u8>]) -> Result<(), LabError> {
        self.run("perl", &borrowed(&self.script(SEND, frames)?)).map(drop)
    }

    /// Sends frames that each begin with a virtio header of 10 bytes, and tells which of them the guest's kernel took.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn send_with_headers(&self, frames: &[Vec<u8>]) -> Result<Vec<bool>, LabError> {
        let said = self.run("perl", &borrowed(&self.script(SEND_WITH_HEADER, frames)?))?;
        Ok(said.lines().map(|line| line == "taken").collect())
    }

    /// Sends frames without end, as fast as the guest can, until the process is dropped.
    ///
    /// # Errors
    /// As [`Guest::spawn`].
    pub fn flood(&self, frames: &[Vec<u8>]) -> Result<Process, LabError> {
        self.spawn("perl", &borrowed(&self.script(FLOOD, frames)?))
    }

    fn script(&self, script: &str, frames: &[Vec<u8>]) -> Result<Vec<String>, LabError> {
        Ok(arguments(script, &self.interface_file("ifindex")?, frames))
    }
}

impl Host {
    /// Sends frames, as they are, into the physical network.
    ///
    /// # Errors
    /// As [`World::run`].
    pub fn send_frames(&self, world: &World, frames: &[Vec<u8>]) -> Result<(), LabError> {
        let index = self.interface_file(world, "ifindex")?;
        world.run(Some(&self.name), "perl", &borrowed(&arguments(SEND, &index, frames))).map(drop)
    }

    /// Sends frames into the physical network without end, until the process is dropped.
    ///
    /// # Errors
    /// As [`World::spawn`].
    pub fn flood(&self, world: &World, frames: &[Vec<u8>]) -> Result<Process, LabError> {
        let index = self.interface_file(world, "ifindex")?;
        world.spawn(Some(&self.name), "perl", &borrowed(&arguments(FLOOD, &index, frames)))
    }

    /// The MAC address of its interface on the physical network.
    ///
    /// # Errors
    /// As [`World::run`].
    pub fn mac(&self, world: &World) -> Result<String, LabError> {
        self.interface_file(world, "address")
    }

    fn interface_file(&self, world: &World, file: &str) -> Result<String, LabError> {
        let path = format!("/sys/class/net/underlay/{file}");
        world.run(Some(&self.name), "cat", &[&path]).map(|text| text.trim().to_owned())
    }
}

fn arguments(script: &str, index: &str, frames: &[Vec<u8>]) -> Vec<String> {
    let head = ["-e", script, index].map(str::to_owned);
    head.into_iter().chain(frames.iter().map(|frame| hexadecimal(frame))).collect()
}

fn borrowed(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
