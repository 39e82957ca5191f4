//! Over a real connection.

use std::{fs, path::Path, sync::Arc, time::Duration};

use lb_userspace::webhook::{self, Question, certificate::Files};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::CertificateDer},
};

use super::{has, ingress, review, store};

/// Writes a certificate for `localhost` and its key; the certificate.
fn certificate(dir: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(dir.join("tls.crt"), made.cert.pem()).unwrap();
    fs::write(dir.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

fn files(dir: &Path) -> Files {
    Files::new(dir.join("tls.crt"), dir.join("tls.key"))
}

#[test]
fn the_certificate_is_taken_when_it_changes() {
    let dir = TempDir::new().unwrap();
    let mut files = files(dir.path());
    let said = |files: &mut Files| {
        files
            .read()
            .map(|new| new.is_some())
            .map_err(|e| e.to_string())
    };
    let missing = said(&mut files).unwrap_err();
    assert!(missing.contains("tls.crt") && missing.contains("--validating-webhook-certificate"));
    certificate(dir.path());
    assert_eq!(said(&mut files), Ok(true));
    assert_eq!(said(&mut files), Ok(false));
    let key = fs::read(dir.path().join("tls.key")).unwrap();
    certificate(dir.path());
    let new_key = fs::read(dir.path().join("tls.key")).unwrap();
    // Half of it is new.
    fs::write(dir.path().join("tls.key"), key).unwrap();
    let unfit = said(&mut files).unwrap_err();
    assert!(unfit.contains("its own key"), "{unfit}");
    fs::write(dir.path().join("tls.key"), new_key).unwrap();
    assert_eq!(said(&mut files), Ok(true));
    fs::write(dir.path().join("tls.key"), "no key").unwrap();
    let no_key = said(&mut files).unwrap_err();
    assert!(no_key.contains("--validating-webhook-key"), "{no_key}");
}

/// A webhook, and who knows the objects.
struct Server {
    address: std::net::SocketAddr,
    trusted: CertificateDer<'static>,
    tasks: [JoinHandle<()>; 2],
    _dir: TempDir,
}

impl Server {
    async fn start(known: bool) -> Self {
        let dir = TempDir::new().unwrap();
        let trusted = certificate(dir.path());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ask, mut questions) = mpsc::channel::<Question>(4);
        let files = files(dir.path());
        let serve = tokio::spawn(async move {
            webhook::serve_at(listener, files, ask).await.unwrap();
        });
        let store = store();
        let know = tokio::spawn(async move {
            while let Some(question) = questions.recv().await {
                if known {
                    question
                        .answer
                        .send(store.check(&question.ingress))
                        .unwrap();
                }
            }
        });
        Self {
            address,
            trusted,
            tasks: [serve, know],
            _dir: dir,
        }
    }

    /// Sends a request by TLS; status, and body.
    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut roots = RootCertStore::empty();
        roots.add(self.trusted.clone()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(client));
        let name = "localhost".try_into().unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // It may answer before it has everything.
        let _ = stream.write_all(body.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap();
        (status.parse().unwrap(), body.to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn reviews_over_a_connection() {
    let server = Server::start(true).await;
    let test = async {
        let post = async |object: Value| {
            let body = review(&object, None).to_string();
            let (status, body) = server.ask("POST", webhook::PATH, &body).await;
            assert_eq!(status, 200, "{body}");
            serde_json::from_str::<Value>(&body).unwrap()["response"].take()
        };
        let allowed = post(ingress("new", &[], "/y")).await;
        assert_eq!(allowed, json!({"uid": "4711", "allowed": true}));
        let refused = post(ingress("new", &[], "/x")).await;
        assert_eq!(refused["allowed"], false);
        assert!(
            has(&refused["status"]["message"], &["shop/old"]),
            "{refused}"
        );
        // One that is large, and one that is too large.
        let spaces = " ".repeat(2 << 20);
        let large = review(&ingress("new", &[], "/y"), None).to_string() + &spaces;
        assert_eq!(server.ask("POST", webhook::PATH, &large).await.0, 200);
        let too_large = large + &spaces;
        assert_eq!(server.ask("POST", webhook::PATH, &too_large).await.0, 413);
        assert_eq!(server.ask("POST", webhook::PATH, "{}").await.0, 400);
        assert_eq!(server.ask("GET", webhook::PATH, "").await.0, 405);
        assert_eq!(server.ask("POST", "/", "{}").await.0, 404);
    };
    time::timeout(LIMIT, test).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nobody_knows_the_api_server_decides() {
    let server = Server::start(false).await;
    let body = review(&ingress("new", &[], "/y"), None).to_string();
    let asked = server.ask("POST", webhook::PATH, &body);
    let (status, body) = time::timeout(LIMIT, asked).await.unwrap();
    assert_eq!(status, 503, "{body}");
}
