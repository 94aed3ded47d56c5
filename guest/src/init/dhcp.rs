//! The guest's DHCP client: busybox's udhcpc, and the script that does with a lease what has to be done.
//!
//! Where `ip` is iproute2's, one process sets everything, because each costs milliseconds between the lease and the first
//! packet; busybox's is called for each line.

use super::InitError;
use std::{fs, os::unix::fs::PermissionsExt, process::Command};

/// udhcpc's process id.
pub(super) const PID_FILE: &str = "/run/shunt/udhcpc.pid";
/// Exists while there is a lease; see the agent's `--lease-file`.
pub(super) const LEASE_FILE: &str = "/run/shunt/lease";
const SCRIPT_FILE: &str = "/run/shunt/dhcp";

/// Classless routes (RFC 3442) replace the router option where they are given; a router of 0.0.0.0 means on link.
/// `onlink`: a gateway need not be within a /32.
const SCRIPT: &str = r#"case "$1" in
deconfig)
  rm -f /run/shunt/lease
  printf 'address flush dev %s\nlink set dev %s up\n' "$interface" "$interface" | apply ;;
bound|renew)
  {
    [ -z "$mtu" ] || echo "link set dev $interface mtu $mtu"
    echo "address replace $ip/${mask:-32} dev $interface"
    if [ -n "$staticroutes" ]; then
      set -- $staticroutes
      while [ $# -ge 2 ]; do
        case "$2" in
        0.0.0.0) echo "route replace $1 dev $interface" ;;
        *) echo "route replace $1 via $2 dev $interface onlink" ;;
        esac
        shift 2
      done
    else
      for gateway in $router; do echo "route replace default via $gateway dev $interface onlink"; break; done
    fi
  } | apply
  {
    [ -z "$domain" ] || echo "search $domain"
    for server in $dns; do echo "nameserver $server"; done
  } > /etc/resolv.conf
  echo "$ip" > /run/shunt/lease ;;
esac
"#;

/// Whose `ip` a guest has.
#[derive(Debug, Clone, Copy)]
pub(super) enum IpProgram {
    /// It takes all lines at once.
    Iproute2,
    /// It takes one at a time.
    Busybox,
}

impl IpProgram {
    /// The script's function that does what its input says.
    const fn apply(self) -> &'static str {
        match self {
            Self::Iproute2 => "apply() { ip -4 -force -batch -; }",
            Self::Busybox => "apply() { while read -r line; do ip -4 $line; done; }",
        }
    }
}

/// Writes the script.
pub(super) fn write_script(ip: IpProgram) -> Result<(), InitError> {
    fs::write(SCRIPT_FILE, format!("#!/bin/sh\n{}\n{SCRIPT}", ip.apply()))
        .and_then(|()| fs::set_permissions(SCRIPT_FILE, fs::Permissions::from_mode(0o755)))
        .map_err(InitError::file("write", SCRIPT_FILE))
}

/// The client for `interface`, in the foreground, asking once a second for ever.
pub(super) fn command(interface: &str) -> Command {
    let mut command = Command::new("udhcpc");
    command.args(["-f", "-i", interface, "-s", SCRIPT_FILE, "-p", PID_FILE]);
    command.args(["-t", "10", "-T", "1", "-A", "1", "-O", "mtu", "-O", "staticroutes"]);
    command
}
