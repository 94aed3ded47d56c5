//! Bytes ⇄ values: one file per protocol. No I/O, no clock, no allocation on parse, no policy.
