//! The two ends of connections in tests.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use lb_route::client_cert::verify_variable;
use rustls::{
    ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion,
    client::Resumption,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time,
};
use tokio_rustls::TlsConnector;

use super::{
    super::{
        PROVIDER,
        accept::{Accepted, Acceptor},
        certificates::Loaded,
        hosts::{Certificates, Demand, Host, Options, Shows},
    },
    authority::{Authority, Issued},
};

pub(super) const BOTH: &[&SupportedProtocolVersion] = &[&TLS12, &TLS13];

/// A proxy that answers what it knows of a connection.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) certificates: Arc<ArcSwap<Certificates>>,
    pub(super) acceptor: Arc<Acceptor>,
}

pub(super) fn host(name: &str, shows: Shows) -> Host {
    Host {
        name: name.to_owned(),
        shows,
        demand: None,
    }
}

pub(super) fn demanding(name: &str, shows: Shows, demand: Demand) -> Host {
    let demand = Some(demand);
    Host {
        demand,
        ..host(name, shows)
    }
}

/// A table with a default certificate that nobody vouches for.
pub(super) fn table(options: &Options, hosts: Vec<Host>) -> Certificates {
    let fallback = Arc::new(Loaded::self_signed().unwrap());
    Certificates::build(None, options, (None, &fallback), hosts)
}

impl Server {
    /// Serves a table; what is passed on goes to `backend`.
    pub(super) async fn new(table: Certificates, backend: Option<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let certificates = Arc::new(ArcSwap::from_pointee(table));
        let patience = Duration::from_secs(3);
        let acceptor = Arc::new(Acceptor::new(certificates.clone(), patience));
        let accepts = acceptor.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = accepts.clone();
                tokio::spawn(async move { serve(&acceptor, stream, backend).await });
            }
        });
        Self {
            address,
            certificates,
            acceptor,
        }
    }

    pub(super) fn refused(&self, kind: &str) -> u64 {
        self.acceptor
            .refused()
            .find(|(known, _)| *known == kind)
            .unwrap()
            .1
    }

    /// Says hello with a name and hears what the server knows.
    pub(super) async fn ask(&self, name: &str, config: &Arc<ClientConfig>) -> io::Result<Heard> {
        ask(self.address, name, config).await
    }
}

async fn serve(acceptor: &Acceptor, stream: TcpStream, backend: Option<SocketAddr>) {
    match acceptor.accept(stream).await {
        Ok(Accepted::Tls(mut established)) => {
            let tls = &established.tls;
            let certificate = tls.certificate.as_ref();
            let verify = verify_variable(certificate);
            let subject = certificate.map_or("", |c| &c.subject);
            let answer = format!(
                "{}|{}|{}|{}|{verify}|{subject}",
                tls.server_name.as_deref().unwrap_or_default(),
                tls.protocol,
                tls.cipher,
                if established.http2 { "h2" } else { "h1" },
            );
            // A client that goes early misses it.
            let _ = established.stream.write_all(answer.as_bytes()).await;
            let _ = established.stream.shutdown().await;
        }
        Ok(Accepted::Passed(passed)) => {
            let backend = TcpStream::connect(backend.unwrap()).await.unwrap();
            let _ = passed.tunnel(backend).await;
        }
        Err(_) => {}
    }
}

/// What a client sees and hears.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) text: String,
    pub(super) certificate: Vec<u8>,
    pub(super) resumed: bool,
}

impl Heard {
    /// Name, protocol, cipher, HTTP, verification, subject.
    pub(super) fn field(&self, index: usize) -> &str {
        self.text.split('|').nth(index).unwrap_or_default()
    }

    pub(super) fn shows(&self, issued: &Issued) -> bool {
        self.certificate == der(issued)[0].as_ref()
    }
}

pub(super) async fn ask(
    address: SocketAddr,
    name: &str,
    config: &Arc<ClientConfig>,
) -> io::Result<Heard> {
    let asked = async {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut stream = TlsConnector::from(config.clone())
            .connect(name, stream)
            .await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let connection = stream.get_ref().1;
        Ok(Heard {
            text,
            certificate: connection.peer_certificates().unwrap()[0].to_vec(),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        })
    };
    time::timeout(Duration::from_secs(20), asked).await.unwrap()
}

pub(super) fn der(issued: &Issued) -> Vec<CertificateDer<'static>> {
    let chain = CertificateDer::pem_slice_iter(issued.chain.as_bytes());
    chain.map(Result::unwrap).collect()
}

/// A client that trusts an authority, and shows a certificate.
pub(super) fn client_with(
    authority: &Authority,
    versions: &[&'static SupportedProtocolVersion],
    shows: Option<&Issued>,
    protocols: &[&str],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap())
        .unwrap();
    let config = ClientConfig::builder_with_provider(PROVIDER.clone());
    let config = config
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shows {
        Some(issued) => {
            let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
            config.with_client_auth_cert(der(issued), key).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    let protocols = protocols
        .iter()
        .map(|protocol| protocol.as_bytes().to_vec());
    config.alpn_protocols = protocols.collect();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

pub(super) fn client(authority: &Authority) -> Arc<ClientConfig> {
    client_with(authority, BOTH, None, &[])
}
