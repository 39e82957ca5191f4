//! TLS with backends (`proxy-ssl-*`).

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use lb_route::{
    input::Data,
    settings::{BackendProtocol, UpstreamTls},
};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};
use webpki::EndEntityCert;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

use super::{
    PROVIDER, SecretError,
    certificates::{Facts, Loaded},
    chain::{Trust, Usage},
    has_key, schemes,
};

/// Why there is no TLS with a backend.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name is neither one of DNS nor an address.
    #[error(
        "{0:?} cannot be the name of a backend; set proxy-ssl-name to the one that its certificate has"
    )]
    Name(String),
    /// What the backend shows does not do.
    #[error(
        "a backend's certificate does not do: {0}; ca.crt of the Secret of proxy-ssl-secret has to have its authority, and proxy-ssl-name its name"
    )]
    Certificate(String),
    /// The handshake failed.
    #[error("a backend's TLS failed: {0}")]
    Io(#[from] io::Error),
}

impl ConnectError {
    fn of(error: io::Error) -> Self {
        let tls = error.get_ref().and_then(|error| error.downcast_ref());
        match tls {
            Some(Error::InvalidCertificate(CertificateError::Other(OtherError(trouble)))) => {
                Self::Certificate(trouble.to_string())
            }
            Some(Error::InvalidCertificate(trouble)) => Self::Certificate(trouble.to_string()),
            _ => Self::Io(error),
        }
    }
}

/// Configurations for backends, each made once.
#[derive(Debug, Default)]
pub struct Upstreams {
    made: Mutex<HashMap<(UpstreamTls, bool), Made>>,
}

/// What a configuration was made of.
#[derive(Debug)]
struct Made {
    secret: Option<Arc<Data>>,
    config: Result<Arc<ClientConfig>, SecretError>,
}

impl Upstreams {
    /// The configuration for some settings and the Secret that they name, made anew where the
    /// Secret's content is another one.
    ///
    /// # Errors
    /// The Secret does not do: nothing may be sent to the backend.
    pub fn config(
        &self,
        settings: &UpstreamTls,
        secret: Option<&Arc<Data>>,
        protocol: BackendProtocol,
    ) -> Result<Arc<ClientConfig>, SecretError> {
        let http2 = matches!(protocol, BackendProtocol::Grpc | BackendProtocol::Grpcs);
        // Nothing panics with the lock.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (settings.clone(), http2);
        if let Some(made) = made.get(&key)
            && is_same(made.secret.as_ref(), secret)
        {
            return made.config.clone();
        }
        let config = config(settings, secret.map(AsRef::as_ref), http2).map(Arc::new);
        let secret = secret.cloned();
        let answer = config.clone();
        made.insert(key, Made { secret, config });
        answer
    }

    /// Forgets the configurations of settings that are not used any more.
    pub fn retain(&self, mut used: impl FnMut(&UpstreamTls) -> bool) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(|(settings, _), _| used(settings));
    }
}

fn is_same(one: Option<&Arc<Data>>, other: Option<&Arc<Data>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
        (None, None) => true,
        _ => false,
    }
}

/// Begins TLS on a connection to a backend. `name` is what it has to be if it is verified, and
/// what is sent where [`UpstreamTls::server_name`] says so: [`UpstreamTls::name`], else the
/// host of the backend.
///
/// # Errors
/// The handshake fails, or the backend's certificate does not do.
pub async fn connect<S>(
    stream: S,
    config: &Arc<ClientConfig>,
    name: &str,
) -> Result<TlsStream<S>, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let server = ServerName::try_from(name.to_owned());
    let server = server.map_err(|_| ConnectError::Name(name.to_owned()))?;
    let connector = TlsConnector::from(config.clone());
    connector
        .connect(server, stream)
        .await
        .map_err(ConnectError::of)
}

fn config(
    settings: &UpstreamTls,
    secret: Option<&Data>,
    http2: bool,
) -> Result<ClientConfig, SecretError> {
    let secret = match (&settings.secret, secret) {
        (Some(_), None) => return Err(SecretError::NoSecret),
        (_, secret) => secret,
    };
    let trust = match (settings.verify, secret) {
        (false, _) => None,
        (true, None) => return Err(SecretError::NoSecret),
        (true, Some(secret)) => Some(Trust::read(secret, settings.verify_depth)?),
    };
    let config = ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider has ciphers for both versions");
    let verifier = Arc::new(Verifier { trust });
    let config = config
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    // A Secret may have an authority only.
    let own = secret.filter(|secret| secret.0.contains_key("tls.crt"));
    let mut config = match own.map(Loaded::from_secret).transpose()? {
        Some(own) => {
            let own = rustls::sign::SingleCertAndKey::from(own.key().clone());
            config.with_client_cert_resolver(Arc::new(own))
        }
        None => config.with_no_client_auth(),
    };
    config.enable_sni = settings.server_name;
    let protocol: &[u8] = if http2 { b"h2" } else { b"http/1.1" };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

/// Verifies a backend as far as it is wanted.
#[derive(Debug)]
struct Verifier {
    trust: Option<Trust>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(trust) = &self.trust {
            trust
                .verify(own, between, Usage::Server, now)
                .map_err(|trouble| CertificateError::Other(OtherError(Arc::new(trouble))))?;
            if !is_for(own, name) {
                let presented = Facts::of(own).map(|facts| facts.names);
                return Err(CertificateError::NotValidForNameContext {
                    expected: name.to_owned(),
                    presented: presented.unwrap_or_default(),
                }
                .into());
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        has_key(message, certificate, signed, false)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        has_key(message, certificate, signed, true)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

/// Whether a certificate is for a name; one that has no names of DNS is for its common name, as
/// X509_check_host(3) has it, by which nginx asks.
fn is_for(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    let own = EndEntityCert::try_from(certificate);
    if own.is_ok_and(|own| own.verify_is_valid_for_subject_name(name).is_ok()) {
        return true;
    }
    let (Ok((_, parsed)), ServerName::DnsName(name)) =
        (X509Certificate::from_der(certificate), name)
    else {
        return false;
    };
    let alternatives = parsed.subject_alternative_name().ok().flatten();
    let mut general = alternatives
        .iter()
        .flat_map(|names| &names.value.general_names);
    if general.any(|name| matches!(name, GeneralName::DNSName(_))) {
        return false;
    }
    let mut common = parsed.subject().iter_common_name();
    common.any(|common| {
        common
            .as_str()
            .is_ok_and(|c| c.eq_ignore_ascii_case(name.as_ref()))
    })
}

/// A verifier that takes any certificate.
#[cfg(test)]
pub(super) fn unverified() -> Arc<dyn ServerCertVerifier> {
    Arc::new(Verifier { trust: None })
}
