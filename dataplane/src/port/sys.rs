//! What neither std nor rustix can say to the kernel: TAP and interface ioctls, packet sockets, and datagrams with control
//! messages.
//!
//! The only file of the devices with `unsafe`. Each function is one system call with checked arguments and owns all
//! memory that the kernel gets to see for the call's duration. Never here: decisions.

#![allow(unsafe_code)]

use std::io::{self, IoSlice};
use std::mem::size_of;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `struct ifreq` as the kernel copies it: a name of at most 15 bytes, then a union of 24 bytes.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    value: [u8; 24],
}

const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());

impl InterfaceRequest {
    fn new<const N: usize>(name: &str, value: [u8; N]) -> Self {
        let mut request = Self { name: [0; 16], value: [0; 24] };
        // Cut to 15: the last byte stays zero whatever the caller brings.
        for (to, from) in request.name.iter_mut().take(15).zip(name.bytes()) {
            *to = from;
        }
        for (to, from) in request.value.iter_mut().zip(value) {
            *to = from;
        }
        request
    }

    fn int(&self) -> i32 {
        let [a, b, c, d, ..] = self.value;
        i32::from_ne_bytes([a, b, c, d])
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn interface_ioctl(fd: BorrowedFd<'_>, act: libc::Ioctl, request: &mut InterfaceRequest) -> io::Result<()> {
    // SAFETY: `act` is one of this file's requests that take a `struct ifreq`, which `request` is in size and layout
    // (asserted above); the kernel reads and writes within it only, during the call. The fd is open by its type.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), act, std::ptr::from_mut(request)) })
}

fn pointed_ioctl(fd: BorrowedFd<'_>, act: libc::Ioctl, value: i32) -> io::Result<()> {
    // SAFETY: `act` is one of this file's requests that read one `int` through the pointer, during the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), act, std::ptr::from_ref(&value)) })
}

fn plain_ioctl(fd: BorrowedFd<'_>, act: libc::Ioctl, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: `act` is one of this file's requests that take the number itself; no memory is involved.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), act, value) })
}

/// Makes `fd` (an open /dev/net/tun) a queue of the TAP `name`, creating it if need be. `flags`: `IFF_*`.
pub(crate) fn tap_attach(fd: BorrowedFd<'_>, name: &str, flags: u16) -> io::Result<()> {
    interface_ioctl(fd, libc::TUNSETIFF, &mut InterfaceRequest::new(name, flags.to_ne_bytes()))
}

/// The name of the interface that `fd` is a queue of, if it is one, and the interface still exists.
pub(crate) fn tap_name(fd: BorrowedFd<'_>) -> Option<String> {
    let mut request = InterfaceRequest::new("", []);
    if !is_tun(fd) || interface_ioctl(fd, libc::TUNGETIFF, &mut request).is_err() {
        return None;
    }
    let name = request.name.split(|byte| *byte == 0).next()?;
    std::str::from_utf8(name).ok().map(str::to_owned)
}

/// An ioctl's number may mean something else to another kind of descriptor.
fn is_tun(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| {
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::CharacterDevice
            && (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) == TUN_DEVICE
    })
}

/// Device and inode of the network namespace that the interface of queue `fd` stands in now. Needs `CAP_NET_ADMIN` there,
/// and Linux 5.2.
pub(crate) fn tap_namespace(fd: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    if !is_tun(fd) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    namespace_ioctl(fd, libc::TUNGETDEVNETNS)
}

/// Device and inode of the network namespace that `socket` was made in. Needs `CAP_NET_ADMIN` there.
pub(crate) fn socket_namespace(socket: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    rustix::net::sockopt::socket_type(socket)?;
    namespace_ioctl(socket, libc::SIOCGSKNS as libc::Ioctl)
}

