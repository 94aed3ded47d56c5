//! The service over real Unix sockets, as the switch and hostile guests use it.

use super::*;
use crate::model::{GuestConfig, Phase};
use std::{os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::mpsc,
    time::timeout,
};

/// Everything that is waited for comes within this time, or the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

struct House {
    imds: Imds,
    reports: mpsc::Receiver<Received>,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

fn house(limits: Limits) -> House {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metadata.sock");
    let (imds, reports) = Imds::bind(&path, 0o600, limits).unwrap();
    House { imds, reports, path, _dir: dir }
}

fn document(generation: u64, hostname: &str) -> Document {
    let mut config: GuestConfig =
        serde_json::from_str(include_str!("../../tests/golden/guest_config_full.json")).unwrap();
    config.generation = generation;
    config.hostname = hostname.to_owned();
    let interface = Interface { mac: [2, 0, 0, 0, 0, 1], addresses: vec!["10.0.0.5/24".parse().unwrap()] };
    let instance = instance(&config, &interface, "here");
    Document::new(&config, instance).unwrap()
}

impl House {
    /// A connection that the switch has introduced; the guests of all ports have the same address.
    async fn connect(&self, port: &str, label: &str) -> UnixStream {
        let mut stream = UnixStream::connect(&self.path).await.unwrap();
        let preamble = format!(
            "{{\"port\":\"{port}\",\"label\":\"{label}\",\"network\":100,\"peer\":\"10.0.0.5:4321\",\"address\":\"169.254.169.254:80\"}}\n"
        );
        stream.write_all(preamble.as_bytes()).await.unwrap();
        stream
    }

