//! Headers that the backend gets beside, or in place of, the client's.

use bytes::BytesMut;
use http::{HeaderName, HeaderValue, header};

use crate::{
    context::{self, Context},
    table::{Host, Table},
    variables::escaped,
};

/// A name that is looked at by the compiler, and not once a request.
macro_rules! name {
    ($name:literal) => {
        const { HeaderName::from_static($name) }
    };
}

/// A header for the backend; `None` for one that is taken away.
pub type Set = (HeaderName, Option<HeaderValue>);

/// Those of the template of ingress-nginx v1.15.1 (rootfs/etc/nginx/template/nginx.tmpl, the
/// location of a path), in its order.
pub(crate) fn headers(table: &Table, host: &Host, context: &Context<'_>) -> Vec<Set> {
    let mut set = Headers::with_room(20);
    let asked = context.asked;
    let forwarded = &table.globals.forwarded;
    let settings = context.location.map(|location| &location.settings);
    if settings.is_some_and(|settings| settings.access.basic.is_some()) {
        set.remove(header::AUTHORIZATION);
    }
    let vhost = settings.and_then(|settings| settings.upstream.vhost.as_ref());
    match vhost {
        Some(vhost) => set.text(header::HOST, &vhost.fill(context)),
        None => set.text(header::HOST, &asked.host),
    }
    if let Some(authority) = &host.client_cert {
        client_certificate(&mut set, authority.settings.pass_to_upstream, context);
    }
    let remote = asked.remote.to_string();
    set.text(name!("x-request-id"), &asked.request_id);
    set.text(name!("x-real-ip"), &remote);
    if forwarded.trust && forwarded.full {
        // `$realip_remote_addr`: the proxy's, which is the last of a chain.
        let peer = context.client.address.ip().to_canonical().to_string();
        let all = context::forwarded_for(&context.head, &peer);
        set.text(X_FORWARDED_FOR, &all);
    } else {
        set.text(X_FORWARDED_FOR, &remote);
    }
    set.text(name!("x-forwarded-host"), &asked.host);
    set.text(name!("x-forwarded-port"), &asked.port);
    set.text(name!("x-forwarded-proto"), &asked.scheme);
    set.text(name!("x-forwarded-scheme"), &asked.scheme);
    if forwarded.original_uri {
        set.text(name!("x-original-uri"), context.head.target());
    }
    set.text(name!("x-scheme"), &asked.scheme);
    let originals = [
        (name!("x-original-forwarded-for"), &forwarded.header),
        (name!("x-original-forwarded-host"), &X_FORWARDED_HOST),
    ];
    for (name, from) in originals {
        set.sent(name, from, context);
    }
    // https://httpoxy.org: it would be a variable of CGI programs.
    set.remove(name!("proxy"));
    for (name, value) in &table.headers.requests {
        set.set.push((name.clone(), value.fill(context)));
    }
    let rewrite = settings.map(|settings| &settings.rewrite);
    let prefix = rewrite.filter(|rewrite| rewrite.target.is_some());
    if let Some(prefix) = prefix.and_then(|rewrite| rewrite.forwarded_prefix.as_ref()) {
        set.text(name!("x-forwarded-prefix"), &prefix.fill(context));
    }
    set.set
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

struct Headers {
    set: Vec<Set>,
    /// Where the values are: a piece of memory for all of them, so that copies of a value, one for
    /// each attempt to forward, need none.
    text: BytesMut,
}

/// Bytes of the values of most requests.
const TEXT: usize = 512;

impl Headers {
    fn with_room(headers: usize) -> Self {
        Self {
            set: Vec::with_capacity(headers),
            text: BytesMut::with_capacity(TEXT),
        }
    }

    fn remove(&mut self, name: HeaderName) {
        self.set.push((name, None));
    }

    /// As in nginx, a header without a value is not sent, the client's neither; what is no value
    /// of a header was none when it came.
    fn text(&mut self, name: HeaderName, value: &str) {
        if value.is_empty() {
            return self.remove(name);
        }
        self.text.extend_from_slice(value.as_bytes());
        let value = HeaderValue::from_maybe_shared(self.text.split().freeze());
        self.set.push((name, value.ok()));
    }

    /// What the client sent as `from`.
    fn sent(&mut self, name: HeaderName, from: &HeaderName, context: &Context<'_>) {
        let sent = context.head.header(from).unwrap_or_default();
        self.text(name, &sent);
    }
}

/// Client certificates: the client cannot say these itself.
fn client_certificate(set: &mut Headers, pem: bool, context: &Context<'_>) {
    let client = context.client;
    let tls = client.tls.as_ref();
    let certificate = tls.and_then(|tls| tls.certificate.as_ref());
    let of = |part: fn(&crate::request::Certificate) -> &str| certificate.map_or("", part);
    if pem {
        set.text(name!("ssl-client-cert"), &escaped(of(|c| &c.pem)));
    } else {
        set.remove(name!("ssl-client-cert"));
    }
    let verify = context::client_verify(client).unwrap_or_default();
    set.text(name!("ssl-client-verify"), &verify);
    set.text(name!("ssl-client-subject-dn"), of(|c| &c.subject));
    set.text(name!("ssl-client-issuer-dn"), of(|c| &c.issuer));
}

/// What the default backend gets with a request whose upstream has no endpoint, or whose error it
/// answers: the status, and what the request was for.
pub fn error_headers(status: u16, context: &Context<'_>) -> Vec<Set> {
    let mut set = Headers::with_room(8);
    set.text(name!("x-code"), &status.to_string());
    let accept = context.head.header(&header::ACCEPT);
    set.text(name!("x-format"), &accept.unwrap_or_default());
    set.text(name!("x-original-uri"), context.head.target());
    if let Some(location) = context.location {
        set.text(name!("x-namespace"), &location.ingress.namespace);
        set.text(name!("x-ingress-name"), &location.ingress.name);
        set.text(name!("x-service-name"), &location.service.name);
        set.text(name!("x-service-port"), &location.port.to_string());
    }
    set.text(name!("x-request-id"), &context.asked.request_id);
    set.set
}
