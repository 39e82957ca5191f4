//! The same with OpenSSL at the other end: it reads RFCs for itself.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    super::hosts::{Demand, Options, Shows},
    authority::{Authority, Issued, params, secret},
    server::{Server, demanding, host, table},
};

/// Files that go with the test.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("lb-proxy-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn put(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What `openssl s_client` writes, both ways.
async fn s_client(address: SocketAddr, ca: &Path, args: &[&str]) -> String {
    let mut command = Command::new("timeout");
    command.args([
        "20",
        "openssl",
        "s_client",
        "-connect",
        &address.to_string(),
    ]);
    command.args([
        "-CAfile",
        ca.to_str().unwrap(),
        "-verify_return_error",
        "-ign_eof",
    ]);
    command.args(args).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap();
    let output = output.expect("openssl is installed");
    let both = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

#[tokio::test]
async fn handshakes_sessions_and_alerts() {
    let files = Files::new("handshakes");
    let authority = Authority::new("Authority");
    let ca = files.put("ca.pem", &authority.pem);
    let server = chained(&authority).await;
    for (name, want) in [
        ("b.test", "unrecognized name"),
        ("broken.test", "internal error"),
    ] {
        let said = s_client(server.address, &ca, &["-servername", name]).await;
        assert!(said.contains(want), "{said}");
    }
    let a_test = [
        "-servername",
        "a.test",
        "-verify_hostname",
        "a.test",
        "-alpn",
        "h2",
    ];
    let session = files.0.join("session");
    let session = session.to_str().unwrap();
    for (version, want) in [
        ("-tls1_2", "a.test|TLSv1.2|"),
        ("-tls1_3", "a.test|TLSv1.3|"),
    ] {
        let first = [&a_test[..], &[version, "-sess_out", session]].concat();
        let said = s_client(server.address, &ca, &first).await;
        for want in [
            "Verify return code: 0 (ok)",
            "ALPN protocol: h2",
            "New, TLSv1",
            want,
        ] {
            assert!(said.contains(want), "{want}: {said}");
        }
        let second = [&a_test[..], &[version, "-sess_in", session]].concat();
        let said = s_client(server.address, &ca, &second).await;
        assert!(said.contains("Reused, TLSv1"), "{said}");
    }
}

/// A host whose certificate needs one between, and one whose certificate is broken.
async fn chained(authority: &Authority) -> Server {
    let between = authority.below("Between");
    let issued = between.host(&["a.test"]);
    let issued = Issued {
        chain: issued.chain + &between.pem,
        ..issued
    };
    let options = Options {
        reject_unknown: true,
        ..Options::default()
    };
    let broken = secret(&[("tls.crt", &issued.chain)]);
    let hosts = vec![
        host("a.test", Shows::Secret(issued.secret())),
        host("broken.test", Shows::Secret(broken)),
    ];
    Server::new(table(&options, hosts), None).await
}

#[tokio::test]
async fn certificates_of_clients() {
    let files = Files::new("clients");
    let authority = Authority::new("Authority");
    let ca = files.put("ca.pem", &authority.pem);
    let issued = authority.host(&["a.test"]);
    let v1_ca = include_str!("../testdata/v1-ca.pem");
    let v1 = files.put("v1.pem", include_str!("../testdata/v1-client.pem"));
    let own = authority.issue(params(&[], "client"));
    let own = files.put("own.pem", &format!("{}{}", own.chain, own.key));
    let both = secret(&[("ca.crt", &format!("{}{v1_ca}", authority.pem))]);
    let demand = Demand {
        secret: Some(both),
        depth: 1,
    };
    let hosts = vec![demanding("a.test", Shows::Secret(issued.secret()), demand)];
    let server = Server::new(table(&Options::default(), hosts), None).await;
    for version in ["-tls1_2", "-tls1_3"] {
        let args = ["-servername", "a.test", version];
        let said = s_client(server.address, &ca, &args).await;
        assert!(said.contains("|NONE|"), "{said}");
        assert!(
            said.contains("Acceptable client certificate CA names\nCN = Authority"),
            "{said}"
        );
        for (shown, want) in [(&own, "|SUCCESS|CN=client"), (&v1, "|SUCCESS|CN=v1-client")] {
            let shown = shown.to_str().unwrap();
            let args = [&args[..], &["-cert", shown, "-key", shown]].concat();
            let said = s_client(server.address, &ca, &args).await;
            assert!(said.contains(want), "{said}");
        }
    }
}