fn namespace_ioctl(fd: BorrowedFd<'_>, act: libc::Ioctl) -> io::Result<(u64, u64)> {
    // SAFETY: `act` is one of this file's requests that take nothing; no memory is involved.
    let namespace = unsafe { libc::ioctl(fd.as_raw_fd(), act) };
    check(namespace)?;
    // SAFETY: the kernel has just made this descriptor for this call, and nobody else knows of it.
    let namespace = unsafe { OwnedFd::from_raw_fd(namespace) };
    let stat = rustix::fs::fstat(&namespace)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Major and minor number of /dev/net/tun.
const TUN_DEVICE: (u32, u32) = (10, 200);

/// Keeps the interface when its last descriptor closes, or not.
pub(crate) fn tap_set_persistent(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    plain_ioctl(fd, libc::TUNSETPERSIST, on.into())
}

/// Says which offloads the reader of the TAP handles: `TUN_F_*`.
pub(crate) fn tap_set_offload(fd: BorrowedFd<'_>, features: libc::c_uint) -> io::Result<()> {
    plain_ioctl(fd, libc::TUNSETOFFLOAD, features.into())
}

/// Sets the size of the header in front of each frame, in bytes.
pub(crate) fn tap_set_header_bytes(fd: BorrowedFd<'_>, bytes: i32) -> io::Result<()> {
    pointed_ioctl(fd, libc::TUNSETVNETHDRSZ, bytes)
}

/// Makes that header little-endian whatever the machine is.
pub(crate) fn tap_set_little_endian(fd: BorrowedFd<'_>) -> io::Result<()> {
    pointed_ioctl(fd, libc::TUNSETVNETLE, 1)
}

/// Bounds the bytes that were written and not yet taken by the guest's stack.
pub(crate) fn tap_set_send_buffer(fd: BorrowedFd<'_>, bytes: i32) -> io::Result<()> {
    pointed_ioctl(fd, libc::TUNSETSNDBUF, bytes)
}

/// Raises or drops the carrier that the interface's owner sees.
pub(crate) fn tap_set_carrier(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    pointed_ioctl(fd, libc::TUNSETCARRIER, on.into())
}

/// True if an interface of that name stands in the namespace of `socket`.
pub(crate) fn interface_exists(socket: BorrowedFd<'_>, name: &str) -> bool {
    interface_index(socket, name).is_ok()
}

/// The number of the interface of that name in the namespace of `socket`.
pub(crate) fn interface_index(socket: BorrowedFd<'_>, name: &str) -> io::Result<i32> {
    let mut request = InterfaceRequest::new(name, []);
    interface_ioctl(socket, libc::SIOCGIFINDEX as libc::Ioctl, &mut request).map(|()| request.int())
}

const LINK_ADDRESS: libc::socklen_t = 20;
const _: () = assert!(size_of::<libc::sockaddr_ll>() == LINK_ADDRESS as usize);

/// Attaches a packet socket to the interface of this number, for frames of every protocol.
pub(crate) fn packet_bind(socket: BorrowedFd<'_>, index: i32) -> io::Result<()> {
    // SAFETY: all-zero is a valid `sockaddr_ll`: it is numbers only.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = AF_PACKET;
    address.sll_protocol = ALL_PROTOCOLS.to_be();
    address.sll_ifindex = index;
    // SAFETY: the kernel reads `LINK_ADDRESS` bytes, the size of `address` (asserted), during the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), LINK_ADDRESS) })
}

const AF_PACKET: u16 = 17;
const ALL_PROTOCOLS: u16 = 3;
const _: () = assert!(libc::AF_PACKET == AF_PACKET as i32 && libc::ETH_P_ALL == ALL_PROTOCOLS as i32);

/// The name of the interface that `fd` is attached to, if it is a packet socket that is, and the interface still exists.
pub(crate) fn packet_name(fd: BorrowedFd<'_>) -> Option<String> {
    if rustix::net::sockopt::socket_domain(fd) != Ok(rustix::net::AddressFamily::PACKET) {
        return None;
    }
    // SAFETY: all-zero is a valid `sockaddr_ll`.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut length = LINK_ADDRESS;
    // SAFETY: the kernel writes at most `length` bytes, the size of `address`, during the call; each bit pattern is valid.
    let asked = check(unsafe {
        libc::getsockname(fd.as_raw_fd(), std::ptr::from_mut(&mut address).cast(), &raw mut length)
    });
    // An interface that was removed leaves -1 behind; 0 is none.
    if asked.is_err() || address.sll_family != AF_PACKET || address.sll_ifindex <= 0 {
        return None;
    }
    let mut request = InterfaceRequest::new("", address.sll_ifindex.to_ne_bytes());
    interface_ioctl(fd, libc::SIOCGIFNAME as libc::Ioctl, &mut request).ok()?;
    let name = request.name.split(|byte| *byte == 0).next()?;
    std::str::from_utf8(name).ok().map(str::to_owned)
}

/// Length of the header in front of each frame of a packet socket: `struct virtio_net_hdr`.
pub(crate) const PACKET_HEADER: usize = 10;

/// What one receive from a packet socket brought.
pub(crate) struct PacketFrame {
    /// Bytes of header and frame.
    pub(crate) bytes: usize,
    /// The VLAN tag that the kernel took off the frame: protocol and control information.
    pub(crate) tag: Option<(u16, u16)>,
    /// True when the frame did not fit and was cut.
    pub(crate) truncated: bool,
}

/// Receives one frame, without waiting: its header first, then the frame itself; `None` when none waits.
pub(crate) fn receive_packet(
    socket: BorrowedFd<'_>,
    header: &mut [u8; PACKET_HEADER],
    into: &mut [u8],
) -> io::Result<Option<PacketFrame>> {
    let mut control = ReceiveControl([0; 128]);
    let mut pieces = [
        libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: header.len() },
        libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() },
    ];
    // SAFETY: all-zero is a valid `msghdr`: null pointers with zero lengths.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = pieces.as_mut_ptr();
    message.msg_iovlen = pieces.len();
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    let bytes = loop {
        // SAFETY: control and both pieces are exclusively ours, outlive the call and have the lengths told.
        let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
        if let Ok(bytes) = usize::try_from(received) {
            break bytes;
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::Interrupted => {}
            io::ErrorKind::WouldBlock => return Ok(None),
            _ => return Err(error),
        }
    };
    let mut frame = PacketFrame { bytes, tag: None, truncated: message.msg_flags & libc::MSG_TRUNC != 0 };
    let mut rest = control.0.get(..message.msg_controllen).unwrap_or_default();
    while let Some((level, kind, value, behind)) = split_control(rest) {
        if (level, kind) == (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
            frame.tag = tag_of(value);
        }
        rest = behind;
    }
    Ok(Some(frame))
}

