//! A host's side of its identity: a key made here, and what the controller gave for it.

use std::fmt;
use std::path::Path;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::authority::new_key;
use super::certificate::{HostCertificate, host_certificate};
use super::error::crypto;
use super::{IdentityError, files};

const FILE: &str = "identity.pem";
/// The key of a host that has not joined yet: the same at each try, so that an answer that got lost can be given again.
const JOINING: &str = "joining.pem";

/// A host's private key. It is written to the host's own disk and nowhere else.
pub struct HostKey(KeyPair);

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostKey(…)")
    }
}

impl HostKey {
    /// A new one, in memory.
    ///
    /// # Errors
    /// `Crypto`.
    pub fn new() -> Result<Self, IdentityError> {
        new_key().map(Self)
    }

    /// The key that this host joins with, kept in `directory` until it has.
    ///
    /// # Errors
    /// When the file cannot be had or is no key.
    pub fn for_joining(directory: &Path) -> Result<Self, IdentityError> {
        files::make_directory(directory)?;
        let path = directory.join(JOINING);
        if let Some(text) = files::read(&path)? {
            let key = KeyPair::from_pem(&text);
            let garbled = |error: rcgen::Error| IdentityError::Garbled { file: path, why: error.to_string() };
            return key.map(Self).map_err(garbled);
        }
        let key = new_key()?;
        files::write(&path, &key.serialize_pem())?;
        Ok(Self(key))
    }

    /// A certificate request (PKCS #10, DER), signed with the key.
    ///
    /// # Errors
    /// `Crypto`.
    pub fn request(&self) -> Result<Vec<u8>, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params.serialize_request(&self.0).map_err(crypto("sign the certificate request"))?;
        Ok(request.der().to_vec())
    }

    pub(super) fn der(&self) -> Vec<u8> {
        self.0.serialize_der()
    }
}

/// What a host proves itself with.
#[derive(Debug)]
pub struct Credentials {
    key: HostKey,
    certificate: CertificateDer<'static>,
    authority: CertificateDer<'static>,
    says: HostCertificate,
}

impl Credentials {
    /// Key, certificate and authority, once it is sure that they belong together.
    ///
    /// # Errors
    /// `Certificate` when it is no host's, or another key's.
    pub fn new(
        key: HostKey,
        certificate: CertificateDer<'static>,
        authority: CertificateDer<'static>,
    ) -> Result<Self, IdentityError> {
        let says = host_certificate(&certificate)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)
            .map_err(|error| IdentityError::Certificate { why: error.to_string() })?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.0.public_key_raw() {
            return Err(IdentityError::Certificate { why: "it is another key's".to_owned() });
        }
        Ok(Self { key, certificate, authority, says })
    }

    /// Those that are kept in `directory`; none before the host has joined.
    ///
    /// # Errors
    /// When the file cannot be read, is not understood, or may be read by others.
    pub fn load(directory: &Path) -> Result<Option<Self>, IdentityError> {
        let path = directory.join(FILE);
        let Some(text) = files::read(&path)? else { return Ok(None) };
        let garbled = |why: String| IdentityError::Garbled { file: path.clone(), why };
        let key = KeyPair::from_pem(&text).map_err(|error| garbled(format!("key: {error}")))?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        let certificates = certificates.map_err(|error| garbled(format!("certificates: {error}")))?;
        let [certificate, authority] = certificates.as_slice() else {
            return Err(garbled("it does not have two certificates".to_owned()));
        };
        let loaded = Self::new(HostKey(key), certificate.clone(), authority.clone());
        loaded.map(Some).map_err(|error| garbled(error.to_string()))
    }

    /// Keeps them in `directory`, in one file, whole or not at all.
    ///
    /// # Errors
    /// `File`.
    pub fn save(&self, directory: &Path) -> Result<(), IdentityError> {
        files::make_directory(directory)?;
        let key = self.key.0.serialize_pem();
        let text = format!("{key}{}{}", pem(&self.certificate), pem(&self.authority));
        files::write(&directory.join(FILE), &text)?;
        files::remove(&directory.join(JOINING))
    }

    /// What the certificate says.
    #[must_use]
    pub fn says(&self) -> HostCertificate {
        self.says
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &HostKey {
        &self.key
    }

    /// The host's certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The certificate that controllers are verified by.
    #[must_use]
    pub fn authority(&self) -> &CertificateDer<'static> {
        &self.authority
    }
}

/// The text form of a certificate (RFC 7468).
fn pem(der: &CertificateDer<'_>) -> String {
    use base64::Engine;
    use std::fmt::Write;
    let coded = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = coded.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        let _ = writeln!(text, "{line}");
        rest = tail;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}
