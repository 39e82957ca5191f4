use std::sync::Arc;

use lb_route::{
    input::{Data, Name},
    settings::{BackendProtocol, UpstreamTls},
};
use rustls::{
    SignatureScheme,
    client::{ResolvesClientCert, danger::ServerCertVerifier},
    pki_types::{PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use tokio::{io::AsyncReadExt as _, net::TcpStream};

use super::{
    super::{
        PROVIDER, SecretError,
        certificates::Loaded,
        hosts::{Certificates, Demand, Options, Shows},
        upstream::{ConnectError, Upstreams, connect},
    },
    authority::{Authority, Issued, params, secret},
    server::{Server, demanding, der, host, table},
};

/// A verifier of clients in tests that look at certificates for themselves.
pub(super) fn takes_any() -> Arc<dyn ServerCertVerifier> {
    super::super::upstream::unverified()
}

/// Shows a certificate, and signs with a key that may be another's.
pub(super) fn shows_unchecked(issued: &Issued) -> Arc<dyn ResolvesClientCert> {
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let key = PROVIDER.key_provider.load_private_key(key).unwrap();
    Arc::new(Shown(Arc::new(CertifiedKey::new(der(issued), key))))
}

#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn settings(verify: bool) -> UpstreamTls {
    UpstreamTls {
        secret: Some(Name::new("default", "backend")),
        verify,
        verify_depth: 1,
        name: None,
        server_name: false,
    }
}

async fn ask(
    server: &Server,
    settings: &UpstreamTls,
    data: Option<&Arc<Data>>,
    name: &str,
) -> Result<String, ConnectError> {
    let config = Upstreams::default()
        .config(settings, data, BackendProtocol::Https)
        .unwrap();
    let stream = TcpStream::connect(server.address).await?;
    let mut stream = connect(stream, &config, name).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

/// Dials a backend that shows a certificate whatever the name: with verification, which has to
/// fail with some words or with none, and without, which never fails.
async fn verifies(what: &str, shown: &Issued, ca: &str, name: &str, want: &str) {
    let fallback = Arc::new(Loaded::self_signed().unwrap());
    let default = shown.secret();
    let options = Options::default();
    let table = Certificates::build(None, &options, (Some(&default), &fallback), []);
    let server = Server::new(table, None).await;
    let data = secret(&[("ca.crt", ca)]);
    match ask(&server, &settings(true), Some(&data), name).await {
        Ok(text) => assert_eq!(want, "", "{what}: {text}"),
        Err(error) => {
            let error = error.to_string();
            assert!(!want.is_empty() && error.contains(want), "{what}: {error}");
        }
    }
    ask(&server, &settings(false), Some(&data), name)
        .await
        .unwrap();
}

#[tokio::test]
async fn names_of_backends() {
    let authority = Authority::new("Authority");
    let common = authority.issue(params(&[], "a.test"));
    let named = authority.issue(params(&["b.test"], "a.test"));
    let good = authority.host(&["a.test", "*.b.test", "192.0.2.1"]);
    let unnamed = "not valid for name";
    for (what, shown, name, want) in [
        ("good", &good, "a.test", ""),
        ("by a wildcard", &good, "x.b.test", ""),
        ("an address", &good, "192.0.2.1", ""),
        ("another name", &good, "c.test", unnamed),
        ("another address", &good, "192.0.2.2", unnamed),
        ("a common name", &common, "a.test", ""),
        ("another common name", &common, "b.test", unnamed),
        ("a common name beside names", &named, "a.test", unnamed),
    ] {
        verifies(what, shown, &authority.pem, name, want).await;
    }
}

#[tokio::test]
async fn authorities_of_backends() {
    let authority = Authority::new("Authority");
    let between = authority.below("Between");
    let deep = between.below("Deep");
    let chained = |issuer: &Authority, above: &[&Authority]| {
        let issued = issuer.host(&["a.test"]);
        let above: String = above.iter().map(|authority| &authority.pem[..]).collect();
        Issued {
            chain: issued.chain + &above,
            ..issued
        }
    };
    let mut expired = params(&["a.test"], "a.test");
    super::authority::days(&mut expired, -9, -1);
    let expired = authority.issue(expired);
    let good = authority.host(&["a.test"]);
    let near = chained(&between, &[&between]);
    let far = chained(&deep, &[&deep, &between]);
    let other = Authority::new("Other").pem;
    let wrong = "unable to verify the first certificate";
    for (what, shown, ca, want) in [
        ("good", &good, &authority.pem, ""),
        ("another authority", &good, &other, wrong),
        (
            "expired",
            &expired,
            &authority.pem,
            "certificate has expired",
        ),
        ("one between", &near, &authority.pem, ""),
        (
            "two between",
            &far,
            &authority.pem,
            "unable to get local issuer certificate",
        ),
    ] {
        verifies(what, shown, ca, "a.test", want).await;
    }
}

#[tokio::test]
async fn names_protocols_and_own_certificates() {
    let authority = Authority::new("Authority");
    let ca = secret(&[("ca.crt", &authority.pem)]);
    let demand = |_| Demand {
        secret: Some(ca.clone()),
        depth: 1,
    };
    let shown = authority.host(&["a.test"]);
    let hosts = vec![
        demanding("a.test", Shows::Secret(shown.secret()), demand(())),
        host("b.test", Shows::Default),
    ];
    let server = Server::new(table(&Options::default(), hosts), None).await;
    let named = UpstreamTls {
        server_name: true,
        ..settings(false)
    };
    let own = authority.issue(params(&[], "proxy"));
    let own = secret(&[("tls.crt", &own.chain), ("tls.key", &own.key)]);
    let field = |text: &str, index: usize| text.split('|').nth(index).unwrap().to_owned();

    let text = ask(&server, &settings(false), Some(&own), "a.test")
        .await
        .unwrap();
    assert_eq!(
        (field(&text, 0), field(&text, 4)),
        (String::new(), "NONE".into())
    );
    let text = ask(&server, &named, Some(&own), "a.test").await.unwrap();
    assert_eq!(field(&text, 0), "a.test");
    assert!(text.ends_with("|SUCCESS|CN=proxy"), "{text}");
    let text = ask(&server, &named, Some(&ca), "a.test").await.unwrap();
    assert!(text.ends_with("|NONE|"), "{text}");

    let upstreams = Upstreams::default();
    for (protocol, want) in [
        (BackendProtocol::Https, "h1"),
        (BackendProtocol::Grpcs, "h2"),
    ] {
        let config = upstreams.config(&named, Some(&own), protocol).unwrap();
        let stream = TcpStream::connect(server.address).await.unwrap();
        let mut stream = connect(stream, &config, "b.test").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(field(&text, 3), want);
    }
    let config = upstreams
        .config(&named, Some(&own), BackendProtocol::Https)
        .unwrap();
    let stream = TcpStream::connect(server.address).await.unwrap();
    let error = connect(stream, &config, "no name").await.unwrap_err();
    assert!(matches!(error, ConnectError::Name(_)));
}

#[test]
fn configurations_are_made_once() {
    let authority = Authority::new("Authority");
    let data = |pem: &str| secret(&[("ca.crt", pem)]);
    let (first, same) = (data(&authority.pem), data(&authority.pem));
    let new = data(&Authority::new("New").pem);
    let upstreams = Upstreams::default();
    let https = BackendProtocol::Https;
    let config = |data: &Arc<Data>, protocol| {
        upstreams
            .config(&settings(true), Some(data), protocol)
            .unwrap()
    };
    let one = config(&first, https);
    assert!(Arc::ptr_eq(&one, &config(&same, https)));
    assert!(!Arc::ptr_eq(&one, &config(&first, BackendProtocol::Grpcs)));
    let other = config(&new, https);
    assert!(!Arc::ptr_eq(&one, &other));
    upstreams.retain(|_| true);
    assert!(Arc::ptr_eq(&other, &config(&new, https)));
    upstreams.retain(|_| false);
    assert!(!Arc::ptr_eq(&other, &config(&new, https)));
}

#[test]
fn secrets_that_do_not_do() {
    let upstreams = Upstreams::default();
    let authority = Authority::new("Authority");
    let own = authority.host(&["a.test"]).secret();
    let none = UpstreamTls {
        secret: None,
        ..settings(true)
    };
    for (settings, data, want) in [
        (settings(false), None, SecretError::NoSecret),
        (settings(true), Some(&own), SecretError::Missing("ca.crt")),
        (none, None, SecretError::NoSecret),
    ] {
        let made = upstreams.config(&settings, data, BackendProtocol::Https);
        assert_eq!(made.unwrap_err(), want);
    }
    let plain = UpstreamTls {
        secret: None,
        ..settings(false)
    };
    upstreams
        .config(&plain, None, BackendProtocol::Https)
        .unwrap();
}
