//! Certificates for tests.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use lb_route::input::Data;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, SignatureAlgorithm,
};

pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// One that signs certificates.
pub(super) struct Authority {
    pub(super) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with those between it and its authority, and its key.
pub(super) struct Issued {
    pub(super) chain: String,
    pub(super) key: String,
}

impl Issued {
    /// A Secret of type `kubernetes.io/tls`.
    pub(super) fn secret(&self) -> Arc<Data> {
        secret(&[("tls.crt", &self.chain), ("tls.key", &self.key)])
    }
}

pub(super) fn secret(entries: &[(&str, &str)]) -> Arc<Data> {
    let entries = entries
        .iter()
        .map(|(key, value)| (key.to_string(), value.as_bytes().to_vec()));
    Arc::new(Data(entries.collect()))
}

/// What a certificate is to say: names of DNS, a common name, and days from now.
pub(super) fn params(names: &[&str], common: &str) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| name.to_string()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common);
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    days(&mut params, -1, 1);
    params
}

/// Sets from when on, and until when it is valid.
pub(super) fn days(params: &mut CertificateParams, from: i32, until: i32) {
    let day = |days: i32| {
        let distance = DAY * days.unsigned_abs();
        let now = SystemTime::now();
        if days < 0 {
            now - distance
        } else {
            now + distance
        }
    };
    params.not_before = day(from).into();
    params.not_after = day(until).into();
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = params(&[], name);
    params.extended_key_usages.clear();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        Self::with(name, |_| {})
    }

    /// One that says something else.
    pub(super) fn with(name: &str, change: impl Fn(&mut CertificateParams)) -> Self {
        let mut params = authority_params(name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { pem, issuer }
    }

    /// Another authority that this one has signed.
    pub(super) fn below(&self, name: &str) -> Self {
        let params = authority_params(name);
        let key = KeyPair::generate().unwrap();
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { pem, issuer }
    }

    pub(super) fn issue(&self, params: CertificateParams) -> Issued {
        self.issue_with(params, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    pub(super) fn issue_with(
        &self,
        params: CertificateParams,
        kind: &'static SignatureAlgorithm,
    ) -> Issued {
        let key = KeyPair::generate_for(kind).unwrap();
        let chain = params.signed_by(&key, &self.issuer).unwrap().pem();
        let key = key.serialize_pem();
        Issued { chain, key }
    }

    /// One for some hosts.
    pub(super) fn host(&self, names: &[&str]) -> Issued {
        self.issue(params(names, names[0]))
    }

    /// A list that has revoked these serial numbers, and that the next one follows in some days.
    pub(super) fn revoke(&self, serials: &[u64], next: i32) -> String {
        let mut limits = CertificateParams::default();
        days(&mut limits, next - 7, next);
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: limits.not_before,
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: limits.not_before,
            next_update: limits.not_after,
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}
