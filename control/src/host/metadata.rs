//! What the agent asks of the metadata service: documents by port and label, and what guests report.

use async_trait::async_trait;
use jiff::Timestamp;

use crate::imds::{Document, Documents, Interface, Received, instance};
use crate::model::{GuestReport, Problem, VmDesired};

/// Where machines are, in the instance document's words.
const LOCATION: &str = "shunt";

/// Publishes machines' documents. The switch tells the service a port's label with each connection, and changes it in the
/// same step as the network: a document is public from the moment of the change on.
#[async_trait]
pub trait Metadata: Send + Sync + 'static {
    /// Has a machine's document ready for its port under this label.
    ///
    /// # Errors
    /// When it cannot be published.
    async fn publish(&self, vm: &VmDesired, label: &str) -> Result<(), Problem>;

    /// Takes back all documents of a port, but for one label's.
    async fn retire(&self, port: &str, except: Option<&str>);
}

/// What a guest said. Which one it was, its port says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The port that it came by.
    pub port: String,
    /// The label that the port had then.
    pub label: String,
    /// What was said.
    pub report: GuestReport,
    /// When it came.
    pub at: Timestamp,
}

impl From<Received> for Report {
    fn from(received: Received) -> Self {
        let Received { port, label, report, at } = received;
        Self { port, label, report, at }
    }
}

#[async_trait]
impl Metadata for Documents {
    async fn publish(&self, vm: &VmDesired, label: &str) -> Result<(), Problem> {
        let network = vm.config.network.as_ref();
        let interface = Interface {
            mac: vm.mac.0,
            addresses: network.map(|network| network.addresses.clone()).unwrap_or_default(),
        };
        let document =
            Document::new(&vm.config, instance(&vm.config, &interface, LOCATION)).map_err(|error| {
                let what = format!("its document cannot be written: {error}");
                Problem::new(what, format!("vm {}", vm.vm), "this is a mistake in the program")
            })?;
        Self::publish(self, &vm.port, label, document);
        Ok(())
    }

    async fn retire(&self, port: &str, except: Option<&str>) {
        // No label is empty: without an exception none stays.
        self.retain(port, except.unwrap_or_default());
    }
}
