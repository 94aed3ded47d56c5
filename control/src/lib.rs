//! The control side: the nouns of a cluster, the command line, the laboratory, the demonstration.

/// What [`cli::command`] is made of.
pub use clap;

pub mod api;
pub mod cli;
pub mod compute;
pub mod controller;
pub mod demo;
pub mod dev;
pub mod fleet;
pub mod format;
pub mod host;
pub mod hypervisor;
pub mod imds;
pub mod lab;
pub mod model;
pub mod network;
pub mod pool;
pub mod reconcile;
pub mod storage;
pub mod store;
pub mod tenant;
pub mod workflow;
