//! The control side. For now: the command line's verbs for one host's switch, the laboratory, the demonstration.

/// What [`cli::command`] is made of.
pub use clap;

pub mod cli;
pub mod demo;
pub mod format;
pub mod lab;
