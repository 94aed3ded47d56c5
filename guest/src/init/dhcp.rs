//! The guest's DHCP client: busybox's udhcpc, and the script that does with a lease what has to be done.
//!
//! One `ip` process sets everything, because each process costs milliseconds between the lease and the first packet.

use super::InitError;
use std::{fs, os::unix::fs::PermissionsExt, process::Command};

/// udhcpc's process id.
pub(super) const PID_FILE: &str = "/run/shunt/udhcpc.pid";
/// Exists while there is a lease; see the agent's `--lease-file`.
pub(super) const LEASE_FILE: &str = "/run/shunt/lease";
const SCRIPT_FILE: &str = "/run/shunt/dhcp";

/// Classless routes (RFC 3442) replace the router option where they are given; a router of 0.0.0.0 means on link.
/// `onlink`: a gateway need not be within a /32.
const SCRIPT: &str = r#"#!/bin/sh
case "$1" in
deconfig)
  rm -f /run/shunt/lease
  printf 'address flush dev %s\nlink set dev %s up\n' "$interface" "$interface" | ip -4 -force -batch - ;;
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
  } | ip -4 -force -batch -
  {
    [ -z "$domain" ] || echo "search $domain"
    for server in $dns; do echo "nameserver $server"; done
  } > /etc/resolv.conf
  echo "$ip" > /run/shunt/lease ;;
esac
"#;

/// Writes the script.
pub(super) fn write_script() -> Result<(), InitError> {
    fs::write(SCRIPT_FILE, SCRIPT)
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
