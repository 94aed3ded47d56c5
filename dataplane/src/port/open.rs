//! The door to descriptors: TAPs in their namespaces, and the sockets between hosts.
//!
//! Opening is the only thing that needs privilege, so it stands behind one small trait. [`Direct`] opens in this
//! process; a privileged process that keeps the descriptors can take its place. Never here: packets.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::thread::LinkNameSpaceType;
use serde::{Deserialize, Serialize};

use super::sys;
use crate::desired::{PortKind, PortName};
use crate::types::{MacAddr, Mtu};

/// A TAP to be opened, or an interface of somebody else's (in practice a hypervisor's TAP) to be attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TapSpec {
    /// The interface's name.
    pub name: PortName,
    /// Which of the two.
    #[serde(default, skip_serializing_if = "PortKind::is_tap")]
    pub kind: PortKind,
    /// Where it stands: a name under /run/netns, an absolute path, or the switch's own namespace.
    pub netns: Option<String>,
    /// The guest's address, set on the interface of a TAP that is ours.
    pub mac: MacAddr,
    /// Set on the interface.
    pub mtu: Mtu,
    /// How many queues, at least one. An interface that exists must have been made for as many (one, or several).
    pub queues: usize,
    /// True if the interface is to stay when the switch ends.
    pub persistent: bool,
}

/// A TAP's descriptors and what was learned on opening it.
#[derive(Debug)]
pub struct OpenTap {
    /// One per queue, non-blocking.
    pub queues: Vec<OwnedFd>,
    /// A socket in the interface's namespace, through which it can be configured later.
    pub control: OwnedFd,
    /// The interface's transmit queue length.
    pub queue_frames: usize,
    /// True if the kernel takes and gives UDP super-packets.
    pub udp_trains: bool,
    /// True if the interface was there already, with whatever addresses it had.
    pub existed: bool,
}

/// What a socket between hosts is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UdpUse {
    /// Receiving at the tunnel port, shared by the workers of this switch.
    Receive,
    /// Sending from a port of its own.
    Send,
    /// Only to see whether the address is free: bound without sharing.
    Probe,
}

