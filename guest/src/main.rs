//! The agent for guests.
fn main() {}
