//! A DHCP client without patience: once it is told to begin it asks for a lease every 5 ms, from the start each time it has one,
//! until it is told to rest. So what it tells is how soon the network has changed, and not how long a client sleeps.
//!
//! Its socket is an ordinary one (no RFC 1542 client would do it so): the interface has no address, answers are broadcast.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use control::lab::{World, enter_netns};
use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable};

const RETRY: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(30);

/// A lease, and when it came.
pub(crate) type Lease = (Ipv4Addr, Instant);

/// A running client; it ends when this is dropped.
pub(crate) struct FastClient {
    leases: Receiver<Lease>,
    asks: Arc<AtomicBool>,
}

impl FastClient {
    /// Starts it in a namespace that has one interface of this name and hardware address.
    pub(crate) fn start(world: &Arc<World>, netns: &str, interface: &str, mac: [u8; 6]) -> Self {
        // A broadcast needs a route to know its interface by; a strict reverse path would refuse the answers.
        let prepare = format!(
            "for i in all {interface}; do echo 0 > /proc/sys/net/ipv4/conf/$i/rp_filter; done
             ip link set {interface} up
             ip route replace 255.255.255.255/32 dev {interface}"
        );
        world.script(Some(netns), &prepare).unwrap();
        let (leases, inbox) = channel();
        let asks = Arc::<AtomicBool>::default();
        let asking = Arc::clone(&asks);
        let (world, netns) = (world.clone(), netns.to_owned());
        thread::spawn(move || {
            enter_netns(&world, &netns).unwrap();
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 68)).unwrap();
            socket.set_broadcast(true).unwrap();
            socket.set_read_timeout(Some(RETRY)).unwrap();
            ask_for_ever(&socket, mac, &leases, &asking);
        });
        Self { leases: inbox, asks }
    }

    /// From now on it asks.
    pub(crate) fn begin(&self) {
        self.asks.store(true, Ordering::Release);
    }

    /// Waits for a lease of this address and says when it came; from then on the client rests. A switch may answer a port
    /// only so often, and a client that never rests would measure that.
    pub(crate) fn lease_of(&self, address: Ipv4Addr, since: Instant) -> Instant {
        loop {
            let left = (since + PATIENCE).saturating_duration_since(Instant::now());
            let (leased, at) =
                self.leases.recv_timeout(left).unwrap_or_else(|_| panic!("no lease of {address}"));
            if leased == address && at > since {
                self.asks.store(false, Ordering::Release);
                return at;
            }
        }
    }
}

fn ask_for_ever(socket: &UdpSocket, mac: [u8; 6], leases: &Sender<Lease>, asks: &AtomicBool) {
    let mut number = 0;
    let mut wish = message(mac, number, MessageType::Discover, None);
    let mut due = Instant::now();
    let mut buffer = [0; 1500];
    loop {
        if !asks.load(Ordering::Acquire) {
            thread::sleep(Duration::from_micros(200));
            due = Instant::now();
            continue;
        }
        if due <= Instant::now() {
            // While the link is being moved it may not take anything.
            let _ = socket.send_to(&wish, (Ipv4Addr::BROADCAST, 67));
            due = Instant::now() + RETRY;
        }
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        let answer = Message::decode(&mut Decoder::new(&buffer[..length]));
        let Some(answer) = answer.ok().filter(|answer| answer.xid() == number) else { continue };
        match answer.opts().msg_type() {
            Some(MessageType::Offer) => {
                wish = message(mac, number, MessageType::Request, Some(&answer));
                due = Instant::now();
                continue;
            }
            Some(MessageType::Ack) => {
                if leases.send((answer.yiaddr(), Instant::now())).is_err() {
                    return;
                }
            }
            // Refused: what was offered is another network's.
            Some(MessageType::Nak) => {}
            _ => continue,
        }
        number += 1;
        wish = message(mac, number, MessageType::Discover, None);
    }
}

fn message(mac: [u8; 6], number: u32, kind: MessageType, offer: Option<&Message>) -> Vec<u8> {
    let zero = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(number, zero, zero, zero, zero, &mac);
    message.set_flags(Flags::default().set_broadcast());
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ParameterRequestList(vec![OptionCode::SubnetMask, OptionCode::Router]));
    if let Some(offer) = offer {
        options.insert(DhcpOption::RequestedIpAddress(offer.yiaddr()));
        if let Some(server) = offer.opts().get(OptionCode::ServerIdentifier) {
            options.insert(server.clone());
        }
    }
    message.to_vec().unwrap()
}
