//! What one port may use, so that a guest that wants too much takes it from nobody else.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The limits of each port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; further ones are closed at once.
    pub connections: usize,
    /// Requests a second in the long run; more are answered with 429.
    pub requests_per_second: u32,
    /// Requests that may come at once after a pause.
    pub burst: u32,
    /// The longest report, in bytes.
    pub report_bytes: usize,
    /// From the first byte of a request to the end of its headers, and the same for a report's body.
    pub read: Duration,
    /// How long a connection may live.
    pub connection: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16,
            requests_per_second: 50,
            burst: 100,
            report_bytes: 64 << 10,
            read: Duration::from_secs(5),
            connection: Duration::from_secs(300),
        }
    }
}

/// Ports whose bucket is remembered although they have no connection. Beyond that, full buckets are forgotten.
const REMEMBERED: usize = 1024;

#[derive(Debug)]
struct Port {
    connections: usize,
    /// Requests that may come now, as of `at`.
    tokens: f64,
    at: Instant,
}

/// What all ports use now.
#[derive(Clone, Debug)]
pub(super) struct Ports {
    limits: Limits,
    ports: Arc<Mutex<HashMap<String, Port>>>,
}

/// One connection of a port; it counts until it is dropped.
#[derive(Debug)]
pub(super) struct Admission {
    all: Ports,
    port: String,
}

impl Ports {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, ports: Arc::default() }
    }

    /// Admits a connection; `None` when the port has enough.
    pub(super) fn admit(&self, name: &str, now: Instant) -> Option<Admission> {
        let mut ports = self.lock();
        if ports.len() > REMEMBERED {
            ports.retain(|_, port| port.connections > 0 || !self.is_full(port, now));
        }
        let full = f64::from(self.limits.burst);
        let port = ports.entry(name.to_owned()).or_insert(Port { connections: 0, tokens: full, at: now });
        if port.connections >= self.limits.connections {
            return None;
        }
        port.connections += 1;
        Some(Admission { all: self.clone(), port: name.to_owned() })
    }

    fn is_full(&self, port: &Port, now: Instant) -> bool {
        self.tokens(port, now) >= f64::from(self.limits.burst)
    }

    fn tokens(&self, port: &Port, now: Instant) -> f64 {
        let grown =
            now.saturating_duration_since(port.at).as_secs_f64() * f64::from(self.limits.requests_per_second);
        (port.tokens + grown).min(f64::from(self.limits.burst))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Port>> {
        // Counts are whole at every moment, also when a holder of the lock died.
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admission {
    /// May the port ask once more now?
    pub(super) fn request(&self, now: Instant) -> bool {
        let mut ports = self.all.lock();
        let Some(port) = ports.get_mut(&self.port) else { return false };
        let tokens = self.all.tokens(port, now);
        let may = tokens >= 1.0;
        port.tokens = if may { tokens - 1.0 } else { tokens };
        port.at = now;
        may
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(port) = self.all.lock().get_mut(&self.port) {
            port.connections = port.connections.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_has_its_own_connections_and_requests() {
        let limits = Limits { connections: 2, requests_per_second: 10, burst: 3, ..Limits::default() };
        let (ports, now) = (Ports::new(limits), Instant::now());
        let first = ports.admit("a", now).unwrap();
        let second = ports.admit("a", now).unwrap();
        assert!(ports.admit("a", now).is_none());
        assert!(ports.admit("b", now).is_some());
        drop(second);
        let second = ports.admit("a", now).unwrap();
        assert_eq!([&first, &second, &first, &second].map(|by| by.request(now)), [true, true, true, false]);
        assert!(!first.request(now + Duration::from_millis(50)));
        assert!(first.request(now + Duration::from_millis(150)));
        drop((first, second));
        assert!(
            !ports
                .admit("a", now + Duration::from_millis(150))
                .unwrap()
                .request(now + Duration::from_millis(150))
        );
    }

    #[test]
    fn names_are_not_remembered_without_bound() {
        let (ports, now) = (Ports::new(Limits::default()), Instant::now());
        for number in 0..5 * REMEMBERED {
            drop(ports.admit(&number.to_string(), now));
        }
        assert!(ports.lock().len() <= REMEMBERED + 1);
    }
}