/// Why something could not be opened. Display names place, act and remedy.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No such namespace.
    #[error("interface `{interface}`: network namespace `{netns}` does not exist at {path}")]
    NamespaceMissing {
        /// The interface to be opened there.
        interface: PortName,
        /// As configured.
        netns: String,
        /// Where it was looked for.
        path: String,
    },
    /// A path that is something else.
    #[error("interface `{interface}`: {path} is not a network namespace")]
    NamespaceInvalid {
        /// The interface to be opened there.
        interface: PortName,
        /// The path.
        path: String,
    },
    /// The privilege is missing.
    #[error("interface `{interface}`: no permission to {act}")]
    NoPermission {
        /// The interface to be opened.
        interface: PortName,
        /// What was tried.
        act: &'static str,
    },
    /// The device node is closed to this user: no capability that the switch asks for would open it.
    #[error("interface `{interface}`: the mode of /dev/net/tun does not let this user open it")]
    TunMode {
        /// The interface to be opened.
        interface: PortName,
    },
    /// The device is closed to this control group.
    #[error("interface `{interface}`: this control group may not open /dev/net/tun")]
    TunBarred {
        /// The interface to be opened.
        interface: PortName,
    },
    /// The kernel has no TAP driver, or this root has no device node.
    #[error("interface `{interface}`: /dev/net/tun does not exist")]
    NoTun {
        /// The interface to be opened.
        interface: PortName,
    },
    /// Somebody else holds the TAP.
    #[error("interface `{interface}` in {place} is in use by another process")]
    InterfaceInUse {
        /// The interface.
        interface: PortName,
        /// Its namespace.
        place: String,
    },
    /// The name is taken by something that is no fitting TAP.
    #[error("interface `{interface}` in {place} exists but is not a TAP with {queues} queue(s)")]
    InterfaceKind {
        /// The interface.
        interface: PortName,
        /// Its namespace.
        place: String,
        /// As asked for.
        queues: usize,
        /// It is a TAP, and the number of its queues does not fit.
        is_tap: bool,
    },
    /// An interface to be attached to is not there.
    #[error("interface `{interface}` in {place} does not exist")]
    InterfaceMissing {
        /// The interface.
        interface: PortName,
        /// Its namespace.
        place: String,
    },
    /// Any other refusal by the kernel for an interface.
    #[error("interface `{interface}` in {place}: cannot {act}: {source}")]
    Interface {
        /// The interface.
        interface: PortName,
        /// Its namespace.
        place: String,
        /// What was tried.
        act: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Somebody else receives there.
    #[error("UDP port {port} on {ip} is already in use", port = .address.port(), ip = .address.ip())]
    AddressInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The address is not this host's.
    #[error("{ip} is not an address of this host", ip = .address.ip())]
    AddressAbsent {
        /// The address.
        address: SocketAddr,
    },
    /// Any other refusal by the kernel for a socket.
    #[error("UDP socket on {address}: cannot {act}: {source}")]
    Socket {
        /// The address.
        address: SocketAddr,
        /// What was tried.
        act: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Whoever opens for this process refused, in these words.
    #[error("{what}")]
    Told {
        /// Place and act.
        what: String,
        /// What to do about it.
        remedy: String,
    },
}

impl OpenError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::NamespaceMissing { netns, .. } if netns.starts_with('/') => {
                "create it first, or correct the path".into()
            }
            Self::NamespaceMissing { netns, .. } => format!("create it with `ip netns add {netns}`"),
            Self::NamespaceInvalid { .. } => {
                "name one that `ip netns` lists, or a path such as /proc/PID/ns/net".into()
            }
            Self::NoPermission { .. } => {
                "run the switch as root or with CAP_NET_ADMIN and CAP_SYS_ADMIN, and CAP_NET_RAW for ports of kind netdev".into()
            }
            Self::TunMode { .. } => {
                "let this user read and write it (`ls -l /dev/net/tun`; mode 0666 is usual)".into()
            }
            Self::TunBarred { .. } => {
                "allow the device (`DeviceAllow=/dev/net/tun rw` in a systemd unit, `--device /dev/net/tun` for a container)"
                    .into()
            }
            Self::NoTun { .. } => {
                "load the kernel module with `modprobe tun`, or make the device available here".into()
            }
            Self::InterfaceInUse { .. } => "stop that process, or give the port another name".into(),
            Self::InterfaceKind { interface, is_tap: true, .. } => {
                format!(
                    "give the port another name, or remove the TAP with `ip link delete {interface}` if nothing needs it"
                )
            }
            Self::InterfaceKind { .. } => "give the port another name".into(),
            Self::InterfaceMissing { interface, .. } => {
                format!(
                    "start what makes it first (a port of kind netdev attaches to what is there), or make it with `ip tuntap add {interface} mode tap vnet_hdr`"
                )
            }
            Self::Interface { .. } => "look for the interface with `ip -details link`".into(),
            Self::AddressInUse { .. } => {
                "stop the other switch or kernel tunnel device that runs on this host".into()
            }
            Self::AddressAbsent { .. } => {
                "set `physical_ip` to an address that `ip address` shows, and wait until it is ready".into()
            }
            Self::Socket { .. } => {
                "check `underlay.physical_ip`, and the limit on open files (`ulimit -n`)".into()
            }
            Self::Told { remedy, .. } => remedy.clone(),
        }
    }
}

/// Opens what the packet path reads and writes.
pub trait Opener: Send + Sync {
    /// Opens a TAP, creating it if it is not there. One that exists keeps its addresses; its MAC and MTU become the
    /// specified ones. Somebody else's interface is attached to and keeps its MAC.
    ///
    /// # Errors
    /// [`OpenError`]; nothing is left behind that was not there before.
    fn open_tap(&self, spec: &TapSpec) -> Result<OpenTap, OpenError>;

