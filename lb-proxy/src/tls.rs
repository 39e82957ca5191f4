//! TLS: with clients, whose hosts have certificates from Secrets, and with backends.

pub mod accept;
pub mod certificates;
pub mod clients;
pub mod hosts;
pub mod upstream;

mod chain;
mod names;
mod sessions;
#[cfg(test)]
mod tests;

use std::sync::{Arc, LazyLock};

use lb_route::input::Data;
use rustls::{
    DigitallySignedStruct, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, SubjectPublicKeyInfoDer, pem::PemObject as _},
};
use webpki::RawPublicKeyEntity;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The only provider of cryptography.
static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));

/// Why a Secret does not do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SecretError {
    /// A key is missing, or empty.
    #[error("it has no {0}; add that key to the Secret")]
    Missing(&'static str),
    /// A key is no PEM.
    #[error("{0} is not PEM: {1}; it has to consist of BEGIN and END lines with base64 between")]
    Pem(&'static str, String),
    /// A key has no certificate in it.
    #[error("{0} has no certificate in it; a block begins with BEGIN CERTIFICATE")]
    NoCertificate(&'static str),
    /// A certificate is none.
    #[error("certificate {1} of {0} cannot be read: {2}; make it anew")]
    Certificate(&'static str, usize, String),
    /// There is no key, or it is encrypted.
    #[error(
        "tls.key has no private key in it; a block begins with BEGIN PRIVATE KEY, BEGIN RSA PRIVATE KEY or BEGIN EC PRIVATE KEY, and is not encrypted"
    )]
    NoKey,
    /// A key of another kind.
    #[error("tls.key cannot be used: {0}; RSA, ECDSA (P-256, P-384, P-521) and Ed25519 can")]
    Key(String),
    /// The key is another certificate's.
    #[error(
        "tls.key is not the key of the first certificate of tls.crt; the server's own certificate comes first, and its key is in tls.key"
    )]
    Mismatch,
    /// A list of revoked certificates is none.
    #[error("ca.crl cannot be read: {0}; it has to be PEM, BEGIN X509 CRL")]
    Crl(String),
    /// There is no such Secret.
    #[error("there is no such Secret, or it may not be read; create it")]
    NoSecret,
}

/// The certificates of a key of a Secret, in its order.
fn certificates(
    data: &Data,
    key: &'static str,
) -> Result<Vec<CertificateDer<'static>>, SecretError> {
    let pem = field(data, key)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|error| SecretError::Pem(key, error.to_string()))?;
    if read.is_empty() {
        return Err(SecretError::NoCertificate(key));
    }
    Ok(read)
}

fn field<'d>(data: &'d Data, key: &'static str) -> Result<&'d [u8], SecretError> {
    let value = data.0.get(key).filter(|value| !value.is_empty());
    value.map(Vec::as_slice).ok_or(SecretError::Missing(key))
}

/// Whether whoever shows a certificate has its key. The certificate itself may be of any kind,
/// also of a version that [`webpki`] refuses.
///
/// # Errors
/// It has not, or the certificate cannot be read.
fn has_key(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    tls13: bool,
) -> Result<HandshakeSignatureValid, Error> {
    let bad = |error| Error::InvalidCertificate(error);
    let unreadable = |_| bad(rustls::CertificateError::BadEncoding);
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(unreadable)?;
    let key = SubjectPublicKeyInfoDer::from(parsed.public_key().raw);
    let algorithms = &PROVIDER.signature_verification_algorithms;
    if tls13 {
        return rustls::crypto::verify_tls13_signature_with_raw_key(
            message, &key, signed, algorithms,
        );
    }
    let key = RawPublicKeyEntity::try_from(&key);
    let key = key.map_err(|_| bad(rustls::CertificateError::BadEncoding))?;
    // A scheme of TLS 1.2 does not tell the curve (RFC 5246, section 7.4.1.4.1).
    let mapping = algorithms.mapping.iter();
    let mut schemes = mapping.filter(|(scheme, _)| *scheme == signed.scheme);
    let verified = schemes.next().is_some_and(|(_, algorithms)| {
        let mut algorithms = algorithms.iter();
        algorithms.any(|alg| {
            key.verify_signature(*alg, message, signed.signature())
                .is_ok()
        })
    });
    match verified {
        true => Ok(HandshakeSignatureValid::assertion()),
        false => Err(bad(rustls::CertificateError::BadSignature)),
    }
}

/// How certificates may sign.
fn schemes() -> Vec<SignatureScheme> {
    PROVIDER
        .signature_verification_algorithms
        .supported_schemes()
}
