//! Certificates of hosts, from Secrets.

use std::{net::IpAddr, sync::Arc};

use lb_route::input::Data;
use rustls::{
    Error, InconsistentKeys,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

use super::{PROVIDER, SecretError, certificates, field, names::rfc2253};

/// A certificate with its chain and its key.
#[derive(Debug)]
pub struct Loaded {
    key: Arc<CertifiedKey>,
    facts: Facts,
}

/// What a certificate says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Names that it is for: host names and addresses, in its order; where there are none, the
    /// common names of its subject.
    pub names: Vec<String>,
    /// Subject (RFC 2253).
    pub subject: String,
    /// Issuer (RFC 2253).
    pub issuer: String,
    /// Serial number, decimal, as metrics of ingress-nginx have it.
    pub serial: String,
    /// Seconds of Unix time from which on it is valid.
    pub not_before: i64,
    /// Seconds of Unix time until which it is valid.
    pub not_after: i64,
}

impl Facts {
    /// What a certificate says; `None` if it cannot be read.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        Some(facts(&certificate))
    }

    /// Whether it is for a host, which may be `*.` and a domain.
    pub fn covers(&self, host: &str) -> bool {
        let parent = host.split_once('.').map(|(_, parent)| parent);
        self.names.iter().any(|name| {
            let of_parent = name.strip_prefix("*.").zip(parent);
            name.eq_ignore_ascii_case(host)
                || of_parent.is_some_and(|(domain, parent)| domain.eq_ignore_ascii_case(parent))
        })
    }
}

impl Loaded {
    /// Reads `tls.crt`, a certificate and those between it and its authority, and `tls.key`.
    ///
    /// # Errors
    /// One of them is missing or cannot be read, or the key does not fit the first certificate.
    pub fn from_secret(data: &Data) -> Result<Self, SecretError> {
        let chain = certificates(data, "tls.crt")?;
        let key = match PrivateKeyDer::from_pem_slice(field(data, "tls.key")?) {
            Ok(key) => key,
            Err(rustls::pki_types::pem::Error::NoItemsFound) => return Err(SecretError::NoKey),
            Err(error) => return Err(SecretError::Pem("tls.key", error.to_string())),
        };
        let key = PROVIDER.key_provider.load_private_key(key);
        let key = key.map_err(|error| SecretError::Key(reason(error)))?;
        // Certificates between are for clients, who read them for themselves.
        let own = X509Certificate::from_der(&chain[0]);
        let (_, own) =
            own.map_err(|error| SecretError::Certificate("tls.crt", 1, error.to_string()))?;
        let of_key = key.public_key();
        if of_key.is_some_and(|of_key| of_key.as_ref() != own.public_key().raw) {
            return Err(SecretError::Mismatch);
        }
        let facts = facts(&own);
        let key = Arc::new(CertifiedKey::new(chain, key));
        Ok(Self { key, facts })
    }

    /// A certificate that nobody vouches for, for hosts without one, valid for a year: what
    /// ingress-nginx makes at its start.
    ///
    /// # Errors
    /// Cryptography fails.
    pub fn self_signed() -> Result<Self, rcgen::Error> {
        let mut params = rcgen::CertificateParams::new(["ingress.local".to_owned()])?;
        let name = &mut params.distinguished_name;
        *name = rcgen::DistinguishedName::new();
        name.push(rcgen::DnType::OrganizationName, "Acme Co");
        // Tests of charts and guides look for this name.
        let common = "Kubernetes Ingress Controller Fake Certificate";
        name.push(rcgen::DnType::CommonName, common);
        params.not_before = std::time::SystemTime::now().into();
        params.not_after = params.not_before + std::time::Duration::from_secs(365 * 24 * 3600);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let key = rcgen::KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let key = PROVIDER.key_provider.load_private_key(key.into());
        let key = key.map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
        let parsed = X509Certificate::from_der(certificate.der());
        let (_, parsed) = parsed.map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
        let facts = facts(&parsed);
        let key = Arc::new(CertifiedKey::new(vec![certificate.der().clone()], key));
        Ok(Self { key, facts })
    }

    /// What it says.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What rustls serves.
    pub fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }
}

/// Why a key is refused, without what rustls puts around it.
fn reason(error: Error) -> String {
    match error {
        Error::General(reason) => reason,
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => "it is inconsistent".to_owned(),
        error => error.to_string(),
    }
}

fn facts(certificate: &X509Certificate<'_>) -> Facts {
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let general = alternatives
        .iter()
        .flat_map(|names| &names.value.general_names);
    let mut names: Vec<_> = general.filter_map(name).collect();
    if names.is_empty() {
        let common = certificate.subject().iter_common_name();
        names.extend(common.filter_map(|name| Some(name.as_str().ok()?.to_owned())));
    }
    Facts {
        names,
        subject: rfc2253(certificate.subject()),
        issuer: rfc2253(certificate.issuer()),
        serial: certificate.serial.to_string(),
        not_before: certificate.validity().not_before.timestamp(),
        not_after: certificate.validity().not_after.timestamp(),
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let address = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = address.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            Some(address.ok()?.to_string())
        }
        _ => None,
    }
}