    /// Opens a non-blocking UDP socket bound to `address`, ready for its use.
    ///
    /// # Errors
    /// [`OpenError`].
    fn open_udp(&self, address: SocketAddr, purpose: UdpUse) -> Result<OwnedFd, OpenError>;

    /// Makes MAC and MTU of a TAP that was opened the specified ones; `control` is its [`OpenTap::control`].
    ///
    /// # Errors
    /// [`OpenError`].
    fn configure_tap(&self, control: BorrowedFd<'_>, spec: &TapSpec) -> Result<(), OpenError> {
        configure(control, spec, &place_of(spec))
    }

    /// The number that [`Opener::mark_tap`] last gave a TAP, if it outlived the switch that gave it. Frames that wait in
    /// a TAP with another number were sent under another binding of the port.
    fn mark_of(&self, _spec: &TapSpec) -> Option<u64> {
        None
    }

    /// Says that what the guest sends from now on belongs to the binding of this number.
    fn mark_tap(&self, _spec: &TapSpec, _binding: u64) {}

    /// Gives up a TAP that was opened: when the caller's descriptors close, nobody holds it any more.
    fn close_tap(&self, _spec: &TapSpec) {}

    /// Everything that is needed has been asked for: what was kept for a switch of another configuration may be closed.
    fn complete(&self) {}
}

/// Opens in this process. TAPs in other namespaces are opened by a thread that lives for that act only, because a
/// thread's namespace is its own; sockets are opened in the namespace of the calling thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct Direct;

/// Bounds what the guest's stack has not yet taken from the switch, in bytes.
const TAP_SEND_BUFFER: i32 = 4 << 20;
/// What a guest has sent and the switch has not yet read, in bytes as the kernel counts them.
const NETDEV_BUFFER: i32 = 4 << 20;
/// How many frames fit there at most: the kernel grants twice as much, and counts more than 512 bytes for the least frame.
const NETDEV_FRAMES: usize = (2 * NETDEV_BUFFER / 512) as usize;
/// Holds a burst of 64 trains; the kernel may grant less (`net.core.rmem_max`) without `CAP_NET_ADMIN`.
const UDP_BUFFER: i32 = 8 << 20;
/// A send socket is never read: what strangers send to it shall cost little.
const UNREAD_BUFFER: i32 = 4096;

