//! TLS 1.3 with ring, and nothing older. Whom each side believes: the cluster's authority and nobody else.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::{Authority, Credentials, IdentityError};

/// What every controller's certificate is named, wherever it listens.
pub const CONTROLLER_NAME: &str = "controller.shunt.internal";
/// How long a controller's certificate holds; it gets a new one after a third of that.
const SERVER_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
const HTTP2: &[u8] = b"h2";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn failed(act: &'static str) -> impl Fn(rustls::Error) -> IdentityError {
    move |error| IdentityError::Crypto { act, why: error.to_string() }
}

/// Random bytes.
pub(super) fn random<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut bytes = [0; N];
    ring::default_provider().secure_random.fill(&mut bytes).map_err(|_| IdentityError::Crypto {
        act: "read random numbers",
        why: "the machine has none".to_owned(),
    })?;
    Ok(bytes)
}

fn roots(authority: &CertificateDer<'static>) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).map_err(failed("use the authority's certificate"))?;
    Ok(roots)
}

/// The controller's own certificate: made in memory, and made anew long before it ends.
pub struct ServerIdentity {
    authority: Arc<Authority>,
    current: Mutex<(Arc<CertifiedKey>, Timestamp)>,
}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerIdentity").finish_non_exhaustive()
    }
}

impl ServerIdentity {
    /// The first certificate.
    ///
    /// # Errors
    /// `Crypto`.
    pub fn new(authority: Arc<Authority>, now: Timestamp) -> Result<Self, IdentityError> {
        let current = Mutex::new((certified(&authority, now)?, now));
        Ok(Self { authority, current })
    }

    fn at(&self, now: Timestamp) -> Arc<CertifiedKey> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let age = now.as_second().saturating_sub(current.1.as_second());
        if u64::try_from(age).is_ok_and(|age| age > SERVER_LIFE.as_secs() / 3) {
            match certified(&self.authority, now) {
                Ok(fresh) => *current = (fresh, now),
                // The old one holds for as long again.
                Err(error) => tracing::error!(%error, "the controller has no new certificate"),
            }
        }
        current.0.clone()
    }
}

fn certified(authority: &Authority, now: Timestamp) -> Result<Arc<CertifiedKey>, IdentityError> {
    let (certificate, key) = authority.sign_controller(now, SERVER_LIFE)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let certified = CertifiedKey::from_der(vec![certificate], key, &provider());
    Ok(Arc::new(certified.map_err(failed("use the controller's key"))?))
}

impl ResolvesServerCert for ServerIdentity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.at(Timestamp::now()))
    }
}

/// The controller's side. Clients without a certificate come in, for they may want to join; clients with a certificate of
/// somebody else do not.
///
/// # Errors
/// `Crypto`.
pub fn server_config(identity: Arc<ServerIdentity>) -> Result<ServerConfig, IdentityError> {
    let roots = Arc::new(roots(identity.authority.certificate())?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| IdentityError::Crypto { act: "verify hosts", why: error.to_string() })?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(failed("speak TLS 1.3"))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(identity);
    config.alpn_protocols = vec![HTTP2.to_vec()];
    // A resumed session would bring back a client certificate without a look at its end.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The side of a host that has joined.
///
/// # Errors
/// `Crypto` when key and certificate do not fit each other.
pub fn client_config(credentials: &Credentials) -> Result<ClientConfig, IdentityError> {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(credentials.key().der()));
    let config = client(credentials.authority())?
        .with_client_auth_cert(vec![credentials.certificate().clone()], key)
        .map_err(failed("use the host's key"))?;
    Ok(over_http2(config))
}

/// The side of a host that has yet to join, and knows the authority from its token.
///
/// # Errors
/// `Crypto` when the authority's certificate is none.
pub fn joining_config(authority: &CertificateDer<'static>) -> Result<ClientConfig, IdentityError> {
    Ok(over_http2(client(authority)?.with_no_client_auth()))
}

type ClientBuilder = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

fn client(authority: &CertificateDer<'static>) -> Result<ClientBuilder, IdentityError> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(failed("speak TLS 1.3"))?
        .with_root_certificates(roots(authority)?))
}

fn over_http2(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![HTTP2.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config
}