    /// Sends bytes, says that no more will come, and gives everything that comes back.
    async fn ask(&self, port: &str, label: &str, request: &str) -> String {
        let mut stream = self.connect(port, label).await;
        let _ = stream.write_all(request.as_bytes()).await;
        let _ = stream.shutdown().await;
        all(stream).await
    }
}

async fn all(mut stream: UnixStream) -> String {
    let mut text = Vec::new();
    // A reset is an answer too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut text)).await.expect("the service ends the connection");
    String::from_utf8_lossy(&text).into_owned()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\nConnection: close\r\n\r\n")
}

fn post(body: &str) -> String {
    let length = body.len();
    format!(
        "POST /shunt/v1/report HTTP/1.1\r\nHost: m\r\nMetadata: true\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

const READY: &str = include_str!("../../tests/golden/guest_report_ready.json");

#[tokio::test]
async fn ports_with_equal_addresses_read_their_own_and_labels_switch_what_they_read() {
    let house = house(Limits::default());
    assert_eq!(std::fs::metadata(&house.path).unwrap().permissions().mode() & 0o777, 0o600);
    for (port, label, generation, name) in
        [("a", "1", 1, "a-old"), ("b", "1", 1, "b-old"), ("a", "2", 2, "a-new")]
    {
        house.imds.documents().publish(port, label, document(generation, name));
    }
    for (port, label, name) in [("a", "1", "a-old"), ("a", "2", "a-new"), ("b", "1", "b-old")] {
        for path in ["/shunt/v1/config", "/metadata/instance?api-version=2021-08-01"] {
            let answer = house.ask(port, label, &get(path)).await;
            assert_eq!(status(&answer), 200, "{answer}");
            assert!(answer.contains(&format!("\"{name}\"")), "{port} {label} {path}: {answer}");
        }
    }
    assert_eq!(status(&house.ask("b", "2", &get("/shunt/v1/config")).await), 404);
    house.imds.documents().retain("a", "2");
    assert_eq!(status(&house.ask("a", "1", &get("/shunt/v1/config")).await), 404);
    assert_eq!(status(&house.ask("b", "1", &get("/shunt/v1/config")).await), 200);
}

#[tokio::test]
async fn reports_carry_the_switchs_word_for_who_it_was() {
    let mut house = house(Limits::default());
    let forged = READY.replacen('{', "{\"port\": \"b\", \"label\": \"9\",", 1);
    assert_eq!(status(&house.ask("a", "7", &post(&forged)).await), 204);
    let received = timeout(PATIENCE, house.reports.recv()).await.unwrap().unwrap();
    assert_eq!((received.port.as_str(), received.label.as_str()), ("a", "7"));
    assert_eq!((received.report.phase, received.report.generation), (Phase::Ready, 7));
}

#[tokio::test]
async fn a_held_request_is_answered_by_a_publication_a_withdrawal_or_the_end_of_the_wait() {
    let house = house(Limits::default());
    house.imds.documents().publish("a", "1", document(5, "five"));
    assert_eq!(status(&house.ask("a", "1", &get("/shunt/v1/config?after=4&wait_ms=30000")).await), 200);
    assert_eq!(status(&house.ask("a", "1", &get("/shunt/v1/config?after=5&wait_ms=20")).await), 304);
    let hold = get("/shunt/v1/config?after=5&wait_ms=30000");
    let mut first = house.connect("a", "1").await;
    let mut second = house.connect("a", "1").await;
    first.write_all(hold.as_bytes()).await.unwrap();
    second.write_all(hold.replace("after=5", "after=6").as_bytes()).await.unwrap();
    // That they wait already is not needed, only likely: both orders have the same answers.
    house.imds.documents().publish("a", "1", document(6, "six"));
    let answer = all(first).await;
    assert!(status(&answer) == 200 && answer.contains("\"six\""), "{answer}");
    house.imds.documents().retire("a", "1");
    assert_eq!(status(&all(second).await), 404);
}

#[tokio::test]
async fn requests_and_their_answers() {
    let house = house(Limits::default());
    house.imds.documents().publish("a", "1", document(7, "seven"));
    let plain = |path: &str, line: &str| get(path).replace("Metadata: true\r\n", line);
    let cases: Vec<(&str, String, u16, &str)> = vec![
        ("no header", plain("/shunt/v1/config", ""), 400, "Metadata"),
        ("another value", plain("/shunt/v1/config", "Metadata: yes\r\n"), 400, "Metadata"),
        ("twice", plain("/shunt/v1/config", "Metadata: true\r\nMetadata: true\r\n"), 400, "Metadata"),
        ("any case", plain("/shunt/v1/config", "METADATA: True\r\n"), 200, "seven"),
        (
            "forwarded",
            plain("/shunt/v1/config", "Metadata: true\r\nX-Forwarded-For: 1.2.3.4\r\n"),
            400,
            "X-Forwarded-For",
        ),
        ("other path", get("/"), 404, "no such document"),
        ("other path", get("/shunt/v1/config/"), 404, "no such document"),
        ("other path", get("/shunt/v1/../v1/config"), 404, "no such document"),
        ("other method", get("/shunt/v1/config").replacen("GET", "PUT", 1), 405, "allow: GET"),
        ("other method", get("/shunt/v1/report"), 405, "allow: POST"),
        ("other method", get("/metadata/instance").replacen("GET", "DELETE", 1), 405, "allow: GET"),
        ("absolute", get("http://other/shunt/v1/config"), 400, "no proxy"),
        ("tunnel", get("other:80").replacen("GET", "CONNECT", 1), 400, "no proxy"),
        ("bad number", get("/shunt/v1/config?after=x"), 400, "`after`"),
        ("bad number", get("/shunt/v1/config?after=1&wait_ms=-1"), 400, "`wait_ms`"),
        ("no version", get("/metadata/instance"), 400, "api-version"),
        ("unknown version", get("/metadata/instance?api-version=1999-01-01"), 400, "newest-versions"),
        ("plain instance", get("/metadata/instance?api-version=2021-08-01"), 200, "computerName"),
        ("bad report", post("{}"), 400, "`generation`"),
        ("bad report", post("no"), 400, "not JSON"),
        ("long report", post(&"x".repeat(65 << 10)), 413, "64 KiB"),
        (
            "two lengths",
            post(READY).replace("Content-Length", "Content-Length: 1\r\nContent-Length"),
            400,
            "",
        ),
        ("negative length", post("").replace("Content-Length: 0", "Content-Length: -1"), 400, ""),
        (
            "chunked",
            post("0\r\n\r\n").replace("Content-Length: 5", "Transfer-Encoding: chunked"),
            400,
            "Transfer-Encoding",
        ),
        (
            "chunked and a length",
            post("0\r\n\r\n").replace("Content-Length", "Transfer-Encoding: chunked\r\nContent-Length"),
            400,
            "Transfer-Encoding",
        ),
        (
            "a length and chunked",
            post("0\r\n\r\n").replace("Content-Length: 5", "Content-Length: 5\r\nTransfer-Encoding: chunked"),
            400,
            "Transfer-Encoding",
        ),
        ("odd coding", post("").replace("Content-Length: 0", "Transfer-Encoding: chunked, x"), 400, ""),
        ("many headers", plain("/shunt/v1/config", &"A: b\r\n".repeat(100)), 431, ""),
        ("a big header", plain("/shunt/v1/config", &format!("A: {}\r\n", "b".repeat(64 << 10))), 431, ""),
        ("a big path", get(&format!("/{}", "x".repeat(64 << 10))), 431, ""),
        ("no HTTP", "\0\0\0\0\r\n\r\n".to_owned(), 400, ""),
    ];
    for (what, request, expected, word) in cases {
        let answer = house.ask("a", "1", &request).await;
        assert_eq!(status(&answer), expected, "{what}: {answer}");
        assert!(answer.contains(word), "{what}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "one request, one answer: {answer}");
    }
}

#[tokio::test]
async fn what_follows_a_refused_request_is_not_taken_for_another() {
    let mut house = house(Limits::default());
    house.imds.documents().publish("a", "1", document(7, "seven"));
    let smuggled = format!(
        "{}{}",
        post(READY).replace("Content-Length", "Transfer-Encoding: chunked\r\nContent-Length"),
        post(READY)
    );
    let answer = house.ask("a", "1", &smuggled.replace("Connection: close\r\n", "")).await;
    assert_eq!((status(&answer), answer.matches("HTTP/1.1 ").count()), (400, 1), "{answer}");
    assert!(house.reports.try_recv().is_err());
}

#[tokio::test]
async fn a_guest_that_dawdles_is_cut_off() {
    let house = house(Limits { read: Duration::from_millis(100), ..Limits::default() });
    house.imds.documents().publish("a", "1", document(7, "seven"));
    let mut head = house.connect("a", "1").await;
    head.write_all(b"GET /shunt/v1/config HTTP/1.1\r\nMetadata: tr").await.unwrap();
    let mut body = house.connect("a", "1").await;
    body.write_all(post(READY).trim_end_matches('}').trim_end().as_bytes()).await.unwrap();
    let mut idle = house.connect("a", "1").await;
    idle.write_all(get("/shunt/v1/config").replace("Connection: close\r\n", "").as_bytes()).await.unwrap();
    assert!([0, 408].contains(&status(&all(head).await)));
    assert_eq!(status(&all(body).await), 408);
    assert_eq!(status(&all(idle).await), 200);
}

#[tokio::test]
async fn one_port_that_wants_too_much_takes_it_from_nobody_else() {
    let house = house(Limits { connections: 2, requests_per_second: 1, burst: 3, ..Limits::default() });
    for port in ["a", "b"] {
        house.imds.documents().publish(port, "1", document(7, "seven"));
    }
    let request = get("/shunt/v1/config").replace("Connection: close\r\n", "");
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = house.connect("a", "1").await;
        stream.write_all(request.as_bytes()).await.unwrap();
        // An answer shows that it was let in.
        assert!(timeout(PATIENCE, stream.read(&mut [0; 64])).await.unwrap().unwrap() > 0);
        held.push(stream);
    }
    assert_eq!(house.ask("a", "1", &request).await, "");
    assert_eq!(status(&house.ask("b", "1", &get("/shunt/v1/config")).await), 200);
    for _ in 0..2 {
        assert_eq!(status(&house.ask("b", "1", &get("/shunt/v1/config")).await), 200);
    }
    let answer = house.ask("b", "1", &get("/shunt/v1/config")).await;
    assert!(status(&answer) == 429 && answer.contains("retry-after: 1"), "{answer}");
}

#[tokio::test]
async fn a_full_queue_of_reports_asks_for_patience() {
    let house = house(Limits { burst: 100_000, ..Limits::default() });
    let mut stream = house.connect("a", "1").await;
    let report = post(READY).replace("Connection: close\r\n", "");
    let mut answer = [0; 4096];
    for number in 0.. {
        stream.write_all(report.as_bytes()).await.unwrap();
        let length = timeout(PATIENCE, stream.read(&mut answer)).await.unwrap().unwrap();
        match status(&String::from_utf8_lossy(&answer[..length])) {
            204 => assert!(number < 1024, "nobody reads them"),
            other => {
                assert_eq!((other, number), (503, 1024));
                break;
            }
        }
    }
}

#[tokio::test]
async fn preambles_that_are_none_end_the_connection() {
    let house = house(Limits::default());
    house.imds.documents().publish("a", "", document(7, "seven"));
    let request = get("/shunt/v1/config");
    for preamble in [
        "\n".to_owned(),
        "{}\n".to_owned(),
        "{\"port\":\"\"}\n".to_owned(),
        "{\"port\":\"a b\"}\n".to_owned(),
        format!("{{\"port\":\"{}\"}}\n", "a".repeat(65)),
        format!("{{\"port\":\"a\",\"peer\":\"{}\"}}\n", "a".repeat(1024)),
        "{\"port\":7}\n".to_owned(),
        request.clone(),
        "{\"port\":\"a\"}".to_owned(),
    ] {
        let mut stream = UnixStream::connect(&house.path).await.unwrap();
        stream.write_all(preamble.as_bytes()).await.unwrap();
        if preamble.ends_with('\n') {
            // It may be gone already.
            let _ = stream.write_all(request.as_bytes()).await;
        }
        assert_eq!(all(stream).await, "", "{preamble}");
    }
    let mut stream = UnixStream::connect(&house.path).await.unwrap();
    // The line and the request may come in any pieces.
    for piece in ["{\"port\":", "\"a\"}", "\nGET /shunt", &request["GET /shunt".len()..]] {
        stream.write_all(piece.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(status(&all(stream).await), 200);
}
