//! What is said over the link: made from `control/proto/fleet.proto`.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated; proto/fleet.proto has the documentation"
)]

tonic::include_proto!("shunt.fleet.v1");
