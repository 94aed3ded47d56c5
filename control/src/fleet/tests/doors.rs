//! Who may join, renew and attach.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tonic::Code;

use super::super::identity::{
    Authority, CERTIFICATE_LIFE, Credentials, HostKey, client_config, joining_config,
};
use super::super::proto::{self, FromHost, from_host};
use super::super::{DialError, Pace, codec, dial, join, renew, samples};
use super::{Said, Town};
use crate::model::{HostId, Name};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn hello() -> FromHost {
    let inventory_json = codec::to_json("inventory", &samples::inventory()).unwrap();
    let hello = proto::Hello { inventory_json, generation: None, directories: vec![] };
    FromHost { message: Some(from_host::Message::Hello(hello)) }
}

#[tokio::test]
async fn a_token_lets_one_host_in_once() {
    let town = Town::new().await;
    let key = || HostKey::new().unwrap();
    let refused = |result: Result<Credentials, DialError>| match result.unwrap_err() {
        DialError::Refused(problem) => problem.what,
        other => panic!("{other}"),
    };
    let state = tempfile::tempdir().unwrap();
    let token = town.token(None, 60);
    let first = join(&token, &name("host-a"), HostKey::for_joining(state.path()).unwrap()).await.unwrap();
    // The answer got lost: the same key gets it again, and nobody else.
    let again = join(&token, &name("host-a"), HostKey::for_joining(state.path()).unwrap()).await.unwrap();
    assert_eq!(first.says().host, again.says().host);
    let same_key = HostKey::for_joining(state.path()).unwrap();
    assert_eq!(refused(join(&token, &name("host-b"), same_key).await), "the join token was used already");
    assert_eq!(refused(join(&token, &name("host-a"), key()).await), "the join token was used already");

    let expired = town.token(None, -1);
    assert_eq!(refused(join(&expired, &name("host-b"), key()).await), "the join token has expired");
    let mut unknown = town.token(None, 60);
    unknown.secret = super::super::identity::Secret::new().unwrap();
    assert_eq!(refused(join(&unknown, &name("host-b"), key()).await), "the join token is not known");
    let bound = town.token(Some("host-c"), 60);
    assert_eq!(
        refused(join(&bound, &name("host-b"), key()).await),
        "the join token is for a host of another name"
    );
    // A refusal does not use a token up.
    let third = join(&bound, &name("host-c"), key()).await.unwrap();
    assert_ne!(third.says().host, first.says().host);

    // The name of a host that is there: only with a token that was made for it, and then it is that host.
    let taken = town.token(None, 60);
    assert_eq!(refused(join(&taken, &name("host-a"), key()).await), "a host named host-a has joined already");
    let anew = join(&town.token(Some("host-a"), 60), &name("host-a"), key()).await.unwrap();
    assert_eq!(anew.says().host, first.says().host);
}

#[tokio::test]
async fn a_host_that_was_led_to_another_controller_does_not_say_its_secret() {
    let (town, other) = (Town::new().await, Town::new().await);
    let mut token = town.token(None, 60);
    token.addresses = vec![other.address.clone()];
    let error = join(&token, &name("host-a"), HostKey::new().unwrap()).await.unwrap_err();
    assert!(matches!(error, DialError::Unreachable { .. }), "{error}");
    // It goes on to the next address.
    token.addresses.push(town.address.clone());
    join(&token, &name("host-a"), HostKey::new().unwrap()).await.unwrap();
}

#[tokio::test]
async fn rubbish_at_the_join_is_refused_and_uses_no_token() {
    let town = Town::new().await;
    let token = town.token(None, 60);
    let config = Arc::new(joining_config(&token.authority).unwrap());
    let mut client = dial(&token.addresses, config, Pace::default()).await.unwrap();
    let good = proto::JoinRequest {
        secret: token.secret.bytes().to_vec().into(),
        name: "host-a".to_owned(),
        request: HostKey::new().unwrap().request().unwrap().into(),
    };
    for (request, code) in [
        (proto::JoinRequest { secret: vec![1; 31].into(), ..good.clone() }, Code::Unauthenticated),
        (proto::JoinRequest { name: "../host".to_owned(), ..good.clone() }, Code::InvalidArgument),
        (proto::JoinRequest { request: vec![0x30; 64].into(), ..good.clone() }, Code::InvalidArgument),
        (proto::JoinRequest { request: vec![0; 9000].into(), ..good.clone() }, Code::InvalidArgument),
        (proto::JoinRequest::default(), Code::Unauthenticated),
    ] {
        assert_eq!(client.join(request).await.unwrap_err().code(), code);
    }
    let too_long = proto::JoinRequest { name: "x".repeat(codec::LARGEST_MESSAGE), ..good.clone() };
    assert!(client.join(too_long).await.is_err());
    client.join(good).await.unwrap();
}

