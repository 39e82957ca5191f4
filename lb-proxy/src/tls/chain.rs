//! Whether an authority vouches for a certificate: by webpki, with what OpenSSL takes besides,
//! and with OpenSSL's words for what is wrong.

use lb_route::input::Data;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime, pem::PemObject as _},
};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationOptionsBuilder, VerifiedPath,
};
use x509_parser::{
    oid_registry::{OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA},
    prelude::{CertificateRevocationList, FromDer as _, X509Certificate},
    time::ASN1Time,
};

use super::{PROVIDER, SecretError, certificates};

/// What a certificate is shown for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Usage {
    /// By a client.
    Client,
    /// By a server.
    Server,
}

/// What is wrong with a certificate, in the words of OpenSSL 3 (X509_verify_cert_error_string),
/// which is what `$ssl_client_verify` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("certificate has expired")]
    Expired,
    #[error("certificate is not yet valid")]
    NotYetValid,
    #[error("certificate revoked")]
    Revoked,
    #[error("unable to get certificate CRL")]
    NoCrl,
    #[error("CRL has expired")]
    CrlExpired,
    #[error("self-signed certificate")]
    SelfSigned,
    #[error("self-signed certificate in certificate chain")]
    SelfSignedInChain,
    #[error("unable to get local issuer certificate")]
    NoIssuer,
    #[error("unable to verify the first certificate")]
    UnknownIssuer,
    #[error("certificate signature failure")]
    BadSignature,
    #[error("unsuitable certificate purpose")]
    Purpose,
    #[error("CA signature digest algorithm too weak")]
    Weak,
    #[error("invalid CA certificate")]
    InvalidCa,
    #[error("path length constraint exceeded")]
    PathLength,
    #[error("permitted subtree violation")]
    Constraints,
    #[error("unhandled critical extension")]
    Unhandled,
    #[error("certificate rejected")]
    Rejected,
}

impl Trouble {
    /// Whether nobody vouches for the certificate, and nothing else is wrong with it
    /// (`ngx_ssl_verify_error_optional` of nginx).
    pub(super) fn is_unknown_issuer(&self) -> bool {
        matches!(
            self,
            Self::SelfSigned | Self::SelfSignedInChain | Self::NoIssuer | Self::UnknownIssuer
        )
    }
}

/// Authorities, and what they have revoked.
#[derive(Debug)]
pub(super) struct Trust {
    authorities: Vec<CertificateDer<'static>>,
    roots: RootCertStore,
    crls: Vec<CertRevocationList<'static>>,
    raw_crls: Vec<CertificateRevocationListDer<'static>>,
    depth: usize,
}

impl Trust {
    /// Reads `ca.crt`, and `ca.crl` if there is one. `depth` is how many certificates may be
    /// between one and the authority's.
    ///
    /// # Errors
    /// One of the two does not do.
    pub(super) fn read(data: &Data, depth: u32) -> Result<Self, SecretError> {
        let authorities = certificates(data, "ca.crt")?;
        let mut roots = RootCertStore::empty();
        for (index, authority) in authorities.iter().enumerate() {
            let added = roots.add(authority.clone());
            added.map_err(|e| SecretError::Certificate("ca.crt", index + 1, e.to_string()))?;
        }
        let raw_crls = match data.0.get("ca.crl") {
            Some(pem) if !pem.is_empty() => {
                let crls = CertificateRevocationListDer::pem_slice_iter(pem);
                let crls: Result<Vec<_>, _> = crls.collect();
                let crls = crls.map_err(|error| SecretError::Crl(error.to_string()))?;
                match crls.is_empty() {
                    true => return Err(SecretError::Crl("it has no block of this kind".into())),
                    false => crls,
                }
            }
            _ => Vec::new(),
        };
        let crls = raw_crls
            .iter()
            .map(|der| OwnedCertRevocationList::from_der(der));
        let crls: Result<Vec<_>, _> = crls.map(|crl| crl.map(Into::into)).collect();
        Ok(Self {
            authorities,
            roots,
            crls: crls.map_err(|error| SecretError::Crl(error.to_string()))?,
            raw_crls,
            depth: depth.try_into().unwrap_or(usize::MAX),
        })
    }

