//! From a request to what becomes of it: in the order of nginx's phases.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderName, HeaderValue, StatusCode, header};
use regex::bytes::Regex;

use crate::{
    action::{Action, Answer, Asked, Forward, Location, Upstream},
    affinity, canary, client_cert,
    context::{self, Context},
    cors, forwarded, host,
    request::{Client, Head},
    routes::Route,
    settings::{Balance, Redirect, Settings, VerifyClient},
    table::{Host, Serves, Table},
    target::{self, Target},
    uri,
};

impl Table {
    /// What becomes of a request. It asks in the order in which nginx does: the redirects of the
    /// host, then of the path (rewrite phase), and who may ask (access phase), which the proxy
    /// finishes.
    ///
    /// What is malformed (no host, a path that leads out of its root) is answered 400; what no
    /// rule has, 404, unless there is a default backend.
    pub fn decide(&self, head: &Head<'_>, client: &Client) -> Action {
        let asked = context::asked(&self.globals, head, client);
        let Some(name) = head.authority().and_then(host::normal) else {
            return answer(StatusCode::BAD_REQUEST, None);
        };
        let Ok(path) = uri::normal(head.uri.path()) else {
            return answer(StatusCode::BAD_REQUEST, None);
        };
        if self.is_blocked(head, asked.remote) {
            return answer(StatusCode::FORBIDDEN, None);
        }
        let Some(host) = self.host(&name) else {
            return answer(StatusCode::NOT_FOUND, None);
        };
        if host.denied.is_some() {
            return answer(StatusCode::FORBIDDEN, None);
        }
        let context = Context {
            head: *head,
            client,
            asked: &asked,
            location: None,
            groups: &[],
        };
        if let Some(answer) = self.client_cert(host, &context, &name) {
            return Action::Answer(answer);
        }
        match &host.serves {
            Serves::Redirect(to) => {
                let to = format!("{}://{to}{}", asked.scheme, head.target());
                redirect(self.globals.defaults.redirect.ssl_code, &to, None)
            }
            Serves::Paths {
                app_root: Some(to), ..
            } if path == b"/" => {
                let to = format!("{}://{}{to}", context::scheme(client), authority(head));
                redirect(StatusCode::FOUND, &to, None)
            }
            Serves::Paths { paths, .. } => match paths.find(&path) {
                Some(Route::To { target, groups }) => self
                    .on_path(host, target, (head, client))
                    .decide(asked, groups),
                Some(Route::AddSlash(target)) => add_slash(target, head, client, &path),
                None => answer(StatusCode::NOT_FOUND, None),
            },
        }
    }

    /// `block-cidrs`, `block-user-agents`, `block-referers`.
    fn is_blocked(&self, head: &Head<'_>, remote: IpAddr) -> bool {
        let block = &self.globals.block;
        let is_of = |name: &HeaderName, patterns: &[Regex]| {
            let sent = head.header_bytes(name).unwrap_or_default();
            patterns.iter().any(|pattern| pattern.is_match(&sent))
        };
        block.clients.iter().any(|net| net.contains(&remote))
            || is_of(&header::USER_AGENT, &block.agents)
            || is_of(&header::REFERER, &block.referers)
    }

    fn on_path<'a>(
        &'a self,
        host: &'a Host,
        location: &'a Arc<Location>,
        (head, client): (&'a Head<'a>, &'a Client),
    ) -> Request<'a> {
        Request {
            table: self,
            host,
            head,
            client,
            location,
        }
    }
}

impl Table {
    /// What is answered because of the certificate that the client has shown, or not. Without
    /// TLS there is none to show: such requests are led to HTTPS, unless a setting says no.
    fn client_cert(&self, host: &Host, context: &Context<'_>, name: &str) -> Option<Answer> {
        let authority = host.client_cert.as_ref()?;
        let tls = context.client.tls.as_ref()?;
        let demand = &authority.settings;
        if authority.data.is_none() && demand.verify != VerifyClient::Off {
            return Some(plain(StatusCode::FORBIDDEN, Vec::new(), None));
        }
        let refusal = client_cert::check(Some(demand), tls, name)?;
        let page = demand
            .error_page
            .as_ref()
            .filter(|_| refusal.has_error_page());
        Some(match page {
            Some(page) => led(StatusCode::FOUND, &page.fill(context), None),
            None => plain(refusal.status(), Vec::new(), None),
        })
    }
}

/// A request whose path was found.
struct Request<'a> {
    table: &'a Table,
    host: &'a Host,
    head: &'a Head<'a>,
    client: &'a Client,
    location: &'a Arc<Location>,
}

