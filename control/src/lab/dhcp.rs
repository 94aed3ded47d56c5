//! Real DHCP clients, kept from harming the machine: each has its own script, lease file and `resolv.conf`, in a
//! directory of the world's tmpfs.

use super::{LabError, Process, Tool, World};
use std::{fs, net::Ipv4Addr};

/// Which DHCP client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// busybox
    Udhcpc,
    /// ISC
    Dhclient,
    /// Roy Marples; watches the link itself.
    Dhcpcd,
    /// systemd; watches the link itself.
    Networkd,
}

impl ClientKind {
    /// The program and its package.
    #[must_use]
    pub fn tool(self) -> Tool {
        match self {
            Self::Udhcpc => Tool { program: "udhcpc", package: "udhcpc" },
            Self::Dhclient => Tool { program: "dhclient", package: "isc-dhcp-client" },
            Self::Dhcpcd => Tool { program: "dhcpcd", package: "dhcpcd-base" },
            Self::Networkd => Tool { program: "/lib/systemd/systemd-networkd", package: "systemd" },
        }
    }

    /// Does it ask again by itself when the link comes back?
    #[must_use]
    pub fn watches_the_link(self) -> bool {
        matches!(self, Self::Dhcpcd | Self::Networkd)
    }

    /// The quickest client that is installed.
    ///
    /// # Errors
    /// `MissingTool` when there is none.
    pub fn find() -> Result<Self, LabError> {
        [Self::Udhcpc, Self::Dhclient, Self::Dhcpcd]
            .into_iter()
            .find(|kind| kind.tool().is_installed())
            .ok_or(LabError::MissingTool { program: "udhcpc (or dhclient, or dhcpcd)", package: "udhcpc" })
    }
}

/// What a client's script was called for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseEvent {
    /// Nanoseconds since the Unix epoch.
    pub at_ns: u64,
    /// The client's own word: `bound`, `BOUND`, `RENEW`, `EXPIRE`…
    pub event: String,
    /// The address of the lease, when the event brought one.
    pub address: Option<Ipv4Addr>,
}

/// A running client for one interface.
#[derive(Debug)]
pub struct DhcpClient {
    kind: ClientKind,
    process: Process,
}

/// `configure` is empty for dhcpcd, which sets the address itself (as systemd-networkd does, which runs no script and so
/// reports no events). The client's words are `$1` (udhcpc) or `$reason`.
const SCRIPT: &str = r#"#!/bin/sh
event=${reason:-$1}
address=${ip:-$new_ip_address}
configure=@CONFIGURE@
case "$event" in
deconfig|PREINIT|EXPIRE|FAIL|RELEASE|STOP|TIMEOUT)
  address=
  if [ -n "$configure" ]; then ip -4 address flush dev "$interface"; ip link set dev "$interface" up; fi ;;
bound|renew|BOUND|RENEW|REBIND|REBOOT)
  if [ -n "$configure" ]; then
    ip -4 -o address show dev "$interface" | grep -q " $address/" || ip -4 address flush dev "$interface"
    m=${mtu:-$new_interface_mtu}
    [ -z "$m" ] || ip link set dev "$interface" mtu "$m"
    ip address replace "$address/${mask:-$new_subnet_mask}" dev "$interface"
    r=${router:-$new_routers}
    [ -z "$r" ] || ip route replace default via "${r%% *}" dev "$interface"
  fi
  for server in ${dns:-$new_domain_name_servers}; do echo "nameserver $server"; done > @DIR@/resolv.conf ;;
esac
echo "$(date +%s%N) $event ${address:--}" >> @DIR@/events
"#;

const DHCLIENT_CONF: &str = "timeout 60; retry 1; reboot 5; initial-interval 1; backoff-cutoff 2; initial-delay 0; \
    select-timeout 0;\nrequest subnet-mask, broadcast-address, routers, domain-name, domain-name-servers, interface-mtu;\n";

const DHCPCD_CONF: &str = "ipv4only\nnoarp\nnoipv4ll\nnodelay\nnodev\npersistent\nnohook resolv.conf, hostname, ntp.conf\n\
    option interface_mtu, domain_name_servers, domain_name, classless_static_routes\n";

