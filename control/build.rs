//! Makes the Rust side of `proto/fleet.proto`. The compiler of protocol buffers is a library here: no `protoc` is needed.

#![allow(clippy::print_stdout, reason = "that is how a build script speaks to cargo")]

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/fleet.proto");
    let descriptors = protox::compile(["proto/fleet.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