/// The tag in a `struct tpacket_auxdata`: status, three lengths and offsets of 12 bytes, then tag and its protocol.
fn tag_of(auxdata: &[u8]) -> Option<(u16, u16)> {
    const TAG_VALID: u32 = 1 << 4;
    const PROTOCOL_VALID: u32 = 1 << 6;
    let status = u32::from_ne_bytes(auxdata.first_chunk().copied()?);
    let [t0, t1, p0, p1] = *auxdata.get(16..)?.first_chunk()?;
    let protocol = if status & PROTOCOL_VALID != 0 { u16::from_ne_bytes([p0, p1]) } else { 0x8100 };
    (status & TAG_VALID != 0).then(|| (protocol, u16::from_ne_bytes([t0, t1])))
}

/// `struct ethtool_drvinfo`: the command, names of 32 bytes (driver, version, firmware, bus, expansion ROM), then 32 bytes.
#[repr(C)]
struct DriverInfo {
    command: u32,
    names: [[u8; 32]; 5],
    rest: [u32; 8],
}

const _: () = assert!(size_of::<DriverInfo>() == 196);

/// `ETHTOOL_GDRVINFO`.
const GET_DRIVER_INFO: u32 = 3;

/// True if the interface is a TAP, whoever holds it.
pub(crate) fn interface_is_tap(socket: BorrowedFd<'_>, name: &str) -> io::Result<bool> {
    let mut info = DriverInfo { command: GET_DRIVER_INFO, names: [[0; 32]; 5], rest: [0; 8] };
    let pointer = std::ptr::from_mut(&mut info).expose_provenance().to_ne_bytes();
    let mut request = InterfaceRequest::new(name, pointer);
    // `request` holds a pointer to `info`, in which the kernel reads and writes no more than a `struct ethtool_drvinfo`,
    // whose size it has (asserted above), during the call.
    interface_ioctl(socket, libc::SIOCETHTOOL as libc::Ioctl, &mut request)?;
    let [driver, _, _, bus, _] = info.names;
    Ok(driver.starts_with(b"tun\0") && bus.starts_with(b"tap\0"))
}

