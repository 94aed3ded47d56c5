//! Argument parsing and wiring, nothing else.

fn main() {}
