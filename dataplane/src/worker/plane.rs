//! What is published to the workers in one step: the tables and the devices that they name.

use std::sync::Arc;

use crate::port::Device;
use crate::tables::Tables;
use crate::types::PortId;

/// One configuration of the switch, as workers see it. Ports and their devices change together, so no worker can pair
/// the tables of one generation with a device of another.
pub struct Plane {
    /// What the pipeline reads.
    pub tables: Tables,
    devices: Vec<Option<Arc<dyn Device>>>,
}

impl Plane {
    /// `devices` is indexed by [`PortId`].
    #[must_use]
    pub fn new(tables: Tables, devices: Vec<Option<Arc<dyn Device>>>) -> Self {
        Self { tables, devices }
    }

    /// The device of a port.
    #[must_use]
    pub fn device(&self, port: PortId) -> Option<&Arc<dyn Device>> {
        self.devices.get(port.index())?.as_ref()
    }
}