/// The interface's MTU in bytes.
pub(crate) fn interface_mtu(socket: BorrowedFd<'_>, name: &str) -> io::Result<i32> {
    let mut request = InterfaceRequest::new(name, []);
    interface_ioctl(socket, libc::SIOCGIFMTU as libc::Ioctl, &mut request).map(|()| request.int())
}

/// Sets the interface's MTU in bytes.
pub(crate) fn interface_set_mtu(socket: BorrowedFd<'_>, name: &str, bytes: u16) -> io::Result<()> {
    let value = i32::from(bytes).to_ne_bytes();
    interface_ioctl(socket, libc::SIOCSIFMTU as libc::Ioctl, &mut InterfaceRequest::new(name, value))
}

/// The length of the interface's transmit queue, which for a TAP is what the reader's queue holds.
pub(crate) fn interface_queue_frames(socket: BorrowedFd<'_>, name: &str) -> io::Result<usize> {
    let mut request = InterfaceRequest::new(name, []);
    interface_ioctl(socket, libc::SIOCGIFTXQLEN as libc::Ioctl, &mut request)?;
    Ok(usize::try_from(request.int()).unwrap_or_default())
}

/// The interface's MAC address.
pub(crate) fn interface_mac(socket: BorrowedFd<'_>, name: &str) -> io::Result<[u8; 6]> {
    let mut request = InterfaceRequest::new(name, []);
    interface_ioctl(socket, libc::SIOCGIFHWADDR as libc::Ioctl, &mut request)?;
    let [_, _, a, b, c, d, e, f, ..] = request.value;
    Ok([a, b, c, d, e, f])
}

/// Sets the interface's MAC address.
pub(crate) fn interface_set_mac(socket: BorrowedFd<'_>, name: &str, mac: [u8; 6]) -> io::Result<()> {
    let [family0, family1] = libc::ARPHRD_ETHER.to_ne_bytes();
    let [a, b, c, d, e, f] = mac;
    let value = [family0, family1, a, b, c, d, e, f];
    interface_ioctl(socket, libc::SIOCSIFHWADDR as libc::Ioctl, &mut InterfaceRequest::new(name, value))
}

/// True if the interface has a carrier: for a TAP, that some process holds a queue of it.
pub(crate) fn interface_carrier(socket: BorrowedFd<'_>, name: &str) -> io::Result<bool> {
    const ETHTOOL_GLINK: u32 = 0x0a;
    // `struct ethtool_value`: the command, and the answer.
    let mut value = [ETHTOOL_GLINK, 0];
    let pointer = value.as_mut_ptr().expose_provenance().to_ne_bytes();
    // The kernel writes through the pointer inside the request: `value` outlives the call, and is 8 bytes long.
    interface_ioctl(socket, libc::SIOCETHTOOL as libc::Ioctl, &mut InterfaceRequest::new(name, pointer))?;
    // SAFETY: `value` is initialised and alive; volatile because the compiler did not see the kernel's write.
    Ok(unsafe { std::ptr::from_ref(&value).read_volatile() }[1] != 0)
}

/// Sets a socket option whose value is an `int`.
pub(crate) fn set_option(socket: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the kernel reads four bytes, the size of `value`, during the call.
    check(unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, std::ptr::from_ref(&value).cast(), 4)
    })
}

/// True if `fd` is a socket of type `SOCK_DGRAM`.
pub(crate) fn is_datagram_socket(fd: BorrowedFd<'_>) -> bool {
    rustix::net::sockopt::socket_type(fd).is_ok_and(|kind| kind == rustix::net::SocketType::DGRAM)
}

/// The process and the user at the other end of a connected Unix socket. No process: one of a PID namespace that is not
/// seen from here, which rustix's type cannot say.
pub(crate) fn socket_peer(socket: BorrowedFd<'_>) -> io::Result<(Option<u32>, u32)> {
    let mut peer = libc::ucred { pid: 0, uid: libc::uid_t::MAX, gid: libc::gid_t::MAX };
    let mut length: libc::socklen_t = 12;
    const _: () = assert!(size_of::<libc::ucred>() == 12);
    // SAFETY: the kernel writes at most `length` bytes, the size of `peer` (asserted), during the call; each bit pattern
    // is a valid `ucred`.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            std::ptr::from_mut(&mut peer).cast(),
            &raw mut length,
        )
    })?;
    Ok((u32::try_from(peer.pid).ok().filter(|pid| *pid > 0), peer.uid))
}