    /// The authorities.
    pub(super) fn roots(&self) -> &RootCertStore {
        &self.roots
    }

    /// Whether one of the authorities vouches for a certificate now.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn verify(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        usage: Usage,
        now: UnixTime,
    ) -> Result<(), Trouble> {
        let error = match self.verify_path(own, between, usage, now) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        match error {
            // Certificates without extensions, as `openssl x509 -req` of many a guide makes
            // them, and those that may sign themselves: OpenSSL takes both.
            webpki::Error::UnsupportedCertVersion | webpki::Error::CaUsedAsEndEntity => {
                self.verify_direct(own, between, usage, now)
            }
            error => Err(trouble(&error, own, between)),
        }
    }

    fn verify_path(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        usage: Usage,
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        let crls: Vec<_> = self.crls.iter().collect();
        // As `ssl_crl` of nginx: of each certificate of the path there has to be one that has
        // not expired. Without any there are no options.
        let revocation = RevocationOptionsBuilder::new(&crls).ok();
        let revocation =
            revocation.map(|options| options.with_expiration_policy(ExpirationPolicy::Enforce));
        let short = |path: &VerifiedPath<'_>| match path.intermediate_certificates().count() {
            length if length > self.depth => Err(webpki::Error::MaximumPathDepthExceeded),
            _ => Ok(()),
        };
        let own = EndEntityCert::try_from(own)?;
        let verified = own.verify_for_usage(
            PROVIDER.signature_verification_algorithms.all,
            &self.roots.roots,
            between,
            now,
            match usage {
                Usage::Client => KeyUsage::client_auth(),
                Usage::Server => KeyUsage::server_auth(),
            },
            revocation.map(RevocationOptionsBuilder::build),
            Some(&short),
        );
        verified.map(drop)
    }

    /// Of a certificate that webpki takes for none of this kind: whether it is an authority's
    /// own, or one of them has signed it itself.
    fn verify_direct(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        usage: Usage,
        now: UnixTime,
    ) -> Result<(), Trouble> {
        let certificate = parse(own)?;
        let now = i64::try_from(now.as_secs()).map_err(|_| Trouble::Expired)?;
        let now = ASN1Time::from_timestamp(now).map_err(|_| Trouble::Expired)?;
        check_days(&certificate, now)?;
        check_usage(&certificate, usage)?;
        if self.authorities.contains(own) {
            return Ok(());
        }
        let named = self
            .authorities
            .iter()
            .filter_map(|authority| parse(authority).ok());
        let mut named = named.filter(|a| a.subject().as_raw() == certificate.issuer().as_raw());
        let Some(issuer) = named.find(|a| is_signed_by(&certificate, a)) else {
            return Err(unknown_issuer(own, between));
        };
        check_days(&issuer, now)?;
        // Nothing here can tell whether it keeps to them.
        if !matches!(issuer.name_constraints(), Ok(None)) {
            return Err(Trouble::Constraints);
        }
        let weak = [OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA];
        if weak.contains(&certificate.signature_algorithm.algorithm) {
            return Err(Trouble::Weak);
        }
        match self.raw_crls.is_empty() {
            true => Ok(()),
            false => self.check_revoked(&certificate, &issuer, now),
        }
    }

    fn check_revoked(
        &self,
        certificate: &X509Certificate<'_>,
        issuer: &X509Certificate<'_>,
        now: ASN1Time,
    ) -> Result<(), Trouble> {
        let lists = self.raw_crls.iter();
        let mut lists = lists.filter_map(|der| CertificateRevocationList::from_der(der).ok());
        let list = lists.find(|(_, list)| {
            list.issuer().as_raw() == issuer.subject().as_raw()
                && list.verify_signature(issuer.public_key()).is_ok()
        });
        let (_, list) = list.ok_or(Trouble::NoCrl)?;
        if list.next_update().is_some_and(|next| next < now) {
            return Err(Trouble::CrlExpired);
        }
        let serial = &certificate.serial;
        match list
            .iter_revoked_certificates()
            .any(|revoked| revoked.serial() == serial)
        {
            true => Err(Trouble::Revoked),
            false => Ok(()),
        }
    }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Trouble> {
    let parsed = X509Certificate::from_der(certificate);
    parsed
        .map(|(_, certificate)| certificate)
        .map_err(|_| Trouble::Rejected)
}

