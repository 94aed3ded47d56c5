//! The control side. For now: the command line's verbs for one host's switch.

pub mod cli;
pub mod demo;
pub mod lab;
