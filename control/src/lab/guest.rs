//! Guests: a namespace each, with an init process that plays the running machine, an interface that the switch makes
//! in it, and a real DHCP client.

use super::{ClientKind, DhcpClient, LabError, LeaseEvent, Process, World, wait_until};
use std::{
    fs,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// How often the carrier watch looks: below the shortest bounce, which is 10 ms.
const CARRIER_POLL: Duration = Duration::from_millis(2);

/// A guest. Its namespace, its port and its interface have the same name, at most 15 letters.
#[derive(Debug)]
pub struct Guest {
    world: Arc<World>,
    name: String,
    init: Process,
    client: Arc<Mutex<Option<DhcpClient>>>,
    watch: Option<CarrierWatch>,
}

impl Guest {
    /// Makes the namespace and starts its init process; the interface comes with `port add … --netns NAME`.
    ///
    /// # Errors
    /// As [`World::spawn`].
    pub fn new(world: &Arc<World>, name: &str) -> Result<Self, LabError> {
        world.add_netns(name)?;
        // A guest without IPv6 in its vnet need not fill captures with router solicitations.
        world.script(Some(name), "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6 || true")?;
        let init = world.spawn(Some(name), "sleep", &["infinity"])?;
        // Only then has it the /sys of its namespace.
        let comm = format!("/proc/{}/comm", init.pid());
        wait_until(&format!("the init process of {name}"), Duration::from_secs(20), || {
            Ok(fs::read_to_string(&comm).is_ok_and(|comm| comm.trim() == "sleep").then_some(()))
        })?;
        Ok(Self {
            world: Arc::clone(world),
            name: name.to_owned(),
            init,
            client: Arc::default(),
            watch: None,
        })
    }

    /// Name of the guest, its namespace, its port and its interface.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process that stands for the running machine.
    #[must_use]
    pub fn init(&self) -> &Process {
        &self.init
    }

    /// Runs a command in the guest.
    ///
    /// # Errors
    /// As [`World::run`].
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String, LabError> {
        self.world.run(Some(&self.name), program, arguments)
    }

    /// Starts a program in the guest.
    ///
    /// # Errors
    /// As [`World::spawn`].
    pub fn spawn(&self, program: &str, arguments: &[&str]) -> Result<Process, LabError> {
        self.world.spawn(Some(&self.name), program, arguments)
    }

    /// Sets an address by hand instead of DHCP.
    ///
    /// # Errors
    /// As [`World::run`].
    pub fn set_address(&self, address: Ipv4Addr, prefix: u8) -> Result<(), LabError> {
        let (name, address) = (self.name.as_str(), format!("{address}/{prefix}"));
        self.run("ip", &["link", "set", name, "up"])?;
        self.run("ip", &["-4", "address", "flush", "dev", name])?;
        self.run("ip", &["address", "add", &address, "dev", name]).map(drop)
    }

    /// The guest's IPv4 address as its kernel has it.
    ///
    /// # Errors
    /// As [`World::run`].
    pub fn address(&self) -> Result<Option<Ipv4Addr>, LabError> {
        let text = self.run("ip", &["-4", "-o", "address", "show", "dev", &self.name])?;
        let address = text.split_whitespace().skip_while(|word| *word != "inet").nth(1);
        Ok(address.and_then(|cidr| cidr.split('/').next()).and_then(|address| address.parse().ok()))
    }

    /// The MAC of its interface.
    ///
    /// # Errors
    /// `File` when there is no interface.
    pub fn mac(&self) -> Result<String, LabError> {
        self.interface_file("address")
    }

    /// Waits until the guest has `address`.
    ///
    /// # Errors
    /// `TimedOut`, with what its DHCP client said.
    pub fn wait_for_address(&self, address: Ipv4Addr, limit: Duration) -> Result<(), LabError> {
        let what = format!("guest {} to have {address}", self.name);
        wait_until(&what, limit, || Ok((self.address()? == Some(address)).then_some(()))).map_err(|error| {
            match error {
                LabError::TimedOut { what, seconds } => LabError::TimedOut {
                    what: format!("{what}; its DHCP client said: {}", self.client_output()),
                    seconds,
                },
                other => other,
            }
        })
    }

    /// Does one of `count` pings come back within a second each?
    ///
    /// # Errors
    /// As [`World::succeeds`].
    pub fn ping(&self, to: Ipv4Addr, count: u32) -> Result<bool, LabError> {
        let (to, count) = (to.to_string(), count.to_string());
        self.world.succeeds(
            Some(&self.name),
            "ping",
            &["-n", "-q", "-i", "0.2", "-c", &count, "-W", "1", &to],
        )
    }

    /// Pings until an answer comes.
    ///
    /// # Errors
    /// `TimedOut` after `limit`.
    pub fn wait_for_ping(&self, to: Ipv4Addr, limit: Duration) -> Result<(), LabError> {
        let what = format!("an answer of {to} to guest {}", self.name);
        wait_until(&what, limit, || Ok(self.ping(to, 1)?.then_some(())))
    }

    /// Starts a DHCP client, or starts it anew.
    ///
    /// # Errors
    /// As [`DhcpClient::start`].
    pub fn start_dhcp(&self, kind: ClientKind) -> Result<(), LabError> {
        let mut client = lock(&self.client);
        // The old one must be gone first, or it would answer for the new one.
        *client = None;
        *client = Some(DhcpClient::start(&self.world, &self.name, &self.name, kind)?);
        Ok(())
    }

    /// Sends a signal to the DHCP client.
    pub fn signal_dhcp(&self, signal: rustix::process::Signal) {
        if let Some(client) = lock(&self.client).as_mut() {
            client.process().signal(signal);
        }
    }

    /// What the DHCP client has printed.
    #[must_use]
    pub fn client_output(&self) -> String {
        lock(&self.client).as_mut().map(|client| client.process().output()).unwrap_or_default()
    }

    /// What DHCP brought so far, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<LeaseEvent> {
        DhcpClient::events(&self.world, &self.name)
    }

    /// From now on the DHCP client is started anew whenever the link comes back: what a guest needs whose client does
    /// not watch the link (udhcpc, dhclient).
    ///
    /// # Errors
    /// `File` when the guest has no interface yet.
    pub fn watch_carrier(&mut self) -> Result<(), LabError> {
        let (world, name, client) = (Arc::clone(&self.world), self.name.clone(), Arc::clone(&self.client));
        self.watch = Some(CarrierWatch::start(self, move || {
            let mut client = lock(&client);
            let kind = client.as_ref().map(DhcpClient::kind);
            *client = None;
            if let Some(kind) = kind {
                *client = DhcpClient::start(&world, &name, &name, kind).ok();
            }
        })?);
        Ok(())
    }

    /// A file of the interface under `/sys/class/net`, trimmed.
    pub(super) fn interface_file(&self, file: &str) -> Result<String, LabError> {
        let path = self.interface_path(file);
        fs::read_to_string(&path).map(|text| text.trim().to_owned()).map_err(LabError::file("read", &path))
    }

    fn interface_path(&self, file: &str) -> PathBuf {
        // `ip netns exec` gave the init process a /sys of its own namespace.
        PathBuf::from(format!("/proc/{}/root/sys/class/net/{}/{file}", self.init.pid(), self.name))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.watch = None;
    }
}

/// A thread that calls back whenever the link has come back. It polls `carrier_changes`: netlink listeners of all
/// namespaces share the kernel's merging of link events and may miss a short bounce.
#[derive(Debug)]
pub struct CarrierWatch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl CarrierWatch {
    /// Starts to watch the guest's interface.
    ///
    /// # Errors
    /// `File` when the guest has no interface yet.
    pub fn start(guest: &Guest, mut link_is_back: impl FnMut() + Send + 'static) -> Result<Self, LabError> {
        let mut seen = guest.interface_file("carrier_changes")?;
        let (changes, carrier) = (guest.interface_path("carrier_changes"), guest.interface_path("carrier"));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                thread::sleep(CARRIER_POLL);
                let now = fs::read_to_string(&changes).map(|text| text.trim().to_owned()).unwrap_or_default();
                let up = || fs::read_to_string(&carrier).is_ok_and(|carrier| carrier.trim() == "1");
                if now != seen && up() {
                    seen = now;
                    link_is_back();
                }
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for CarrierWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(client: &Mutex<Option<DhcpClient>>) -> MutexGuard<'_, Option<DhcpClient>> {
    // A client is whole at every moment, also when a holder of the lock died.
    client.lock().unwrap_or_else(PoisonError::into_inner)
}