/// Where a request goes.
struct Chosen<'a> {
    upstream: Arc<Upstream>,
    cookie: Option<&'a str>,
    is_canary: bool,
    is_stand_in: bool,
}

impl Request<'_> {
    fn decide(&self, asked: Asked, groups: Vec<Vec<u8>>) -> Action {
        let location = self.location;
        let context = Context {
            head: *self.head,
            client: self.client,
            asked: &asked,
            location: Some(location),
            groups: &groups,
        };
        let cors = location.settings.cors.as_ref();
        let cors = cors.and_then(|cors| cors::answer(cors, self.head));
        let too_large = self.is_too_large();
        let target = match self.rewrite(&context, cors.as_ref()) {
            Ok(target) => target,
            Err(_) if too_large && location.denied.is_none() => String::new(),
            Err(answer) => return Action::Answer(answer),
        };
        let Some(chosen) = self.choose() else {
            return answer(StatusCode::NOT_FOUND, Some(location));
        };
        let mut headers = forwarded::headers(self.table, self.host, &context);
        if chosen.is_stand_in {
            headers.extend(forwarded::error_headers(503, &context));
        }
        let canary = location.canary.as_ref().filter(|_| chosen.is_canary);
        let balanced = canary.map_or(&location.settings, |canary| &canary.settings);
        let hash = match &balanced.upstream.balance {
            Balance::Hash { key, .. } => Some(key.fill(&context)),
            _ => None,
        };
        Action::Forward(Box::new(Forward {
            upstream: chosen.upstream,
            canary: chosen.is_canary,
            target,
            headers,
            too_large,
            source_denied: self.is_source_denied(&asked),
            cookie: chosen.cookie.map(str::to_owned),
            hash,
            answer_headers: cors.map(|cors| cors.headers).unwrap_or_default(),
            location: location.clone(),
            groups,
            asked,
        }))
    }

    /// nginx's rewrite phase: its own directives first, in the order of the template, then Lua's.
    /// The target for the backend, or the answer.
    fn rewrite(
        &self,
        context: &Context<'_>,
        cors: Option<&cors::Allowed>,
    ) -> Result<String, Answer> {
        let location = Some(self.location);
        let settings = &self.location.settings;
        if self.location.denied.is_some() {
            return Err(plain(StatusCode::SERVICE_UNAVAILABLE, Vec::new(), location));
        }
        if let Some(cors) = cors.filter(|cors| cors.is_preflight) {
            return Err(plain(
                StatusCode::NO_CONTENT,
                cors.headers.clone(),
                location,
            ));
        }
        // What leads elsewhere is read by scripts too.
        let led = |status, to: &str| {
            let mut answer = led(status, to, location);
            answer
                .headers
                .extend(cors.iter().flat_map(|cors| cors.headers.clone()));
            answer
        };
        if let Some((status, to)) = &settings.redirect.to {
            let to = match to.fill(context) {
                path if path.starts_with('/') => {
                    absolute(&settings.redirect, self.head, self.client, path)
                }
                address => address,
            };
            return Err(led(*status, &to));
        }
        let target = match target::rewritten(&settings.rewrite, &self.location.path, context) {
            Target::Path(target) => target,
            Target::Elsewhere(to) => return Err(led(StatusCode::FOUND, &to)),
        };
        if self.is_led_to_https(&settings.redirect, context.asked) {
            let to = https(&settings.redirect, context.asked, self.head);
            return Err(led(settings.redirect.ssl_code, &to));
        }
        Ok(target)
    }

    /// The upstream; none for what no rule has, without a default backend: the canary's, if there
    /// is one that takes the request, and a binding of the client's says nothing else; the default
    /// backend's, while the path's has no endpoint.
    fn choose(&self) -> Option<Chosen<'_>> {
        let (table, location) = (self.table, self.location);
        let primary = table.upstream(&location.upstream)?;
        let cookie = self.cookie(&location.settings);
        if let Some(canary) = self.canary(primary, cookie) {
            return Some(canary);
        }
        let instead = location
            .stand_in
            .as_ref()
            .filter(|_| !primary.has_endpoints());
        let instead = instead.and_then(|name| table.upstream(name));
        let instead = instead.filter(|upstream| upstream.has_endpoints());
        Some(Chosen {
            upstream: instead.unwrap_or(primary).clone(),
            cookie,
            is_canary: false,
            is_stand_in: instead.is_some(),
        })
    }

    /// The canary, if it takes the request; one without endpoints takes none (balancer.lua,
    /// `route_to_alternative_balancer`).
    fn canary(&self, primary: &Upstream, cookie: Option<&str>) -> Option<Chosen<'_>> {
        let canary = self.location.canary.as_ref()?;
        let upstream = self.table.upstream(&canary.upstream)?;
        let is_bound_to = |cookie: Option<&str>, to: &Upstream| {
            cookie.is_some_and(|cookie| affinity::is_bound_to(cookie, to))
        };
        if !upstream.has_endpoints() || is_bound_to(cookie, primary) {
            return None;
        }
        let own = self.cookie(&canary.settings);
        let takes = || canary::takes(&canary.when, self.head, self.client.random);
        (is_bound_to(own, upstream) || takes()).then(|| Chosen {
            upstream: upstream.clone(),
            cookie: own,
            is_canary: true,
            is_stand_in: false,
        })
    }

    /// The cookie by which a client is bound.
    fn cookie(&self, settings: &Settings) -> Option<&str> {
        let affinity = settings.affinity.as_ref()?;
        self.head.cookie(&affinity.cookie)
    }

    /// A length that is declared is looked at before everything else
    /// (`ngx_http_core_find_config_phase`); what comes without one, while it comes.
    fn is_too_large(&self) -> bool {
        let declared = self.head.header(&header::CONTENT_LENGTH);
        let declared = declared.and_then(|length| length.parse::<u64>().ok());
        let most = self.location.settings.body_size;
        declared
            .zip(most)
            .is_some_and(|(length, most)| length > most)
    }

    /// lua_ingress.lua, `redirect_to_https`.
    fn is_led_to_https(&self, redirect: &Redirect, asked: &Asked) -> bool {
        let is_exempt = |prefix: &String| self.location.path.starts_with(prefix.as_str());
        let globals = &self.table.globals;
        let wanted = redirect.force_ssl || (redirect.ssl && self.host.certificate.is_some());
        wanted && asked.scheme == "http" && !globals.tls.no_redirect.iter().any(is_exempt)
    }

    /// nginx's `deny` and `allow`: refused ranges first.
    fn is_source_denied(&self, asked: &Asked) -> bool {
        let access = &self.location.settings.access;
        let is_in = |nets: &[ipnet::IpNet]| nets.iter().any(|net| net.contains(&asked.remote));
        is_in(&access.deny) || (!access.allow.is_empty() && !is_in(&access.allow))
    }
}

