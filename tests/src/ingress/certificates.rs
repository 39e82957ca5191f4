//! Certificates of the proxy, of backends and of clients, made for one run.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use serde_json::{Value, json};

/// A certificate and its key.
#[derive(Debug)]
pub struct Issued {
    /// What it is called here.
    pub name: &'static str,
    certificate: String,
    key: String,
}

impl Issued {
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        let certificates = CertificateDer::pem_slice_iter(self.certificate.as_bytes());
        certificates
            .map(|one| one.expect("it was made here"))
            .collect()
    }

    fn private(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("it was made here")
    }
}

/// All certificates of a run: of hosts (`tls`, `other`), of a backend (`backend`), of clients
/// (`client`, and `stranger`, whom the authority has not signed).
#[derive(Debug)]
pub struct Certificates {
    authority: String,
    all: Vec<Issued>,
}

/// A certificate that signs others, or itself.
fn authority(name: &str) -> (String, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::new([]).expect("without names there is no wrong one");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key can be made");
    let pem = params.self_signed(&key).expect("it can be signed").pem();
    (pem, Issuer::new(params, key))
}

fn issued(name: &'static str, hosts: &[&str], by: &Issuer<'static, KeyPair>) -> Issued {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).expect("they are names");
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().expect("a key can be made");
    let certificate = params.signed_by(&key, by).expect("it can be signed");
    Issued {
        name,
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    }
}

impl Certificates {
    /// Makes them.
    #[must_use]
    pub fn new() -> Self {
        let (authority_pem, by) = authority("authority");
        let (_, other) = authority("another authority");
        let all = vec![
            issued("tls", &["*.test"], &by),
            issued("other", &["*.test", "*.other.test"], &by),
            issued("backend", &["backend.test"], &by),
            issued("client", &[], &by),
            issued("stranger", &[], &other),
        ];
        Self {
            authority: authority_pem,
            all,
        }
    }

    fn of(&self, name: &str) -> &Issued {
        let found = self.all.iter().find(|issued| issued.name == name);
        found.unwrap_or_else(|| panic!("there is no certificate {name}"))
    }

    /// Secrets of that name with each, its key and the authority, and `authority` with that alone.
    #[must_use]
    pub fn secrets(&self) -> Vec<Value> {
        let secret = |name: &str, data: Value| {
            json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": {"name": name, "namespace": "default"}, "stringData": data,
            })
        };
        let all = self.all.iter().map(|issued| {
            let Issued {
                name,
                certificate,
                key,
            } = issued;
            let data = json!({"tls.crt": certificate, "tls.key": key, "ca.crt": self.authority});
            secret(name, data)
        });
        all.chain([secret("authority", json!({"ca.crt": self.authority}))])
            .collect()
    }

    /// TLS of a backend, which asks for a certificate of its client if `mutual`.
    #[must_use]
    pub fn server(&self, mutual: bool) -> Arc<ServerConfig> {
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has them");
        let issued = self.of("backend");
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(self.authority.as_bytes());
        roots
            .add(authority.expect("it was made here"))
            .expect("it is one");
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        let config = match mutual {
            true => config.with_client_cert_verifier(verifier.expect("there is a root")),
            false => config.with_no_client_auth(),
        };
        let config = config.with_single_cert(issued.chain(), issued.private());
        Arc::new(config.expect("key and certificate belong together"))
    }

    /// TLS of a client that takes every certificate, and shows one of its own perhaps.
    #[must_use]
    pub fn client(&self, shows: Option<&str>) -> Arc<ClientConfig> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anything));
        Arc::new(match shows.map(|name| self.of(name)) {
            Some(own) => config
                .with_client_auth_cert(own.chain(), own.private())
                .expect("key and certificate belong together"),
            None => config.with_no_client_auth(),
        })
    }

    /// The name of a certificate; `default` for one that is not of these.
    #[must_use]
    pub fn name(&self, certificate: &CertificateDer<'_>) -> &'static str {
        let found = self
            .all
            .iter()
            .find(|issued| issued.chain().first() == Some(certificate));
        found.map_or("default", |issued| issued.name)
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Takes every certificate: a test looks at it itself.
#[derive(Debug)]
struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
