//! Who is who between controller and hosts: one certificate authority, kept by the controller; tokens that let a new host
//! in once; certificates that say which host it is; and the TLS that both sides speak.
//!
//! A host makes its key itself and never shows it. Keys and secrets are in files of mode 0600 and in memory; their `Debug`
//! says nothing, and nothing here logs. Never here: sockets, gRPC, which hosts there are.

mod authority;
mod certificate;
mod credentials;
mod error;
mod files;
mod tls;
mod token;

pub use authority::{Authority, CERTIFICATE_LIFE, LARGEST_REQUEST, request_key};
pub use certificate::{HostCertificate, host_certificate};
pub use credentials::{Credentials, HostKey};
pub use error::IdentityError;
pub use tls::{CONTROLLER_NAME, ServerIdentity, client_config, joining_config, server_config};
pub use token::{JoinToken, PREFIX, Secret, SecretHash, TokenError};

#[cfg(test)]
mod tests;