/// A socket address in the kernel's form: `sockaddr_in`, or the longer `sockaddr_in6`.
const ADDRESS_V4: libc::socklen_t = 16;
const ADDRESS_V6: libc::socklen_t = 28;
const ADDRESS: usize = 28;
const FAMILY_V4: u16 = 2;
const FAMILY_V6: u16 = 10;

const _: () = assert!(size_of::<libc::sockaddr_in>() == 16 && size_of::<libc::sockaddr_in6>() == ADDRESS);
const _: () = assert!(libc::AF_INET == FAMILY_V4 as i32 && libc::AF_INET6 == FAMILY_V6 as i32);

fn encode_address(address: SocketAddr) -> ([u8; ADDRESS], libc::socklen_t) {
    let mut bytes = [0; ADDRESS];
    let mut put = |at: usize, value: &[u8]| {
        for (to, from) in bytes.iter_mut().skip(at).zip(value) {
            *to = *from;
        }
    };
    put(2, &address.port().to_be_bytes());
    let length = match address {
        SocketAddr::V4(v4) => {
            put(0, &FAMILY_V4.to_ne_bytes());
            put(4, &v4.ip().octets());
            ADDRESS_V4
        }
        SocketAddr::V6(v6) => {
            put(0, &FAMILY_V6.to_ne_bytes());
            put(8, &v6.ip().octets());
            put(24, &v6.scope_id().to_ne_bytes());
            ADDRESS_V6
        }
    };
    (bytes, length)
}

fn decode_address(bytes: &[u8; ADDRESS]) -> Option<SocketAddr> {
    let field = |at: usize| bytes.get(at..)?.first_chunk::<2>().copied();
    let port = u16::from_be_bytes(field(2)?);
    match u16::from_ne_bytes(field(0)?) {
        FAMILY_V4 => Some((bytes.get(4..)?.first_chunk::<4>().copied()?, port).into()),
        FAMILY_V6 => {
            let ip = Ipv6Addr::from_octets(bytes.get(8..)?.first_chunk().copied()?);
            Some((IpAddr::V6(ip).to_canonical(), port).into())
        }
        _ => None,
    }
}

/// The control messages of a send: traffic class, then (used only if wanted) the size of the pieces to cut into.
#[repr(C)]
struct SendControl {
    class_header: libc::cmsghdr,
    class: i32,
    class_padding: u32,
    segment_header: libc::cmsghdr,
    segment: u16,
    segment_padding: [u16; 3],
}

const CONTROL_HEADER: usize = size_of::<libc::cmsghdr>();
const _: () = assert!(size_of::<SendControl>() == 2 * (CONTROL_HEADER + 8));