const NETWORKD_CONF: &str = "[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n";

impl DhcpClient {
    /// Starts a client for `interface` in namespace `netns`, in the foreground. A second start finds the lease of the
    /// first one, as after a restart on a real machine.
    ///
    /// # Errors
    /// `MissingTool`, `File`, as [`World::spawn`].
    pub fn start(world: &World, netns: &str, interface: &str, kind: ClientKind) -> Result<Self, LabError> {
        super::require(&[kind.tool()])?;
        let dir = format!("/run/lab/guest/{netns}");
        let outside = world.outside(&dir);
        fs::create_dir_all(outside.join("dhcpcd")).map_err(LabError::file("create", &outside))?;
        let script = format!("{dir}/dhcp-script");
        let configure = if kind.watches_the_link() { "" } else { "yes" };
        // Written once: a client that is being started may be reading it.
        if !world.outside(&script).exists() {
            world.write(&script, &SCRIPT.replace("@DIR@", &dir).replace("@CONFIGURE@", configure))?;
            world.run(None, "chmod", &["755", &script])?;
        }
        let conf = format!("{dir}/dhcp.conf");
        let process = match kind {
            ClientKind::Udhcpc => {
                let timing = ["-t", "5", "-T", "1", "-A", "1"];
                let mut arguments = vec!["-f", "-i", interface, "-s", &script, "-O", "mtu"];
                arguments.extend(timing);
                world.spawn(Some(netns), "udhcpc", &arguments)?
            }
            ClientKind::Dhclient => {
                world.write(&conf, DHCLIENT_CONF)?;
                let (leases, pid) = (format!("{dir}/dhclient.leases"), format!("{dir}/dhclient.pid"));
                let files = ["-cf", &conf, "-sf", &script, "-lf", &leases, "-pf", &pid];
                let mut arguments = vec!["-4", "-d"];
                arguments.extend(files);
                arguments.push(interface);
                world.spawn(Some(netns), "dhclient", &arguments)?
            }
            ClientKind::Dhcpcd => {
                world.write(&conf, DHCPCD_CONF)?;
                // Its lease and control files have fixed places: `ip netns exec` gives it mounts of its own.
                let own = format!(
                    "mkdir -p /var/lib/dhcpcd /run/dhcpcd; mount --bind {dir}/dhcpcd /var/lib/dhcpcd; \
                     mount -t tmpfs dhcpcd /run/dhcpcd; exec dhcpcd --nobackground -4 -f {conf} -c {script} {interface}"
                );
                world.spawn(Some(netns), "sh", &["-ec", &own])?
            }
            ClientKind::Networkd => {
                world.write(&conf, &format!("[Match]\nName={interface}\n{NETWORKD_CONF}"))?;
                // A read-only /sys tells it that there is no udev to wait for.
                let own = format!(
                    "mkdir -p /run/systemd; mount -t tmpfs networkd /run/systemd; mkdir /run/systemd/network; \
                     cp {conf} /run/systemd/network/lab.network; chmod -R a+rX /run/systemd; mount -o remount,ro /sys; \
                     exec {}",
                    kind.tool().program
                );
                world.spawn(Some(netns), "sh", &["-ec", &own])?
            }
        };
        Ok(Self { kind, process })
    }

    /// Which client it is.
    #[must_use]
    pub fn kind(&self) -> ClientKind {
        self.kind
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What scripts of this guest's clients have reported so far, oldest first.
    pub(super) fn events(world: &World, netns: &str) -> Vec<LeaseEvent> {
        let file = world.outside(format!("/run/lab/guest/{netns}/events"));
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().filter_map(event).collect()
    }
}

fn event(line: &str) -> Option<LeaseEvent> {
    let mut words = line.split(' ');
    let at_ns = words.next()?.parse().ok()?;
    let event = words.next()?.to_owned();
    Some(LeaseEvent { at_ns, event, address: words.next()?.parse().ok() })
}
