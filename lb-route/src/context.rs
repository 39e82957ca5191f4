//! A request as variables have it.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use http::{HeaderName, Version, header};
use ipnet::IpNet;

use crate::{
    action::{Asked, Location},
    client_cert::verify_variable,
    globals::Globals,
    request::{Client, Head},
    variables::{Named, Values, escaped},
};

/// A request and what is known of it before it is forwarded. [`Values`] of templates.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Its head.
    pub head: Head<'a>,
    /// Who sent it.
    pub client: &'a Client,
    /// What it asks for.
    pub asked: &'a Asked,
    /// The path, if it is known.
    pub location: Option<&'a Location>,
    /// Groups of the path's expression.
    pub groups: &'a [Vec<u8>],
}

impl Values for Context<'_> {
    fn head(&self) -> Head<'_> {
        self.head
    }

    fn group(&self, number: u8) -> &[u8] {
        let group = self.groups.get(usize::from(number));
        group.map_or(&[], Vec::as_slice)
    }

    fn named(&self, name: Named) -> Option<Cow<'_, str>> {
        self.of_path(name).or_else(|| self.of_request(name))
    }
}

impl Context<'_> {
    fn of_path(&self, name: Named) -> Option<Cow<'_, str>> {
        let location = self.location?;
        Some(match name {
            Named::Namespace => Cow::Borrowed(&*location.ingress.namespace),
            Named::IngressName => Cow::Borrowed(&*location.ingress.name),
            Named::ServiceName => Cow::Borrowed(&*location.service.name),
            Named::ServicePort => Cow::Owned(location.port.to_string()),
            Named::LocationPath => Cow::Borrowed(&*location.path),
            Named::ServerName => Cow::Borrowed(&*location.host),
            _ => return None,
        })
    }

    fn of_request(&self, name: Named) -> Option<Cow<'_, str>> {
        let (head, client, asked) = (self.head, self.client, self.asked);
        Some(match name {
            Named::Args | Named::QueryString => head.uri.query()?.into(),
            Named::IsArgs => head.uri.query().map_or("", |_| "?").into(),
            Named::BestHttpHost => asked.host.as_str().into(),
            Named::Host => host_without_port(head.authority()?).into(),
            Named::EscapedRequestUri => escaped(head.target()).into(),
            Named::RequestUri => head.target().into(),
            Named::Uri => decoded(head.uri.path()).into(),
            Named::Request => request_line(&head).into(),
            Named::RequestMethod => head.method.as_str().into(),
            Named::ServerProtocol => protocol(head.version).into(),
            Named::Scheme => scheme(client).into(),
            Named::PassAccessScheme => asked.scheme.as_str().into(),
            Named::PassPort | Named::PassServerPort => asked.port.as_str().into(),
            Named::Https => client.tls.as_ref().map_or("", |_| "on").into(),
            Named::RemoteAddr | Named::TheRealIp => asked.remote.to_string().into(),
            Named::ProxyAddXForwardedFor => forwarded_for(&head, &asked.remote.to_string()).into(),
            Named::RemotePort => client.address.port().to_string().into(),
            Named::ServerPort => client.port.to_string().into(),
            Named::ProxyProtocolAddr => client.address.ip().to_string().into(),
            Named::ReqId | Named::RequestId => asked.request_id.as_str().into(),
            Named::RemoteUser => remote_user(&head)?.into(),
            Named::SslProtocol => client.tls.as_ref()?.protocol.into(),
            Named::SslCipher => client.tls.as_ref()?.cipher.as_str().into(),
            Named::SslServerName => client.tls.as_ref()?.server_name.as_deref()?.into(),
            Named::SslClientVerify => client_verify(client)?,
            Named::SslClientSDn => certificate(client)?.subject.as_str().into(),
            Named::SslClientIDn => certificate(client)?.issuer.as_str().into(),
            _ => return None,
        })
    }
}

/// `$ssl_client_verify`; `None` without TLS.
pub(crate) fn client_verify(client: &Client) -> Option<Cow<'static, str>> {
    let tls = client.tls.as_ref()?;
    Some(verify_variable(tls.certificate.as_ref()))
}

fn certificate(client: &Client) -> Option<&crate::request::Certificate> {
    client.tls.as_ref()?.certificate.as_ref()
}