/// Where a request by HTTP is led.
fn https(redirect: &Redirect, asked: &Asked, head: &Head<'_>) -> String {
    let host = context::host_without_port(&asked.host);
    let mut target = head.target();
    if !redirect.preserve_trailing_slash {
        target = target.strip_suffix('/').unwrap_or(target);
    }
    let port = if redirect.use_port { ":443" } else { "" };
    format!("https://{host}{port}{target}")
}

/// `/foo` where there is `/foo/` only (ngx_http_core_module, `auto_redirect`).
fn add_slash(location: &Arc<Location>, head: &Head<'_>, client: &Client, path: &[u8]) -> Action {
    let query = head.uri.query().map(|query| format!("?{query}"));
    let to = target::escaped_path(path) + "/" + &query.unwrap_or_default();
    let to = absolute(&location.settings.redirect, head, client, to);
    redirect(StatusCode::MOVED_PERMANENTLY, &to, None)
}

/// Where a path of the same host is, as `Location` has it (ngx_http_header_filter_module:
/// `absolute_redirect`, `port_in_redirect`).
fn absolute(redirect: &Redirect, head: &Head<'_>, client: &Client, path: String) -> String {
    if redirect.relative {
        return path;
    }
    let scheme = context::scheme(client);
    let host = context::host_without_port(authority(head)).to_ascii_lowercase();
    let usual = if scheme == "https" { 443 } else { 80 };
    match redirect.use_port && client.port != usual {
        true => format!("{scheme}://{host}:{}{path}", client.port),
        false => format!("{scheme}://{host}{path}"),
    }
}

fn authority<'a>(head: &Head<'a>) -> &'a str {
    head.authority().unwrap_or_default()
}

fn answer(status: StatusCode, location: Option<&Arc<Location>>) -> Action {
    Action::Answer(plain(status, Vec::new(), location))
}

fn redirect(status: StatusCode, to: &str, location: Option<&Arc<Location>>) -> Action {
    Action::Answer(led(status, to, location))
}

fn plain(
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    location: Option<&Arc<Location>>,
) -> Answer {
    Answer {
        status,
        headers,
        location: location.cloned(),
    }
}

/// A redirect. What is no value of a header (a group can have anything) is no request either.
fn led(status: StatusCode, to: &str, location: Option<&Arc<Location>>) -> Answer {
    match HeaderValue::from_str(to) {
        Ok(to) => plain(status, vec![(header::LOCATION, to)], location),
        Err(_) => plain(StatusCode::BAD_REQUEST, Vec::new(), location),
    }
}
