//! The controller's certificate authority: made at its first start, kept in its state directory, never replaced by itself.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};

use super::certificate::uri_of;
use super::error::crypto;
use super::tls::{CONTROLLER_NAME, random};
use super::{IdentityError, files};
use crate::model::HostId;

/// How long a host's certificate holds.
pub const CERTIFICATE_LIFE: Duration = Duration::from_secs(30 * DAY);
/// The longest certificate request that is looked at, in bytes.
pub const LARGEST_REQUEST: usize = 8 << 10;

const DAY: u64 = 24 * 3600;
/// How long the authority itself holds.
const AUTHORITY_LIFE: Duration = Duration::from_secs(20 * 365 * DAY);
/// Machines whose clocks are this far behind still believe a new certificate.
const SKEW: Duration = Duration::from_secs(3600);
const FILE: &str = "authority.pem";

/// The authority that signs the certificates of one cluster.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// The authority that is kept in `directory`; a new one if there is none. Key and certificate are in one file, so that
    /// there is never one without the other.
    ///
    /// # Errors
    /// When the file cannot be had, is no authority, or may be read by others. An unreadable authority is not replaced: all
    /// hosts would have to join anew.
    pub fn open(directory: &Path, now: Timestamp) -> Result<Self, IdentityError> {
        files::make_directory(directory)?;
        let path = directory.join(FILE);
        if let Some(text) = files::read(&path)? {
            let garbled = |why: String| IdentityError::Garbled { file: path.clone(), why };
            let key = KeyPair::from_pem(&text).map_err(|error| garbled(format!("key: {error}")))?;
            let certificate = CertificateDer::from_pem_slice(text.as_bytes())
                .map_err(|error| garbled(format!("certificate: {error}")))?;
            return Self::of(certificate, key).map_err(|error| garbled(error.to_string()));
        }
        let (authority, text) = Self::make(now)?;
        files::write(&path, &text)?;
        Ok(authority)
    }

    /// A new authority, and the text of its file.
    pub(super) fn make(now: Timestamp) -> Result<(Self, String), IdentityError> {
        let key = new_key()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Shunt cluster authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        valid(&mut params, now, AUTHORITY_LIFE)?;
        let certificate = params.self_signed(&key).map_err(crypto("make the authority's certificate"))?;
        let text = format!("{}{}", key.serialize_pem(), certificate.pem());
        Ok((Self::of(certificate.der().clone(), key)?, text))
    }

    fn of(certificate: CertificateDer<'static>, key: KeyPair) -> Result<Self, IdentityError> {
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)
            .map_err(|error| IdentityError::Certificate { why: error.to_string() })?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            let why = "its key belongs to another certificate".to_owned();
            return Err(IdentityError::Certificate { why });
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(crypto("read the authority"))?;
        Ok(Self { issuer, certificate })
    }

    /// The authority's own certificate, which hosts verify the controller by.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A certificate for a host: its id as `spiffe://shunt/host/ID`, good for [`CERTIFICATE_LIFE`], as a TLS client only.
    /// Of the request only the public key is taken, and that its maker has the private one.
    ///
    /// # Errors
    /// `Request` when it is none, or its signature does not hold; `Crypto` when it cannot be signed.
    pub fn sign_host(
        &self,
        host: HostId,
        request: &[u8],
        now: Timestamp,
    ) -> Result<CertificateDer<'static>, IdentityError> {
        let request = read_request(request)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("host {host}"));
        let uri = uri_of(host).try_into().map_err(crypto("name the host"))?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        valid(&mut params, now, CERTIFICATE_LIFE)?;
        let signed = params.signed_by(&request.public_key, &self.issuer);
        Ok(signed.map_err(crypto("sign the certificate"))?.der().clone())
    }

    /// A new key and a certificate for the controller itself, good for `life`, as a TLS server only. It is named
    /// [`CONTROLLER_NAME`] wherever it listens: the authority signs nothing else that could be taken for a controller.
    pub(super) fn sign_controller(
        &self,
        now: Timestamp,
        life: Duration,
    ) -> Result<(CertificateDer<'static>, KeyPair), IdentityError> {
        let key = new_key()?;
        let mut params =
            CertificateParams::new([CONTROLLER_NAME.to_owned()]).map_err(crypto("name the controller"))?;
        params.distinguished_name.push(DnType::CommonName, "Shunt controller");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        valid(&mut params, now, life)?;
        let signed = params.signed_by(&key, &self.issuer).map_err(crypto("sign the certificate"))?;
        Ok((signed.der().clone(), key))
    }
}

fn read_request(request: &[u8]) -> Result<CertificateSigningRequestParams, IdentityError> {
    let refused = |why: String| IdentityError::Request { why };
    if request.len() > LARGEST_REQUEST {
        return Err(refused(format!("it has {} bytes, at most {LARGEST_REQUEST} may be", request.len())));
    }
    CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request))
        .map_err(|error| refused(error.to_string()))
}

/// The public key of a certificate request (PKCS #10, DER) whose signature holds.
///
/// # Errors
/// `Request` when it is none.
pub fn request_key(request: &[u8]) -> Result<Vec<u8>, IdentityError> {
    Ok(read_request(request)?.public_key.der_bytes().to_vec())
}

pub(super) fn new_key() -> Result<KeyPair, IdentityError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(crypto("make a key"))
}

/// Dates, and a serial number that no other certificate has: a renewed one may have the same key.
fn valid(params: &mut CertificateParams, now: Timestamp, life: Duration) -> Result<(), IdentityError> {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or_default());
    params.not_before = epoch + now.saturating_sub(SKEW);
    params.not_after = epoch + (now + life);
    let mut serial = random::<16>()?;
    // DER integers have a sign, and a serial number must be positive and not zero.
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(())
}