/// Sends one datagram gathered from `pieces`, or with `segment_bytes` a train of datagrams of that size (the last may
/// be shorter). Never waits.
pub(crate) fn send_datagrams(
    socket: BorrowedFd<'_>,
    to: SocketAddr,
    pieces: &[IoSlice<'_>],
    segment_bytes: Option<u16>,
    traffic_class: u8,
) -> io::Result<()> {
    let (mut address, address_length) = encode_address(to);
    let (level, option) =
        if to.is_ipv4() { (libc::IPPROTO_IP, libc::IP_TOS) } else { (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) };
    let mut control = SendControl {
        class_header: libc::cmsghdr { cmsg_len: CONTROL_HEADER + 4, cmsg_level: level, cmsg_type: option },
        class: traffic_class.into(),
        class_padding: 0,
        segment_header: libc::cmsghdr {
            cmsg_len: CONTROL_HEADER + 2,
            cmsg_level: libc::SOL_UDP,
            cmsg_type: libc::UDP_SEGMENT,
        },
        segment: segment_bytes.unwrap_or_default(),
        segment_padding: [0; 3],
    };
    // SAFETY: all-zero is a valid `msghdr`: null pointers with zero lengths.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = address.as_mut_ptr().cast();
    message.msg_namelen = address_length;
    message.msg_iov = pieces.as_ptr().cast_mut().cast();
    message.msg_iovlen = pieces.len();
    message.msg_control = std::ptr::from_mut(&mut control).cast();
    message.msg_controllen = size_of::<SendControl>() / if segment_bytes.is_some() { 1 } else { 2 };
    loop {
        // SAFETY: `IoSlice` has the layout of `iovec` (std's promise) and its slices live as long as `pieces`; address
        // and control outlive the call and have the lengths told; a send only reads all of it.
        let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT) };
        if sent >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// What one receive brought.
pub(crate) struct Datagrams {
    /// The sender; `None` if the kernel named none that this switch understands.
    pub(crate) from: Option<SocketAddr>,
    /// Bytes received.
    pub(crate) bytes: usize,
    /// The size of each datagram but the last, if the kernel joined several.
    pub(crate) segment_bytes: Option<usize>,
    /// The outer traffic class.
    pub(crate) traffic_class: u8,
    /// Datagrams that this socket's full queue has lost so far, if any.
    pub(crate) lost: Option<u32>,
    /// True when a datagram did not fit and was cut.
    pub(crate) truncated: bool,
}

/// Room for the control messages of a receive: class, train, losses, each at most 24 bytes.
#[repr(C, align(8))]
struct ReceiveControl([u8; 128]);

/// Receives one datagram or train into `into`, without waiting; `None` when nothing waits.
pub(crate) fn receive_datagrams(socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<Option<Datagrams>> {
    let mut address = [0_u8; ADDRESS];
    let mut control = ReceiveControl([0; 128]);
    let mut piece = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    // SAFETY: all-zero is a valid `msghdr`: null pointers with zero lengths.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = address.as_mut_ptr().cast();
    message.msg_namelen = ADDRESS_V6;
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    let received = loop {
        // SAFETY: address, control and the one iovec are exclusively ours, outlive the call and have the lengths told.
        let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
        if let Ok(bytes) = usize::try_from(received) {
            break bytes;
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::Interrupted => {}
            io::ErrorKind::WouldBlock => return Ok(None),
            _ => return Err(error),
        }
    };
    let mut datagrams = Datagrams {
        from: decode_address(&address),
        bytes: received,
        segment_bytes: None,
        traffic_class: 0,
        lost: None,
        truncated: message.msg_flags & libc::MSG_TRUNC != 0,
    };
    let mut rest = control.0.get(..message.msg_controllen).unwrap_or_default();
    while let Some((level, kind, value, behind)) = split_control(rest) {
        let int = value.first_chunk().copied().map(i32::from_ne_bytes);
        match (level, kind) {
            // Of the options that this module's callers set, only IPv4's class is a byte.
            (libc::IPPROTO_IP, libc::IP_TOS) => datagrams.traffic_class = value.first().copied().unwrap_or(0),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                datagrams.traffic_class = int.and_then(|class| class.try_into().ok()).unwrap_or(0);
            }
            (libc::SOL_UDP, libc::UDP_GRO) => {
                datagrams.segment_bytes =
                    int.and_then(|bytes| bytes.try_into().ok()).filter(|bytes| *bytes > 0);
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                datagrams.lost = value.first_chunk().copied().map(u32::from_ne_bytes)
            }
            _ => {}
        }
        rest = behind;
    }
    Ok(Some(datagrams))
}

/// The first control message: level, type, value, and what follows it.
fn split_control(bytes: &[u8]) -> Option<(i32, i32, &[u8], &[u8])> {
    let length = usize::from_ne_bytes(bytes.first_chunk().copied()?);
    let level = i32::from_ne_bytes(bytes.get(size_of::<usize>()..)?.first_chunk().copied()?);
    let kind = i32::from_ne_bytes(bytes.get(size_of::<usize>() + 4..)?.first_chunk().copied()?);
    let value = bytes.get(CONTROL_HEADER..length)?;
    let behind = bytes.get(length.next_multiple_of(size_of::<usize>())..).unwrap_or_default();
    Some((level, kind, value, behind))
}
