use std::{io, sync::Arc, time::Duration};

use rustls::{AlertDescription, Error};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time,
};

use super::{
    super::hosts::{Certificates, Options, Shows},
    authority::{Authority, secret},
    server::{Server, client, host, table},
};
use crate::tls::certificates::Loaded;

/// The alert that a client got.
fn alert(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

#[tokio::test]
async fn the_name_chooses() {
    let authority = Authority::new("Authority");
    let exact = authority.host(&["a.test"]);
    let wildcard = authority.host(&["*.b.test"]);
    let below = authority.host(&["c.b.test"]);
    let default = authority.host(&["default.test"]);
    let hosts = vec![
        host("a.test", Shows::Secret(exact.secret())),
        host("*.b.test", Shows::Secret(wildcard.secret())),
        host("c.b.test", Shows::Secret(below.secret())),
        host("plain.b.test", Shows::Default),
        host("plain.test", Shows::Default),
        // Its certificate is another host's.
        host("wrong.test", Shows::Secret(exact.secret())),
    ];
    let fallback = Arc::new(Loaded::self_signed().unwrap());
    let secret = default.secret();
    let options = Options::default();
    let table = Certificates::build(None, &options, (Some(&secret), &fallback), hosts);
    let server = Server::new(table, None).await;
    let client = Client::any(&authority);
    for (name, want) in [
        ("a.test", &exact),
        ("A.test", &exact),
        ("x.b.test", &wildcard),
        ("c.b.test", &below),
        ("plain.b.test", &wildcard),
        ("b.test", &default),
        ("x.y.b.test", &default),
        ("plain.test", &default),
        ("wrong.test", &default),
        ("unknown.test", &default),
        ("127.0.0.1", &default),
    ] {
        let heard = server.ask(name, &client.0).await.unwrap();
        assert!(heard.shows(want), "{name}");
        let named = name != "127.0.0.1";
        assert_eq!(!heard.field(0).is_empty(), named, "{name}");
    }
    assert_eq!(server.acceptor.established(), 11);
}

/// A client that looks at certificates for itself.
struct Client(Arc<rustls::ClientConfig>);

impl Client {
    fn any(authority: &Authority) -> Self {
        let mut config = client(authority).as_ref().clone();
        config
            .dangerous()
            .set_certificate_verifier(super::upstream::takes_any());
        Self(Arc::new(config))
    }
}

#[tokio::test]
async fn without_a_certificate_the_made_one() {
    let authority = Authority::new("Authority");
    let server = Server::new(table(&Options::default(), Vec::new()), None).await;
    let error = server.ask("a.test", &client(&authority)).await.unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    let heard = server
        .ask("a.test", &Client::any(&authority).0)
        .await
        .unwrap();
    assert_eq!(heard.field(0), "a.test");
}

#[tokio::test]
async fn a_broken_certificate_is_not_replaced_by_another() {
    let authority = Authority::new("Authority");
    let good = authority.host(&["good.test", "*.good.test"]);
    let broken = secret(&[("tls.crt", &good.chain), ("tls.key", "no key")]);
    let options = Options::default();
    let hosts = vec![
        host("good.test", Shows::Secret(good.secret())),
        host("*.good.test", Shows::Secret(good.secret())),
        host("broken.test", Shows::Secret(broken.clone())),
        host("broken.good.test", Shows::Secret(broken)),
    ];
    let server = Server::new(table(&options, hosts), None).await;
    let client = Client::any(&authority);
    for name in ["broken.test", "broken.good.test"] {
        let error = server.ask(name, &client.0).await.unwrap_err();
        assert_eq!(
            alert(&error),
            Some(AlertDescription::InternalError),
            "{name}"
        );
    }
    assert!(
        server
            .ask("good.test", &client.0)
            .await
            .unwrap()
            .shows(&good)
    );
    assert_eq!(server.refused("broken_certificate"), 2);
    let table = server.certificates.load();
    let report = table
        .reports()
        .find(|report| report.host == "broken.test")
        .unwrap();
    assert!(report.certificate.unwrap().is_err());
}

#[tokio::test]
async fn unknown_names_are_refused_where_that_is_wanted() {
    let authority = Authority::new("Authority");
    let known = authority.host(&["a.test"]);
    let options = Options {
        reject_unknown: true,
        ..Options::default()
    };
    let hosts = vec![
        host("a.test", Shows::Secret(known.secret())),
        host("plain.test", Shows::Default),
    ];
    let server = Server::new(table(&options, hosts), None).await;
    let client = Client::any(&authority);
    for name in ["b.test", "x.a.test", "127.0.0.1"] {
        let error = server.ask(name, &client.0).await.unwrap_err();
        assert_eq!(
            alert(&error),
            Some(AlertDescription::UnrecognisedName),
            "{name}"
        );
    }
    server.ask("a.test", &client.0).await.unwrap();
    server.ask("plain.test", &client.0).await.unwrap();
    assert_eq!(server.refused("unknown_host"), 3);
}

#[tokio::test]
async fn certificates_change_under_handshakes() {
    let authority = Authority::new("Authority");
    let issued = |_| authority.host(&["a.test"]);
    let generations: Vec<_> = (0..20).map(issued).collect();
    let options = Options::default();
    let hosts = |generation: usize| {
        vec![
            host("a.test", Shows::Secret(generations[generation].secret())),
            host("*.test", Shows::Default),
        ]
    };
    let server = Server::new(table(&options, hosts(0)), None).await;
    let fallback = Arc::new(Loaded::self_signed().unwrap());
    let certificates = server.certificates.clone();
    let rotate = async {
        for generation in 1..generations.len() {
            // While the next handshakes go on.
            while server.acceptor.established() < 2 * generation as u64 {
                time::sleep(Duration::from_micros(500)).await;
            }
            let previous = certificates.load();
            let next = Certificates::build(
                Some(&previous),
                &options,
                (None, &fallback),
                hosts(generation),
            );
            certificates.store(Arc::new(next));
        }
    };
    let shake = async {
        let config = client(&authority);
        let mut shown = std::collections::BTreeSet::new();
        while shown.last() != Some(&(generations.len() - 1)) {
            let heard = server.ask("a.test", &config).await.unwrap();
            let generation = generations
                .iter()
                .position(|issued| heard.shows(issued))
                .unwrap();
            assert!(shown.last().is_none_or(|last| *last <= generation));
            shown.insert(generation);
        }
        shown.len()
    };
    let ((), shown) = tokio::join!(rotate, shake);
    assert!(shown > generations.len() / 2, "{shown}");
    assert!(server.acceptor.refused().all(|(_, count)| count == 0));
}

#[tokio::test]
async fn a_backends_tls_is_passed_on() {
    let authority = Authority::new("Authority");
    let (front, back) = (
        authority.host(&["front.test"]),
        authority.host(&["back.test"]),
    );
    let options = Options::default();
    let hosts = vec![host("back.test", Shows::Secret(back.secret()))];
    let backend = Server::new(table(&options, hosts), None).await;
    let hosts = vec![
        host("front.test", Shows::Secret(front.secret())),
        host("back.test", Shows::Backend),
    ];
    let proxy = Server::new(table(&options, hosts), Some(backend.address)).await;
    let config = client(&authority);
    let heard = proxy.ask("back.test", &config).await.unwrap();
    assert!(heard.shows(&back));
    assert_eq!(heard.field(0), "back.test");
    assert_eq!(backend.acceptor.established(), 1);
    assert_eq!(proxy.acceptor.established(), 0);
    assert!(
        proxy
            .ask("front.test", &config)
            .await
            .unwrap()
            .shows(&front)
    );
}

#[tokio::test]
async fn clients_that_speak_something_else() {
    let server = Server::new(table(&Options::default(), Vec::new()), None).await;
    let says = async |bytes: &[u8]| {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let read = time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer));
        // Bytes that nobody has read make a reset of the close.
        let _ = read.await.unwrap();
        answer
    };
    let answer = String::from_utf8(says(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(
        head.contains(&format!("Content-Length: {}", body.len())),
        "{answer}"
    );
    assert_eq!(server.refused("plain_http"), 1);

    // Fatal alerts (21): unexpected_message (10) or decode_error (50), protocol_version (70).
    for (bytes, want) in [
        (&b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00"[..], [10, 50]),
        (b"\x16\x03\x01\x00\x06\x01\x00\x00\x02\x03\x03", [50, 50]),
    ] {
        let answer = says(bytes).await;
        assert!(
            answer.len() == 7 && answer[0] == 21 && want.contains(&answer[6]),
            "{answer:?}"
        );
    }
    says(b"").await;
    assert_eq!(server.refused("failed") + server.refused("timeout"), 3);
}

#[tokio::test]
async fn a_hello_in_pieces_and_none_at_all() {
    let authority = Authority::new("Authority");
    let issued = authority.host(&["a.test"]);
    let hosts = vec![host("a.test", Shows::Secret(issued.secret()))];
    let server = Server::new(table(&Options::default(), hosts), None).await;
    let config = client(&authority);
    let name = "a.test".try_into().unwrap();
    let mut hello = Vec::new();
    let mut connection = rustls::ClientConnection::new(config, name).unwrap();
    connection.write_tls(&mut hello).unwrap();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in hello.chunks(50) {
        stream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    // A handshake record (22).
    assert_eq!(stream.read_u8().await.unwrap(), 22);

    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let end = time::timeout(Duration::from_secs(20), silent.read(&mut [0])).await;
    assert_eq!(end.unwrap().unwrap(), 0);
    assert_eq!(server.refused("timeout"), 2);
}