/// What `X-Forwarded-For` of the client is with its address behind it.
pub(crate) fn forwarded_for(head: &Head<'_>, remote: &str) -> String {
    match head.header(&const { HeaderName::from_static("x-forwarded-for") }) {
        Some(sent) => format!("{sent}, {remote}"),
        None => remote.to_owned(),
    }
}

/// `$scheme`.
pub(crate) fn scheme(client: &Client) -> &'static str {
    client.tls.as_ref().map_or("http", |_| "https")
}

/// `$host`: without the port.
pub(crate) fn host_without_port(authority: &str) -> &str {
    let port = authority
        .rfind(':')
        .filter(|at| !authority[*at..].contains(']'));
    &authority[..port.unwrap_or(authority.len())]
}

fn decoded(path: &str) -> String {
    let normal = crate::uri::normal(path).unwrap_or_else(|_| path.as_bytes().to_vec());
    String::from_utf8_lossy(&normal).into_owned()
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

fn request_line(head: &Head<'_>) -> String {
    let protocol = protocol(head.version);
    format!("{} {} {protocol}", head.method, head.target())
}

/// `$remote_user`: the name of basic authentication, whether or not it is asked for.
fn remote_user(head: &Head<'_>) -> Option<String> {
    let value = head.headers.get(header::AUTHORIZATION)?;
    crate::htpasswd::credentials(value).map(|(user, _)| user)
}

/// What a request asks for: its own words, or those of a trusted proxy before this one
/// (`use-forwarded-headers`; ingress-nginx v1.15.1, rootfs/etc/nginx/lua/lua_ingress.lua).
pub fn asked(globals: &Globals, head: &Head<'_>, client: &Client) -> Asked {
    let of = |name: &'static str| {
        let trusted = globals.forwarded.trust;
        let value = trusted.then(|| head.header(&HeaderName::from_static(name)));
        value.flatten().filter(|value| !value.is_empty())
    };
    let host = match of("x-forwarded-host") {
        Some(hosts) => first(&hosts).to_owned(),
        None => head.authority().unwrap_or_default().to_owned(),
    };
    let scheme = match of("x-forwarded-proto") {
        Some(scheme) => scheme.into_owned(),
        None if globals.client.proxy_protocol && client.port == 443 => "https".to_owned(),
        None => scheme(client).to_owned(),
    };
    let port = of("x-forwarded-port").map_or_else(|| client.port.to_string(), Cow::into_owned);
    Asked {
        host,
        scheme,
        port,
        request_id: request_id(globals, head, client),
        remote: remote(globals, head, client.address),
    }
}

fn first(list: &str) -> &str {
    list.split(',').next().unwrap_or_default().trim()
}

/// `$req_id`: the client's, if it sent one.
fn request_id(globals: &Globals, head: &Head<'_>, client: &Client) -> String {
    let sent = head.header(&const { HeaderName::from_static("x-request-id") });
    match sent.filter(|id| !id.is_empty()) {
        Some(id) => id.into_owned(),
        None if globals.forwarded.request_id => client.request_id.clone(),
        None => String::new(),
    }
}

/// The client's address: of the connection, unless that is a proxy whose word is taken. Then the
/// last of the addresses that it names which is no such proxy either (ngx_http_realip_module,
/// `real_ip_recursive`).
fn remote(globals: &Globals, head: &Head<'_>, peer: SocketAddr) -> IpAddr {
    let is_read = globals.forwarded.trust || globals.forwarded.real_ip;
    let is_trusted = |ip: &IpAddr| {
        globals
            .forwarded
            .proxies
            .iter()
            .any(|net| contains(net, ip))
    };
    let mut remote = peer.ip().to_canonical();
    let named = is_read.then(|| head.header(&globals.forwarded.header));
    let Some(named) = named.flatten() else {
        return remote;
    };
    for text in named.rsplit(',') {
        if !is_trusted(&remote) {
            break;
        }
        let Some(before) = address(text.trim()) else {
            break;
        };
        remote = before;
    }
    remote
}

fn contains(net: &IpNet, ip: &IpAddr) -> bool {
    net.contains(ip)
}

/// An address, perhaps with a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let ip = bare.parse::<IpAddr>().ok();
    ip.or_else(|| text.parse::<SocketAddr>().ok().map(|both| both.ip()))
        .map(|ip| ip.to_canonical())
}
