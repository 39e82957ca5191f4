//! Who may ask: addresses, passwords, other servers, certificates.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, Method, StatusCode};
use ipnet::IpNet;
use regex::bytes::Regex;

use crate::{input::Name, variables::Template};

/// Who may ask.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Clients' addresses; all, if there are none (`whitelist-source-range`,
    /// `allowlist-source-range`).
    pub allow: Vec<IpNet>,
    /// Clients that are refused (`denylist-source-range`).
    pub deny: Vec<IpNet>,
    /// Names and passwords.
    pub basic: Option<BasicAuth>,
    /// Another server is asked.
    pub external: Option<Arc<ExternalAuth>>,
    /// Whether one of addresses, password and other server is enough (`satisfy: any`).
    pub any: bool,
}

/// `auth-type: basic`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BasicAuth {
    /// The Secret with the users.
    pub secret: Name,
    /// Whether each user is a key of it (`auth-secret-type: auth-map`), or all are in `auth`.
    pub map: bool,
    /// `auth-realm`.
    pub realm: String,
}

/// `auth-url` and its companions.
#[derive(Clone, Debug)]
pub struct ExternalAuth {
    /// The server that is asked.
    pub url: Template,
    /// The host of `url`: value of `Host`.
    pub host: String,
    /// Method of the question; `None` for GET.
    pub method: Option<Method>,
    /// Where a client that has to sign in is led.
    pub signin: Option<Template>,
    /// Parameter of `signin` with the address that was asked for (`rd`).
    pub signin_redirect_param: String,
    /// Headers of its answer that the backend gets.
    pub response_headers: Vec<HeaderName>,
    /// Value of `X-Auth-Request-Redirect`; `None` for what was asked for.
    pub request_redirect: Option<Template>,
    /// Whether its cookies are set where the answer is an error too.
    pub always_set_cookie: bool,
    /// ConfigMap with more headers of the question.
    pub proxy_set_headers: Option<Name>,
    /// Which of its answers are kept.
    pub cache: Option<AuthCache>,
}

/// Answers of a server that are kept, so that it is not asked again.
#[derive(Clone, Debug)]
pub struct AuthCache {
    /// What they are kept by, of each path for itself (`auth-cache-key`).
    pub key: Template,
    /// Statuses, and how long answers with them are (`auth-cache-duration`). The first that a
    /// status is in counts.
    pub times: Vec<(Vec<u16>, Duration)>,
}

impl AuthCache {
    /// How long an answer is kept that does not say it itself.
    pub fn time(&self, status: StatusCode) -> Option<Duration> {
        let mut times = self.times.iter();
        let found = times.find(|(statuses, _)| statuses.contains(&status.as_u16()));
        found.map(|(_, time)| *time)
    }
}

/// When a client has to show a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum VerifyClient {
    /// Always, and one that the authority signed.
    #[default]
    On,
    /// Never.
    Off,
    /// If it shows one, the authority has to have signed it.
    Optional,
    /// It may show any.
    OptionalNoCa,
}

/// `auth-tls-*`.
#[derive(Clone, Debug)]
pub struct ClientCert {
    /// The Secret with `ca.crt`, and `ca.crl` perhaps.
    pub secret: Name,
    /// When it has to be shown.
    pub verify: VerifyClient,
    /// Certificates between its and the root (1).
    pub depth: u32,
    /// Where a client is led whose certificate does not do, in place of 400.
    pub error_page: Option<Template>,
    /// Whether the backend gets it.
    pub pass_to_upstream: bool,
    /// What its subject has to match (`auth-tls-match-cn`).
    pub match_cn: Option<Regex>,
}
