//! PID 1 of a virtual machine whose kernel was started with an initial file system and nothing else, such as the image
//! `tiny`: it mounts the kernel's file systems, loads the drivers that the image names, and then is what every PID 1 of ours
//! is. It obeys the machine's power button.
//!
//! Never here: discs, consoles to log in at, any other service.

use super::{
    InitError, PROGRAM, dhcp,
    supervise::{Programs, end_all, raise, supervise, wait_for_interface},
};
use crate::log::say;
use clap::Args;
use rustix::{
    mount::{MountFlags, mount},
    system::{RebootCommand, finit_module, reboot, sethostname},
};
use std::{
    fs,
    io::{self, Read},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    thread,
};

/// Names the drivers, one file a line, in the order in which they are loaded.
const DRIVERS: &str = "/etc/shunt/drivers";

#[derive(Debug, Args)]
pub(crate) struct MachineOptions {
    /// The machine's interface; it is waited for.
    #[arg(long, default_value = "eth0", value_name = "NAME")]
    interface: String,
    /// Machine name until a configuration gives another one.
    #[arg(long, default_value = "localhost", value_name = "NAME")]
    hostname: String,
    /// Options for the agent, as one word each.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    agent_option: Vec<String>,
}

/// Is process 1 until the power button is pressed.
pub(crate) fn run(options: &MachineOptions) -> Result<(), InitError> {
    if std::process::id() != 1 {
        return Err(InitError::NotFirst(std::process::id()));
    }
    // A process 1 that ends has its kernel panic, and what went wrong scrolls away: the machine is switched off instead.
    if let Err(error) = prepare(options) {
        say(format_args!("{error}"));
        switch_off();
    }
    thread::spawn(obey);
    wait_for_interface(&options.interface);
    raise(&options.interface);
    let MachineOptions { interface, agent_option, .. } = options;
    supervise(&Programs { interface, prefix: &[], agent_options: agent_option })
}

fn prepare(options: &MachineOptions) -> Result<(), InitError> {
    let hardened = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    for (kind, target, flags, mode) in [
        ("proc", "/proc", hardened, None),
        ("sysfs", "/sys", hardened, None),
        ("devtmpfs", "/dev", MountFlags::NOSUID | MountFlags::NOEXEC, Some(c"mode=755")),
        ("tmpfs", "/run", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=755,size=10%")),
        ("tmpfs", "/tmp", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=1777,size=25%")),
    ] {
        fs::create_dir_all(target).map_err(InitError::file("make", target))?;
        mount("shunt", target, kind, flags, mode)
            .map_err(|errno| InitError::file("mount", target)(errno.into()))?;
    }
    drivers()?;
    sethostname(options.hostname.as_bytes()).map_err(InitError::call("set the host name"))?;
    fs::create_dir("/run/shunt").map_err(InitError::file("make", "/run/shunt"))?;
    symlink("/proc/1/exe", PROGRAM).map_err(InitError::file("link", PROGRAM))?;
    dhcp::write_script(dhcp::IpProgram::Busybox)
}

/// Loads what the image names. One that is not there, or does not fit, is told and passed over: the machine may do without.
fn drivers() -> Result<(), InitError> {
    let names = match fs::read_to_string(DRIVERS) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(InitError::file("read", DRIVERS)(error)),
    };
    for name in names.lines().filter(|name| !name.is_empty()) {
        let loaded = fs::File::open(name).and_then(|file| Ok(finit_module(&file, c"", 0)?));
        if let Err(error) = loaded {
            say(format_args!("cannot load {name}: {error}"));
        }
    }
    Ok(())
}

/// Waits for the power button, and switches off. The button is one of the machine's input devices, which need a moment to
/// appear; without any the machine can only be switched off from outside.
fn obey() {
    let mut watched = 0;
    for device in buttons() {
        watched += 1;
        thread::spawn(move || {
            if is_pressed(&device) {
                end_all();
                switch_off();
            }
        });
    }
    if watched == 0 {
        say(format_args!("this machine has no power button"));
    }
}

/// The input devices that call themselves a power button.
fn buttons() -> Vec<PathBuf> {
    let entries = fs::read_dir("/sys/class/input").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let is_button = |name: &String| {
        let told = fs::read_to_string(format!("/sys/class/input/{name}/device/name"));
        name.starts_with("event") && told.is_ok_and(|told| told.trim() == "Power Button")
    };
    names.filter(is_button).map(|name| Path::new("/dev/input").join(name)).collect()
}

/// `struct input_event`: two words of time, then type, code and value.
const EVENT: usize = 2 * size_of::<usize>() + 8;
const KEY: u16 = 1;
const POWER: u16 = 116;

/// Returns with the first press.
fn is_pressed(device: &Path) -> bool {
    let Ok(mut device) = fs::File::open(device) else { return false };
    let mut event = [0; EVENT];
    while device.read_exact(&mut event).is_ok() {
        let [.., t0, t1, c0, c1, v0, v1, v2, v3] = event;
        let value = i32::from_ne_bytes([v0, v1, v2, v3]);
        if (u16::from_ne_bytes([t0, t1]), u16::from_ne_bytes([c0, c1]), value) == (KEY, POWER, 1) {
            return true;
        }
    }
    false
}

fn switch_off() -> ! {
    rustix::fs::sync();
    let _ = reboot(RebootCommand::PowerOff);
    // Nobody may do that to a machine but its process 1.
    std::process::exit(1);
}
