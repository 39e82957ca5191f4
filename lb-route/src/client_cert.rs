//! What becomes of requests whose connections have shown, or not shown, a certificate
//! (`auth-tls-*`).

use std::borrow::Cow;

use http::StatusCode;

use crate::{
    request::{Certificate, Tls},
    settings::{ClientCert, VerifyClient},
};

/// Why a request is refused for what its connection has shown, or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The connection began for another host.
    Misdirected,
    /// There is no certificate (496 of nginx).
    NoCertificate,
    /// The host's authority does not vouch for the certificate (495 of nginx).
    BadCertificate,
    /// The certificate's subject is not the one that is wanted.
    Unauthorized,
}

impl Refusal {
    /// What is answered.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::NoCertificate | Self::BadCertificate => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::FORBIDDEN,
        }
    }

    /// What the answer says.
    pub fn text(self) -> &'static str {
        match self {
            Self::Misdirected => "Misdirected Request",
            Self::NoCertificate => "No required SSL certificate was sent",
            Self::BadCertificate => "The SSL certificate error",
            Self::Unauthorized => "client certificate unauthorized",
        }
    }

    /// Whether `auth-tls-error-page` is for it.
    pub fn has_error_page(self) -> bool {
        matches!(self, Self::NoCertificate | Self::BadCertificate)
    }
}

/// Whether a request for `host` (without port, in small letters) may pass by what its connection
/// has shown; `demand` is the host's.
///
/// A client that shows its certificate to one host, and asks another on the same connection,
/// was verified by the first one's authority: such a request is misdirected (RFC 9110, section
/// 15.5.20; `ngx_http_set_virtual_server` of nginx).
pub fn check(demand: Option<&ClientCert>, tls: &Tls, host: &str) -> Option<Refusal> {
    let demand = demand?;
    let verifies = demand.verify != VerifyClient::Off;
    match &tls.server_name {
        Some(name) if verifies && !name.eq_ignore_ascii_case(host) => Some(Refusal::Misdirected),
        // It has none for this host, but may have one for the host of those without a name.
        None if verifies && tls.certificate.is_some() => Some(Refusal::Misdirected),
        _ => verdict(demand, tls.certificate.as_ref()),
    }
}

/// Whether a certificate, or that there is none, does for a host (`ngx_http_process_request` of
/// nginx, and the template of ingress-nginx for `auth-tls-match-cn`).
pub fn verdict(demand: &ClientCert, certificate: Option<&Certificate>) -> Option<Refusal> {
    let trouble = certificate.and_then(|certificate| certificate.trouble.as_deref());
    let bad = match (demand.verify, certificate, trouble) {
        (VerifyClient::On, None, _) => Some(Refusal::NoCertificate),
        (VerifyClient::On | VerifyClient::Optional, _, Some(_)) => Some(Refusal::BadCertificate),
        // Whoever has signed it, it has to be good besides.
        (VerifyClient::OptionalNoCa, Some(shown), Some(_)) if !shown.is_of_unknown_issuer => {
            Some(Refusal::BadCertificate)
        }
        _ => None,
    };
    let subject = certificate.map_or("", |certificate| &certificate.subject);
    let unauthorized = match &demand.match_cn {
        Some(wanted) => !wanted.is_match(subject.as_bytes()),
        None => false,
    };
    bad.or(unauthorized.then_some(Refusal::Unauthorized))
}

/// `$ssl_client_verify`: `NONE`, `SUCCESS`, or `FAILED:` and why (ngx_http_ssl_module).
pub fn verify_variable(certificate: Option<&Certificate>) -> Cow<'static, str> {
    let trouble = certificate.map(|certificate| &certificate.trouble);
    match trouble {
        None => "NONE".into(),
        Some(None) => "SUCCESS".into(),
        Some(Some(why)) => format!("FAILED:{why}").into(),
    }
}
