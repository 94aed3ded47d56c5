//! Frames that no honest stack would send, put on a guest's interface byte by byte.

use super::{Guest, LabError};
use std::fmt::Write as _;

/// An AF_PACKET socket in the one language that is on every Debian (perl-base is essential), so that neither unsafe
/// code nor a package is needed. Arguments: interface index, then each frame in hexadecimal.
const SEND: &str = r#"
socket(my $s, 17, 3, 0) or die "socket: $!";
my $to = pack("S n i S C C a8", 17, 0x0003, shift, 0, 0, 6, "");
for (@ARGV) { defined send($s, pack("H*", $_), 0, $to) or die "send: $!" }
"#;

impl Guest {
    /// Sends frames, as they are, out of the guest's interface.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn send_frames(&self, frames: &[Vec<u8>]) -> Result<(), LabError> {
        let index = self.interface_file("ifindex")?;
        let frames: Vec<String> = frames.iter().map(|frame| hexadecimal(frame)).collect();
        let mut arguments = vec!["-e", SEND, &index];
        arguments.extend(frames.iter().map(String::as_str));
        self.run("perl", &arguments).map(drop)
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
