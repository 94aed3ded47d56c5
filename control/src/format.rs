//! The two forms in which every command prints what it found: all that the command line and the demonstration share.

use clap::ValueEnum;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: tables and sentences, which may change
    Table,
    /// For programs: stable and documented
    Json,
}
