//! The pool manager: how many partially provisioned machines of each combination are kept, and who gets one.

pub mod forecast;
