//! What client and server agree on, and what they remember.

use std::{sync::Arc, time::Duration};

use rustls::{
    SupportedProtocolVersion,
    client::Resumption,
    version::{TLS12, TLS13},
};

use super::{
    super::{
        certificates::Loaded,
        hosts::{Certificates, Demand, Host, Options, Shows},
    },
    authority::{Authority, params, secret},
    server::{BOTH, Server, client_with, host, table},
};

/// TLS 1.2, TLS 1.3 and HTTP/2 of the server; name, version and protocols of the client; what
/// the server says of the connection, or nothing if there is none.
type Case = (
    [bool; 3],
    &'static str,
    &'static SupportedProtocolVersion,
    &'static [&'static str],
    &'static str,
);

const VERSIONS: [Case; 11] = {
    const ALL: [bool; 3] = [true, true, true];
    const OLD: [bool; 3] = [true, false, true];
    const NEW: [bool; 3] = [false, true, false];
    const H2: &[&str] = &["h2", "http/1.1"];
    [
        (
            ALL,
            "a.test",
            &TLS13,
            H2,
            "TLSv1.3|TLS_AES_256_GCM_SHA384|h2",
        ),
        (
            ALL,
            "a.test",
            &TLS13,
            &["http/1.1", "h2"],
            "TLSv1.3|TLS_AES_256_GCM_SHA384|h2",
        ),
        (
            ALL,
            "a.test",
            &TLS13,
            &["http/1.1"],
            "TLSv1.3|TLS_AES_256_GCM_SHA384|h1",
        ),
        (
            ALL,
            "a.test",
            &TLS13,
            &[],
            "TLSv1.3|TLS_AES_256_GCM_SHA384|h1",
        ),
        (
            ALL,
            "a.test",
            &TLS12,
            &["h2"],
            "TLSv1.2|ECDHE-ECDSA-AES256-GCM-SHA384|h2",
        ),
        (
            ALL,
            "rsa.test",
            &TLS12,
            &[],
            "TLSv1.2|ECDHE-RSA-AES256-GCM-SHA384|h1",
        ),
        (
            OLD,
            "a.test",
            &TLS12,
            &[],
            "TLSv1.2|ECDHE-ECDSA-AES256-GCM-SHA384|h1",
        ),
        (OLD, "a.test", &TLS13, &[], ""),
        (NEW, "a.test", &TLS12, &[], ""),
        (
            NEW,
            "a.test",
            &TLS13,
            H2,
            "TLSv1.3|TLS_AES_256_GCM_SHA384|h1",
        ),
        (NEW, "a.test", &TLS13, &["h2"], ""),
    ]
};

#[tokio::test]
async fn versions_and_protocols() {
    let authority = Authority::new("Authority");
    let issued = authority.host(&["a.test"]);
    let rsa = authority.issue_with(params(&["rsa.test"], "rsa"), &rcgen::PKCS_RSA_SHA256);
    for ([tls12, tls13, http2], name, version, protocols, want) in VERSIONS {
        let options = Options {
            tls12,
            tls13,
            http2,
            ..Options::default()
        };
        let hosts = vec![
            host("a.test", Shows::Secret(issued.secret())),
            host("rsa.test", Shows::Secret(rsa.secret())),
        ];
        let server = Server::new(table(&options, hosts), None).await;
        let config = client_with(&authority, &[version], None, protocols);
        let case = format!("{options:?} {name} {version:?} {protocols:?}");
        match server.ask(name, &config).await {
            Ok(heard) => assert_eq!(heard.text, format!("{name}|{want}|NONE|"), "{case}"),
            Err(error) => assert_eq!(want, "", "{case}: {error}"),
        }
    }
}

#[tokio::test]
async fn sessions_are_resumed() {
    for tickets in [false, true] {
        for version in BOTH {
            resumes(tickets, version).await;
        }
    }
}

