//! The table of who gets in, over real TLS in memory; files; tokens.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what broke by panicking")]

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::model::HostId;

fn authority(directory: &tempfile::TempDir) -> Arc<Authority> {
    Arc::new(Authority::open(directory.path(), Timestamp::now()).unwrap())
}

fn credentials(authority: &Authority, host: HostId, now: Timestamp) -> Credentials {
    let key = HostKey::new().unwrap();
    let certificate = authority.sign_host(host, &key.request().unwrap(), now).unwrap();
    Credentials::new(key, certificate, authority.certificate().clone()).unwrap()
}

/// What the server learns of a client that comes with `client`, or why one of both refuses the other.
async fn shake_hands(
    server: &Arc<Authority>,
    client: rustls::ClientConfig,
) -> Result<Option<HostId>, String> {
    let identity = ServerIdentity::new(server.clone(), Timestamp::now()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server_config(Arc::new(identity)).unwrap()));
    let (near, far) = tokio::io::duplex(64 << 10);
    let name = ServerName::try_from(CONTROLLER_NAME).unwrap();
    let client = tokio::spawn(async move {
        use tokio::io::AsyncReadExt;
        let mut stream = TlsConnector::from(Arc::new(client)).connect(name, near).await?;
        // A refusal of the client's certificate comes after the client's part of the handshake.
        stream.read_u8().await
    });
    let accepted = acceptor.accept(far).await;
    let answer = match accepted {
        Err(error) => Err(format!("server: {error}")),
        Ok(mut stream) => {
            use tokio::io::AsyncWriteExt;
            stream.write_u8(1).await.unwrap();
            stream.flush().await.unwrap();
            let certificates = stream.get_ref().1.peer_certificates();
            let host =
                certificates.and_then(|all| all.first()).map(|one| host_certificate(one).unwrap().host);
            Ok(host)
        }
    };
    match client.await.unwrap() {
        Err(error) if answer.is_ok() => Err(format!("client: {error}")),
        _ => answer,
    }
}

#[tokio::test]
async fn only_certificates_of_this_authority_are_believed_on_either_side() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ours, theirs) = (authority(&ours), authority(&theirs));
    let (host, now) = (HostId::new(), Timestamp::now());
    let client = |credentials: &Credentials| client_config(credentials).unwrap();
    let good = credentials(&ours, host, now);
    assert_eq!(shake_hands(&ours, client(&good)).await, Ok(Some(host)));
    let joining = joining_config(ours.certificate()).unwrap();
    assert_eq!(shake_hands(&ours, joining).await, Ok(None), "who has no certificate may join");

    let expired = credentials(&ours, host, now - (CERTIFICATE_LIFE + Duration::from_secs(60)));
    // A certificate of another authority, in the hands of a client that believes our controller.
    let key = HostKey::new().unwrap();
    let foreign = theirs.sign_host(host, &key.request().unwrap(), now).unwrap();
    let foreign = Credentials::new(key, foreign, ours.certificate().clone()).unwrap();
    // A client of theirs that was led to our controller.
    let misled = credentials(&theirs, host, now);
    for (what, client, who) in [
        ("expired", client(&expired), "server"),
        ("foreign authority", client(&foreign), "server"),
        ("another cluster's controller", client(&misled), "server"),
        ("a token of another cluster", joining_config(theirs.certificate()).unwrap(), "server"),
    ] {
        let refused = shake_hands(&ours, client).await.unwrap_err();
        assert!(refused.starts_with(who), "{what}: {refused}");
    }
}

#[tokio::test]
async fn a_host_cannot_play_the_controller_and_nobody_speaks_an_older_tls() {
    let directory = tempfile::tempdir().unwrap();
    let authority = authority(&directory);
    let host = credentials(&authority, HostId::new(), Timestamp::now());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.certificate().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(host.key().der()).into();
    let impostor =
        builder.with_no_client_auth().with_single_cert(vec![host.certificate().clone()], key).unwrap();
    let (near, far) = tokio::io::duplex(64 << 10);
    let client = TlsConnector::from(Arc::new(joining_config(authority.certificate()).unwrap()));
    let name = ServerName::try_from(CONTROLLER_NAME).unwrap();
    let (seen, _) =
        tokio::join!(client.connect(name, near), TlsAcceptor::from(Arc::new(impostor)).accept(far));
    let refused = seen.unwrap_err().to_string();
    assert!(refused.contains("invalid peer certificate"), "{refused}");

    let old = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    assert!(shake_hands(&authority, old).await.is_err());
}