/// Who may attach and renew, by what they show.
#[tokio::test]
async fn only_hosts_of_the_cluster_attach_and_renew() {
    let town = Town::new().await;
    let good = town.joined("host-a").await;
    let removed = town.joined("host-b").await;
    town.enrolment.remove(&name("host-b"));
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = Authority::open(elsewhere.path(), Timestamp::now()).unwrap();
    let signed = |authority: &Authority, host: HostId, now: Timestamp| {
        let key = HostKey::new().unwrap();
        let certificate = authority.sign_host(host, &key.request().unwrap(), now).unwrap();
        Credentials::new(key, certificate, town.authority.certificate().clone()).unwrap()
    };
    let host = good.says().host;
    let now = Timestamp::now();
    let long_ago = now - (CERTIFICATE_LIFE + Duration::from_secs(10));
    let stranger = joining_config(town.authority.certificate()).unwrap();
    for (what, config, passes) in [
        ("a host", client_config(&good).unwrap(), Ok(())),
        ("nobody", stranger, Err(Code::Unauthenticated)),
        ("a host that was removed", client_config(&removed).unwrap(), Err(Code::PermissionDenied)),
        (
            "a host that never joined",
            client_config(&signed(&town.authority, HostId::new(), now)).unwrap(),
            Err(Code::PermissionDenied),
        ),
        // These do not get through the handshake; what breaks then differs.
        ("of a foreign authority", client_config(&signed(&foreign, host, now)).unwrap(), Err(Code::Unknown)),
        (
            "with an expired certificate",
            client_config(&signed(&town.authority, host, long_ago)).unwrap(),
            Err(Code::Unknown),
        ),
    ] {
        let addresses = [town.address.clone()];
        let dialled = dial(&addresses, Arc::new(config), Pace::default()).await;
        let Ok(mut client) = dialled else {
            assert_eq!(passes, Err(Code::Unknown), "{what}");
            continue;
        };
        let request = HostKey::new().unwrap().request().unwrap().into();
        let renewed = client.renew(proto::RenewRequest { request }).await;
        let attached = client.attach(tokio_stream::iter([hello()])).await;
        for answer in [renewed.map(drop), attached.map(drop)] {
            match (answer, passes) {
                (Ok(()), Ok(())) => {}
                (Err(status), Err(code)) => {
                    assert!(code == Code::Unknown || status.code() == code, "{what}: {status:?}");
                }
                (answer, _) => panic!("{what}: {answer:?}"),
            }
        }
    }
    town.heard.wait(|said| *said == Said::Hello(host)).await;

    // A new certificate, with a new key, for the same host.
    let renewed = renew(std::slice::from_ref(&town.address), &good).await.unwrap();
    assert_eq!(renewed.says().host, host);
    assert_ne!(renewed.certificate(), good.certificate());
    // A removed host does not even get a new certificate.
    assert!(matches!(renew(std::slice::from_ref(&town.address), &removed).await, Err(DialError::Refused(_))));
}

#[tokio::test]
async fn a_stream_begins_with_a_greeting() {
    let town = Town::new().await;
    let credentials = town.joined("host-a").await;
    let config = Arc::new(client_config(&credentials).unwrap());
    let mut client = dial(std::slice::from_ref(&town.address), config, Pace::default()).await.unwrap();
    let ack = FromHost { message: Some(from_host::Message::Ack(proto::Ack { generation: 1 })) };
    let garbled = proto::Hello { inventory_json: b"{}".as_slice().into(), ..Default::default() };
    let garbled = FromHost { message: Some(from_host::Message::Hello(garbled)) };
    for first in [vec![], vec![ack], vec![garbled], vec![FromHost { message: None }]] {
        let status = client.attach(tokio_stream::iter(first)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    assert!(town.server.presence().connected().is_empty());
}

#[tokio::test]
async fn a_session_ends_with_its_certificate() {
    let town = Town::new().await;
    let joined = town.joined("host-a").await;
    // Signed long ago: it has two seconds left.
    let key = HostKey::new().unwrap();
    let almost = Timestamp::now() - (CERTIFICATE_LIFE - Duration::from_secs(2));
    let certificate = town.authority.sign_host(joined.says().host, &key.request().unwrap(), almost).unwrap();
    let old = Credentials::new(key, certificate, town.authority.certificate().clone()).unwrap();
    let config = Arc::new(client_config(&old).unwrap());
    let mut client = dial(std::slice::from_ref(&town.address), config, Pace::default()).await.unwrap();
    let said = futures_util::StreamExt::chain(tokio_stream::iter([hello()]), tokio_stream::pending());
    let mut messages = client.attach(said).await.unwrap().into_inner();
    let end = loop {
        match tokio::time::timeout(super::PATIENCE, messages.message()).await.unwrap() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::Unauthenticated, "{end:?}");
}
