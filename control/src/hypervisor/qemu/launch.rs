//! QEMU's command line, and its start.
//!
//! ```text
//! nsenter (the machine's network namespace) ── sh ─┬─ qemu-system-x86_64, as a user of its own
//!                                                  └─ the log's keeper: the last one or two MiB, however much is said
//! ```
//!
//! All of it goes on when the host agent ends.

use super::{
    super::{HypervisorError, VmSpec, kept, path},
    PROGRAM,
    home::Home,
    probe::Accelerator,
};
use std::{ffi::OsString, process::Stdio};
use tokio::process::{Child, Command};

/// The name of the machine's interface, for the monitor.
pub(super) const NIC: &str = "nic0";
/// A log is put aside when it has so many bytes.
const LOG_BYTES: u32 = 1 << 20;

/// Starts the machine. What is returned ends when QEMU has; somebody has to wait for it.
pub(super) fn launch(home: &Home, spec: &VmSpec, accelerator: Accelerator) -> Result<Child, HypervisorError> {
    // QEMU's words are arguments, never part of the script.
    let script = format!(
        "\"$@\" 2>&1 </dev/null | while \
            dd bs=4096 count={LOG_BYTES} iflag=count_bytes status=none of=log && [ \"$(stat -c %s log)\" -ge {LOG_BYTES} ]; \
            do mv log log.1; done"
    );
    let mut command = Command::new("nsenter");
    command
        .args([&format!("--net=/run/netns/{}", spec.port), "--", "sh", "-c", &script, "sh", PROGRAM])
        .args(words(spec, accelerator))
        // The monitor's socket has a relative name: the kernel takes no more than 107 bytes of one.
        .current_dir(home.path())
        .env_clear()
        .env("PATH", path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C in a terminal is for the host agent, not for its machines, which outlive it.
        .process_group(0);
    let failed = |error: std::io::Error| HypervisorError::Program {
        command: PROGRAM.to_owned(),
        output: error.to_string(),
    };
    command.spawn().map_err(failed)
}

/// QEMU's arguments.
fn words(spec: &VmSpec, accelerator: Accelerator) -> Vec<OsString> {
    let VmSpec { vm, port, hostname, image: _, mac, vcpus, memory_mib } = spec;
    let (vcpus, memory) = (vcpus.max(&1), memory_mib.max(&LEAST_MEMORY_MIB));
    let mut words: Vec<String> = Vec::new();
    let mut add = |option: &str, value: String| words.extend([format!("-{option}"), value]);
    add("name", format!("guest={port}"));
    add("uuid", vm.uuid().to_string());
    add("machine", format!("pc,accel={},usb=off,vmport=off", accelerator.name()));
    add("cpu", accelerator.processor().into());
    add("smp", vcpus.to_string());
    add("m", memory.to_string());
    add("display", "none".into());
    add(
        "smbios",
        format!("type=1,manufacturer=Shunt,product=Virtual Machine,serial={0},uuid={0}", vm.uuid()),
    );
    add("smbios", format!("type=3,manufacturer=Shunt,asset={ASSET}"));
    add("kernel", "image/kernel".into());
    add("initrd", "image/initramfs".into());
    add("append", format!("console=ttyS0 quiet panic=-1 rdinit=/init -- boot --hostname {hostname}"));
    add("chardev", "stdio,id=serial,signal=off".into());
    add("serial", "chardev:serial".into());
    add("qmp", "unix:qmp,server=on,wait=off".into());
    add("pidfile", "pid".into());
    add("netdev", format!("tap,id=net0,ifname={port},script=no,downscript=no"));
    add("device", format!("virtio-net-pci,id={NIC},netdev=net0,mac={mac},romfile="));
    // A QEMU that its guest has taken over starts no program, and is nobody on the host.
    add("sandbox", "on,obsolete=deny,spawn=deny,resourcecontrol=deny".into());
    if kept::maps_ranges() {
        let id = kept::first_id(*vm);
        add("runas", format!("{id}:{id}"));
    }
    // A machine that reboots ends, and its host starts it anew: another life, with another boot id.
    words.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(String::from));
    words.into_iter().map(OsString::from).collect()
}

/// The chassis asset tag by which images that know this provisioning protocol recognise where they are.
const ASSET: &str = "7783-7084-3265-9085-8269-3286-77";
/// A kernel and its initial file system need this much, whatever a machine is sold as.
const LEAST_MEMORY_MIB: u32 = 96;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::VmId;

    #[test]
    fn a_machine_has_the_size_and_the_identity_that_it_was_made_with() {
        let spec = VmSpec {
            vm: VmId::fixed(7),
            port: "web-1".into(),
            hostname: "pool-1".into(),
            image: "tiny".parse().unwrap(),
            mac: "02:00:00:00:00:05".parse().unwrap(),
            vcpus: 2,
            memory_mib: 512,
        };
        let words = |accelerator| {
            let words = super::words(&spec, accelerator);
            words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
        };
        let line = words(Accelerator::Tcg);
        let uuid = spec.vm.uuid().to_string();
        for part in [
            "-smp 2 -m 512 ",
            &format!("-uuid {uuid} "),
            &format!("serial={uuid},uuid={uuid} "),
            "asset=7783-7084-3265-9085-8269-3286-77 ",
            "accel=tcg,",
            "-cpu qemu64,+rdrand ",
            "ifname=web-1,",
            "mac=02:00:00:00:00:05,",
            "-- boot --hostname pool-1 ",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert!(words(Accelerator::Kvm).contains("accel=kvm,usb=off,vmport=off -cpu host "));
    }
}