impl Opener for Direct {
    fn open_tap(&self, spec: &TapSpec) -> Result<OpenTap, OpenError> {
        let Some(netns) = &spec.netns else {
            return open_here(spec, &place_of(spec));
        };
        let interface = || spec.name.clone();
        let place = place_of(spec);
        let shown = namespace_path(netns).display().to_string();
        let namespace = open_namespace(spec, netns)?;
        let inside = || {
            rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| match error {
                    rustix::io::Errno::PERM => {
                        OpenError::NoPermission { interface: interface(), act: "enter the network namespace" }
                    }
                    _ => OpenError::NamespaceInvalid { interface: interface(), path: shown.clone() },
                })?;
            open_here(spec, &place)
        };
        std::thread::scope(|scope| {
            let failed = |source| OpenError::Interface {
                interface: interface(),
                place: place.clone(),
                act: "start a thread in the network namespace",
                source,
            };
            let thread = std::thread::Builder::new()
                .name("tap-open".into())
                .spawn_scoped(scope, inside)
                .map_err(failed)?;
            thread.join().unwrap_or_else(|_| Err(failed(io::Error::other("the thread panicked"))))
        })
    }

    fn open_udp(&self, address: SocketAddr, purpose: UdpUse) -> Result<OwnedFd, OpenError> {
        let failed = |act| move |source: io::Error| OpenError::Socket { address, act, source };
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)
            .map_err(|error| failed("create it")(error.into()))?;
        let set = |level, option, value, act| {
            sys::set_option(socket.as_fd(), level, option, value).map_err(failed(act))
        };
        if address.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, true)
                .map_err(|error| failed("restrict it to IPv6")(error.into()))?;
        }
        if purpose == UdpUse::Receive {
            sockopt::set_socket_reuseport(&socket, true)
                .map_err(|error| failed("share its port among workers")(error.into()))?;
        }
        rustix::net::bind(&socket, &address).map_err(|error| match error {
            rustix::io::Errno::ADDRINUSE => OpenError::AddressInUse { address },
            rustix::io::Errno::ADDRNOTAVAIL => OpenError::AddressAbsent { address },
            error => failed("bind it")(error.into()),
        })?;
        let (discover, probe, receive_class) = if address.is_ipv4() {
            (
                (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
                libc::IP_PMTUDISC_PROBE,
                (libc::IPPROTO_IP, libc::IP_RECVTOS),
            )
        } else {
            (
                (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
                libc::IPV6_PMTUDISC_PROBE,
                (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS),
            )
        };
        match purpose {
            UdpUse::Probe => {}
            UdpUse::Receive => {
                set(libc::SOL_UDP, libc::UDP_GRO, 1, "receive trains (UDP_GRO)")?;
                set(receive_class.0, receive_class.1, 1, "receive the traffic class")?;
                set(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1, "count what its queue loses")?;
                big_buffer(&set, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF)?;
            }
            UdpUse::Send => {
                // The switch tells its guests the path MTU itself: DF always, and no cached ICMP from the path that a
                // stranger could have forged.
                set(discover.0, discover.1, probe, "forbid fragmentation")?;
                big_buffer(&set, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)?;
                set(libc::SOL_SOCKET, libc::SO_RCVBUF, UNREAD_BUFFER, "shrink its receive buffer")?;
            }
        }
        Ok(socket)
    }
}

/// Where a namespace is found: a name under /run/netns, or a path.
pub(crate) fn namespace_path(netns: &str) -> PathBuf {
    if netns.starts_with('/') { PathBuf::from(netns) } else { PathBuf::from("/run/netns").join(netns) }
}

fn place_of(spec: &TapSpec) -> String {
    match &spec.netns {
        Some(netns) => format!("namespace `{netns}`"),
        None => "the switch's own namespace".into(),
    }
}

/// Opens a namespace, and nothing else that may stand at that path: to open a pipe would wait, and to open a device
/// might do something.
fn open_namespace(spec: &TapSpec, netns: &str) -> Result<OwnedFd, OpenError> {
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    let path = namespace_path(netns);
    let interface = || spec.name.clone();
    let shown = || path.display().to_string();
    let failed = |error| match error {
        rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => {
            OpenError::NamespaceMissing { interface: interface(), netns: netns.into(), path: shown() }
        }
        rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => {
            OpenError::NoPermission { interface: interface(), act: "open the network namespace" }
        }
        error => OpenError::Interface {
            interface: interface(),
            place: place_of(spec),
            act: "open the network namespace",
            source: error.into(),
        },
    };
    let looked = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    if rustix::fs::fstatfs(&looked).map_err(failed)?.f_type != NSFS_MAGIC {
        return Err(OpenError::NamespaceInvalid { interface: interface(), path: shown() });
    }
    let same = format!("/proc/self/fd/{}", looked.as_raw_fd());
    rustix::fs::open(same, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)
}