fn is_signed_by(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    // An authority of a version that has extensions says of itself that it is one.
    let may = issuer.extensions().is_empty() || issuer.is_ca();
    may && certificate
        .verify_signature(Some(issuer.public_key()))
        .is_ok()
}

fn check_days(certificate: &X509Certificate<'_>, now: ASN1Time) -> Result<(), Trouble> {
    if now < certificate.validity().not_before {
        Err(Trouble::NotYetValid)
    } else if certificate.validity().not_after < now {
        Err(Trouble::Expired)
    } else {
        Ok(())
    }
}

/// A usage that is not named, where some are, is none (`check_purpose_ssl_client` of OpenSSL);
/// nor is what cannot be read, and is critical.
fn check_usage(certificate: &X509Certificate<'_>, usage: Usage) -> Result<(), Trouble> {
    let mut extensions = certificate.iter_extensions();
    if extensions.any(|extension| extension.critical && extension.parsed_extension().unsupported())
    {
        return Err(Trouble::Unhandled);
    }
    let rejected = |_| Trouble::Rejected;
    let extended = certificate.extended_key_usage().map_err(rejected)?;
    let extended = extended.is_none_or(|extended| {
        let named = match usage {
            Usage::Client => extended.value.client_auth,
            Usage::Server => extended.value.server_auth,
        };
        named || extended.value.any
    });
    let key = certificate.key_usage().map_err(rejected)?;
    let key = key.is_none_or(|key| {
        let signs = key.value.digital_signature() || key.value.key_agreement();
        signs || (usage == Usage::Server && key.value.key_encipherment())
    });
    (extended && key).then_some(()).ok_or(Trouble::Purpose)
}

fn trouble(
    error: &webpki::Error,
    own: &CertificateDer<'_>,
    between: &[CertificateDer<'_>],
) -> Trouble {
    use webpki::Error as E;
    match error {
        E::CertExpired { .. } | E::InvalidCertValidity => Trouble::Expired,
        E::CertNotValidYet { .. } => Trouble::NotYetValid,
        E::CertRevoked => Trouble::Revoked,
        E::UnknownRevocationStatus => Trouble::NoCrl,
        E::CrlExpired { .. } => Trouble::CrlExpired,
        E::UnknownIssuer => unknown_issuer(own, between),
        // OpenSSL looks no further than the depth.
        E::MaximumPathDepthExceeded => Trouble::NoIssuer,
        E::InvalidSignatureForPublicKey => Trouble::BadSignature,
        E::RequiredEkuNotFoundContext(_) => Trouble::Purpose,
        E::UnsupportedSignatureAlgorithmContext(_) => Trouble::Weak,
        E::EndEntityUsedAsCa => Trouble::InvalidCa,
        E::PathLenConstraintViolated => Trouble::PathLength,
        E::NameConstraintViolation => Trouble::Constraints,
        E::UnsupportedCriticalExtension => Trouble::Unhandled,
        _ => Trouble::Rejected,
    }
}

/// As OpenSSL tells them apart (`build_chain` and `internal_verify` of crypto/x509/x509_vfy.c).
fn unknown_issuer(own: &CertificateDer<'_>, between: &[CertificateDer<'_>]) -> Trouble {
    let own_issuer = |der: &CertificateDer<'_>| {
        parse(der).is_ok_and(|c| c.subject().as_raw() == c.issuer().as_raw())
    };
    match between.last() {
        _ if own_issuer(own) => Trouble::SelfSigned,
        None => Trouble::UnknownIssuer,
        Some(last) if own_issuer(last) => Trouble::SelfSignedInChain,
        Some(_) => Trouble::NoIssuer,
    }
}
