//! Certificates of clients (`auth-tls-*`). A handshake takes any whose key the client has, and
//! none; what is wrong is answered in HTTP, as nginx does.

use std::sync::Arc;

use lb_route::{input::Data, request::Certificate};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{
    SecretError,
    chain::{Trouble, Trust, Usage},
    has_key,
    names::rfc2253,
    schemes,
};

/// The authorities that vouch for clients of a host.
#[derive(Debug)]
pub struct ClientAuth {
    trust: Trust,
}

impl ClientAuth {
    /// Reads `ca.crt` and `ca.crl` of the Secret of a host. `depth` is
    /// [`lb_route::settings::ClientCert::depth`].
    ///
    /// # Errors
    /// One of them does not do. ingress-nginx answers every request of such a host with 403.
    pub fn read(data: &Data, depth: u32) -> Result<Self, SecretError> {
        let trust = Trust::read(data, depth)?;
        Ok(Self { trust })
    }

    /// What requests learn of the certificate that a client has shown: the first of `chain`,
    /// which those between it and its authority follow. `None` for none, and for one that
    /// cannot be read, with which no handshake succeeds.
    pub fn certificate(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Option<Certificate> {
        let (own, between) = chain.split_first()?;
        let (_, parsed) = X509Certificate::from_der(own).ok()?;
        let verified = self.trust.verify(own, between, Usage::Client, now);
        let block = pem::Pem::new("CERTIFICATE", own.as_ref());
        let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        let trouble = verified.err();
        Some(Certificate {
            is_of_unknown_issuer: trouble.as_ref().is_some_and(Trouble::is_unknown_issuer),
            trouble: trouble.map(|trouble| trouble.to_string()),
            subject: rfc2253(parsed.subject()),
            issuer: rfc2253(parsed.issuer()),
            pem: pem::encode_config(&block, lines),
        })
    }

    /// What asks clients for certificates.
    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::new(Permissive {
            authorities: self.trust.roots().subjects(),
        })
    }
}

/// Takes any certificate whose key the client has.
#[derive(Debug)]
struct Permissive {
    authorities: Vec<DistinguishedName>,
}

impl ClientCertVerifier for Permissive {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.authorities
    }

    fn verify_client_cert(
        &self,
        _own: &CertificateDer<'_>,
        _between: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // `ClientAuth::certificate` looks at it.
        Ok(ClientCertVerified::assertion())
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