fn big_buffer(
    set: &impl Fn(i32, i32, i32, &'static str) -> Result<(), OpenError>,
    force: i32,
    ask: i32,
) -> Result<(), OpenError> {
    set(libc::SOL_SOCKET, force, UDP_BUFFER, "enlarge its buffer")
        .or_else(|_| set(libc::SOL_SOCKET, ask, UDP_BUFFER, "enlarge its buffer"))
}

/// Opens what `spec` says in the namespace of the calling thread.
fn open_here(spec: &TapSpec, place: &str) -> Result<OpenTap, OpenError> {
    match spec.kind {
        PortKind::Tap => open_tap_here(spec, place),
        PortKind::Netdev => open_netdev_here(spec, place),
    }
}

/// Attaches to an interface in the namespace of the calling thread, by a packet socket that is bound to nothing before
/// it is set up: whatever it receives has the header, and nothing of it was sent by ourselves.
fn open_netdev_here(spec: &TapSpec, place: &str) -> Result<OpenTap, OpenError> {
    let interface = || spec.name.clone();
    let failed = |act| {
        move |source: io::Error| match source.kind() {
            io::ErrorKind::PermissionDenied => OpenError::NoPermission { interface: interface(), act },
            _ => OpenError::Interface { interface: interface(), place: place.into(), act, source },
        }
    };
    let open = |family, kind, flags, act| {
        rustix::net::socket_with(family, kind, flags | SocketFlags::CLOEXEC, None)
            .map_err(|error| failed(act)(error.into()))
    };
    let control =
        open(AddressFamily::INET, SocketType::DGRAM, SocketFlags::empty(), "open a control socket")?;
    let index = sys::interface_index(control.as_fd(), spec.name.as_str())
        .map_err(|_| OpenError::InterfaceMissing { interface: interface(), place: place.into() })?;
    let socket = open(AddressFamily::PACKET, SocketType::RAW, SocketFlags::NONBLOCK, "open a packet socket")?;
    let set = |level, option, value, act| {
        sys::set_option(socket.as_fd(), level, option, value).map_err(failed(act))
    };
    let packet = libc::SOL_PACKET;
    set(packet, libc::PACKET_VNET_HDR, 1, "keep super-packets whole (PACKET_VNET_HDR)")?;
    set(packet, libc::PACKET_IGNORE_OUTGOING, 1, "pass over what it sends itself (PACKET_IGNORE_OUTGOING)")?;
    set(packet, libc::PACKET_AUXDATA, 1, "be told of VLAN tags (PACKET_AUXDATA)")?;
    for (force, ask, bytes) in [
        (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, NETDEV_BUFFER),
        (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, TAP_SEND_BUFFER),
    ] {
        set(libc::SOL_SOCKET, force, bytes, "enlarge its buffer")
            .or_else(|_| set(libc::SOL_SOCKET, ask, bytes, "enlarge its buffer"))?;
    }
    sys::packet_bind(socket.as_fd(), index).map_err(failed("attach to it"))?;
    configure(control.as_fd(), spec, place)?;
    // Kernels before 6.2 know no UDP super-packets, and a packet socket cannot be asked.
    Ok(OpenTap {
        queues: vec![socket],
        control,
        queue_frames: NETDEV_FRAMES,
        udp_trains: false,
        existed: true,
    })
}

/// Opens the TAP in the namespace of the calling thread.
fn open_tap_here(spec: &TapSpec, place: &str) -> Result<OpenTap, OpenError> {
    let interface = || spec.name.clone();
    let name = spec.name.as_str();
    let failed = |act| {
        move |source: io::Error| match source.kind() {
            io::ErrorKind::PermissionDenied => OpenError::NoPermission { interface: interface(), act },
            _ => OpenError::Interface { interface: interface(), place: place.into(), act, source },
        }
    };
    let control =
        rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
            .map_err(|error| failed("open a control socket")(error.into()))?;
    let existed = sys::interface_exists(control.as_fd(), name);
    let in_use = || OpenError::InterfaceInUse { interface: interface(), place: place.into() };
    // A multi-queue TAP would let us in beside its other reader, and each would get half of the frames. A TAP has a
    // carrier exactly while somebody holds a queue, but the kernel tells so only of an interface that is up; for the
    // rest, the lock on the state directory keeps a second switch away.
    if existed && spec.queues > 1 && sys::interface_carrier(control.as_fd(), name).unwrap_or(false) {
        return Err(in_use());
    }
    let flags = libc::IFF_TAP
        | libc::IFF_NO_PI
        | libc::IFF_VNET_HDR
        | if spec.queues > 1 { libc::IFF_MULTI_QUEUE } else { 0 };
    let flags = u16::try_from(flags).unwrap_or_default();
    let mut queues = Vec::with_capacity(spec.queues.max(1));
    let mut udp_trains = true;
    for _ in 0..spec.queues.max(1) {
        let queue = rustix::fs::open(
            "/dev/net/tun",
            OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|error| {
            closed_tun(interface(), error).unwrap_or_else(|| failed("open /dev/net/tun")(error.into()))
        })?;
        sys::tap_attach(queue.as_fd(), name, flags).map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY) => in_use(),
            Some(libc::EINVAL | libc::E2BIG) if existed => {
                let is_tap = sys::interface_is_tap(control.as_fd(), name).unwrap_or(false);
                let (interface, place, queues) = (interface(), place.into(), spec.queues);
                OpenError::InterfaceKind { interface, place, queues, is_tap }
            }
            _ => failed("create or attach to the TAP")(error),
        })?;
        sys::tap_set_header_bytes(queue.as_fd(), 12).map_err(failed("set the vnet header's size"))?;
        sys::tap_set_little_endian(queue.as_fd()).map_err(failed("set the vnet header's byte order"))?;
        sys::tap_set_send_buffer(queue.as_fd(), TAP_SEND_BUFFER).map_err(failed("bound its send buffer"))?;
        let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
        // Kernels before 6.2 know no UDP super-packets.
        if sys::tap_set_offload(queue.as_fd(), tcp | libc::TUN_F_USO4 | libc::TUN_F_USO6).is_err() {
            udp_trains = false;
            sys::tap_set_offload(queue.as_fd(), tcp).map_err(failed("switch on its offloads"))?;
        }
        queues.push(queue);
    }
    configure(control.as_fd(), spec, place)?;
    let at = control.as_fd();
    let queue_frames = sys::interface_queue_frames(at, name).map_err(failed("read its queue length"))?;
    if let Some(queue) = queues.first() {
        // Last, so that a failure above leaves no new interface behind.
        sys::tap_set_persistent(queue.as_fd(), spec.persistent).map_err(failed("make it persistent"))?;
    }
    Ok(OpenTap { queues, control, queue_frames, udp_trains, existed })
}

