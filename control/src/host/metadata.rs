//! What the agent asks of the metadata service: documents by port and label, and what guests report.

use async_trait::async_trait;
use jiff::Timestamp;

use crate::model::{GuestReport, Problem, VmDesired};

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