/// `ssl-session-timeout` and `ssl-session-cache` of nginx.
#[tokio::test]
async fn sessions_end() {
    let short = Duration::from_millis(1_500);
    let long = Duration::from_secs(600);
    // Kept, in tickets, for how long; whether one can be resumed at once, and 2 s later.
    let cases = [
        (true, false, long, [true, true]),
        (true, false, short, [true, false]),
        (true, true, long, [true, true]),
        (true, true, short, [true, false]),
        (false, false, long, [false, false]),
        (false, true, long, [true, true]),
    ];
    let all = cases
        .into_iter()
        .flat_map(|(cache, tickets, timeout, want)| {
            let options = Options {
                tickets,
                session_cache: cache,
                session_timeout: timeout,
                ..Options::default()
            };
            BOTH.iter()
                .map(move |version| ends(options.clone(), version, want))
        });
    futures::future::join_all(all).await;
}

async fn ends(options: Options, version: &'static SupportedProtocolVersion, want: [bool; 2]) {
    let authority = Authority::new("Authority");
    let issued = authority.host(&["a.test"]);
    let hosts = vec![host("a.test", Shows::Secret(issued.secret()))];
    let server = Server::new(table(&options, hosts), None).await;
    let client = || {
        let config = client_with(&authority, &[version], None, &[]);
        let mut config = config.as_ref().clone();
        config.resumption = Resumption::in_memory_sessions(16);
        Arc::new(config)
    };
    let resumes = async |config| server.ask("a.test", config).await.unwrap().resumed;
    // Each has a session of its own: to resume one makes another.
    let [soon, late] = [client(), client()];
    assert_eq!([resumes(&soon).await, resumes(&late).await], [false; 2]);
    let first = resumes(&soon).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let found = [first, resumes(&late).await];
    assert_eq!(found, want, "{options:?} {version:?}");
}

async fn resumes(tickets: bool, version: &'static SupportedProtocolVersion) {
    let authority = Authority::new("Authority");
    let issued = authority.host(&["a.test", "b.test"]);
    let (own, ca) = (issued.secret(), secret(&[("ca.crt", &authority.pem)]));
    let options = Options {
        tickets,
        ..Options::default()
    };
    let hosts = |demands: bool| {
        let demand = Demand {
            secret: Some(ca.clone()),
            depth: 1,
        };
        let a = host("a.test", Shows::Secret(own.clone()));
        let a = Host {
            demand: demands.then_some(demand),
            ..a
        };
        vec![a, host("b.test", Shows::Secret(own.clone()))]
    };
    let server = Server::new(table(&options, hosts(false)), None).await;
    let config = client_with(&authority, &[version], Some(&issued), &[]);
    let mut config = config.as_ref().clone();
    config.resumption = Resumption::in_memory_sessions(16);
    let config = Arc::new(config);
    let case = format!("{version:?}, tickets {tickets}");
    let resumed = async |name, want, verify| {
        let heard = server.ask(name, &config).await.unwrap();
        assert_eq!((heard.resumed, heard.field(4)), (want, verify), "{case}");
    };
    resumed("a.test", false, "NONE").await;
    resumed("a.test", true, "NONE").await;
    // Another host begins anew.
    resumed("b.test", false, "NONE").await;

    // A change that is not this host's leaves its sessions.
    let fallback = Arc::new(Loaded::self_signed().unwrap());
    let change = |demands| {
        let previous = server.certificates.load();
        let more = hosts(demands)
            .into_iter()
            .chain([host("c.test", Shows::Default)]);
        let next = Certificates::build(Some(&previous), &options, (None, &fallback), more);
        server.certificates.store(Arc::new(next));
    };
    change(false);
    resumed("a.test", true, "NONE").await;
    // What is asked of clients is another matter.
    change(true);
    resumed("a.test", false, "SUCCESS").await;
    resumed("a.test", true, "SUCCESS").await;
    change(false);
    resumed("a.test", false, "NONE").await;
}