#[test]
fn an_authority_is_made_once_and_kept_from_others() {
    let directory = tempfile::tempdir().unwrap();
    let kept = directory.path().join("trust");
    let now = Timestamp::now();
    let first = Authority::open(&kept, now).unwrap();
    let again = Authority::open(&kept, now).unwrap();
    assert_eq!(first.certificate(), again.certificate());
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let file = kept.join("authority.pem");
    assert_eq!((mode(&kept), mode(&file)), (0o700, 0o600));

    // Others could have read it: not used, not replaced.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(Authority::open(&kept, now), Err(IdentityError::Exposed { mode: 0o640, .. })));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();

    // Half a file, or another one's certificate, is refused and left as it is.
    let text = std::fs::read_to_string(&file).unwrap();
    let (_, other) = Authority::make(now).unwrap();
    let key_only = text.split_inclusive("-----END PRIVATE KEY-----\n").next().unwrap().to_owned();
    let mixed = key_only.clone() + other.split_once("-----END PRIVATE KEY-----\n").unwrap().1;
    for broken in [String::new(), text[..text.len() / 2].to_owned(), key_only, mixed] {
        std::fs::write(&file, &broken).unwrap();
        let refused = Authority::open(&kept, now).unwrap_err();
        assert!(matches!(refused, IdentityError::Garbled { .. }), "{refused}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), broken);
    }
    // What a crash left of a new one is no obstacle.
    std::fs::remove_file(&file).unwrap();
    std::fs::write(kept.join("authority.new"), "half").unwrap();
    Authority::open(&kept, now).unwrap();
}

#[test]
fn a_certificate_says_what_the_authority_says_and_not_what_the_request_says() {
    let directory = tempfile::tempdir().unwrap();
    let authority = authority(&directory);
    let (host, other, now) = (HostId::new(), HostId::new(), Timestamp::now());
    // A request that asks for another host's name, and to be an authority.
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names =
        vec![rcgen::SanType::URI(format!("spiffe://shunt/host/{other}").try_into().unwrap())];
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let request = params.serialize_request(&key).unwrap();
    let signed = authority.sign_host(host, request.der(), now).unwrap();
    let says = host_certificate(&signed).unwrap();
    assert_eq!(says.host, host);
    let (_, parsed) = x509_parser::parse_x509_certificate(&signed).unwrap();
    assert!(!parsed.is_ca());
    assert!(!says.is_due(now) && says.is_due(now + Duration::from_secs(21 * 24 * 3600)));

    // A request that somebody changed on its way, rubbish, and too much of it.
    let mut changed = request.der().to_vec();
    *changed.last_mut().unwrap() ^= 1;
    for bad in [changed, Vec::new(), vec![0x30; 100], vec![0; LARGEST_REQUEST + 1]] {
        assert!(matches!(authority.sign_host(host, &bad, now), Err(IdentityError::Request { .. })));
    }
    // The controller's certificate is no host's, nor is the authority's.
    let (controller, _) = authority.sign_controller(now, CERTIFICATE_LIFE).unwrap();
    for certificate in [&controller, authority.certificate()] {
        assert!(matches!(host_certificate(certificate), Err(IdentityError::Certificate { .. })));
    }
}

#[test]
fn a_host_keeps_its_key_between_tries_and_its_identity_afterwards() {
    let (state, directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let authority = authority(&directory);
    let key = HostKey::for_joining(state.path()).unwrap();
    let again = HostKey::for_joining(state.path()).unwrap();
    assert_eq!(key.der(), again.der());
    assert!(Credentials::load(state.path()).unwrap().is_none());

    let host = HostId::new();
    let certificate = authority.sign_host(host, &key.request().unwrap(), Timestamp::now()).unwrap();
    // Another key's certificate is not taken.
    let stranger = HostKey::new().unwrap();
    assert!(Credentials::new(stranger, certificate.clone(), authority.certificate().clone()).is_err());
    let joined = Credentials::new(key, certificate, authority.certificate().clone()).unwrap();
    joined.save(state.path()).unwrap();
    let loaded = Credentials::load(state.path()).unwrap().unwrap();
    assert_eq!((loaded.says(), loaded.authority()), (joined.says(), joined.authority()));
    assert_eq!(loaded.key().der(), joined.key().der());
    assert!(!state.path().join("joining.pem").exists());
    client_config(&loaded).unwrap();
}

#[test]
fn tokens_survive_their_text_and_tell_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let authority = authority(&directory);
    let token = JoinToken {
        authority: authority.certificate().clone(),
        secret: Secret::new().unwrap(),
        addresses: vec!["192.0.2.10:9479".to_owned()],
    };
    let text = token.reveal();
    let read: JoinToken = text.parse().unwrap();
    assert_eq!(read.secret.hash(), token.secret.hash());
    assert_eq!((&read.authority, &read.addresses), (&token.authority, &token.addresses));
    let hash = token.secret.hash().to_string();
    assert_eq!(SecretHash::try_from(hash).unwrap(), token.secret.hash());
    assert_ne!(Secret::new().unwrap().hash(), token.secret.hash());

    let shown = format!("{token:?}");
    assert!(shown.contains("Secret(…)"), "{shown}");
    let coded = &text[PREFIX.len()..];
    let long = format!("{PREFIX}{}", "A".repeat(20_000));
    for bad in ["", "shunt-join-", coded, &text[..text.len() - 5], &format!("{text}!"), &long] {
        let error = bad.parse::<JoinToken>().unwrap_err();
        assert!(!error.to_string().contains("AAAA") && !error.problem().remedy.is_empty());
    }
}