/// What it means that /dev/net/tun cannot be opened. Opening it asks for no capability at all.
fn closed_tun(interface: PortName, error: Errno) -> Option<OpenError> {
    match error {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => Some(OpenError::NoTun { interface }),
        Errno::ACCESS => Some(OpenError::TunMode { interface }),
        Errno::PERM => Some(OpenError::TunBarred { interface }),
        _ => None,
    }
}

/// Only what differs is set: a guest would notice.
fn configure(at: BorrowedFd<'_>, spec: &TapSpec, place: &str) -> Result<(), OpenError> {
    let name = spec.name.as_str();
    let failed = |act| {
        move |source: io::Error| match source.kind() {
            io::ErrorKind::PermissionDenied => OpenError::NoPermission { interface: spec.name.clone(), act },
            _ => OpenError::Interface { interface: spec.name.clone(), place: place.into(), act, source },
        }
    };
    // The address of an interface that is not ours is not the guest's: that one is at the other end.
    if spec.kind.is_tap()
        && sys::interface_mac(at, name).map_err(failed("read its MAC address"))? != spec.mac.0
    {
        sys::interface_set_mac(at, name, spec.mac.0).map_err(failed("set its MAC address"))?;
    }
    if sys::interface_mtu(at, name).map_err(failed("read its MTU"))? != i32::from(spec.mtu.bytes()) {
        sys::interface_set_mtu(at, name, spec.mtu.bytes()).map_err(failed("set its MTU"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
