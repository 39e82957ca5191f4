//! Values with variables of nginx in them: `https://$host$request_uri`.

use std::{borrow::Cow, fmt::Write as _, time::Duration};

use http::HeaderName;

use crate::request::Head;

/// A value with variables. Made once, and filled in for each request.
///
/// ```
/// use lb_route::variables::Template;
/// assert!(Template::parse("https://$host/x?from=${arg_a}").is_ok());
/// assert_eq!(Template::parse("$nothing").unwrap_err().0, "nothing");
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Literal(String),
    Variable(Variable),
}

/// A variable that there is none of.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("there is no variable ${0}")]
pub struct Unknown(
    /// Its name.
    pub String,
);

/// A variable of nginx.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Variable {
    /// `$1` to `$9`: a group of the expression of the rule.
    Group(u8),
    /// `$http_NAME`: a header of the request.
    Header(HeaderName),
    /// `$cookie_NAME`: a cookie of the request.
    Cookie(String),
    /// `$arg_NAME`: an argument of the query.
    Arg(String),
    /// Any other.
    Named(Named),
}

/// Makes [`Named`], and the table of its names.
macro_rules! named {
    ($($variant:ident $name:literal)*) => {
        /// A variable with a name of its own, which is its documentation:
        /// <https://nginx.org/en/docs/varindex.html>, and the template of ingress-nginx.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Named {
            $(#[doc = concat!("`$", $name, "`")] $variant,)*
        }

        const NAMED: &[(&str, Named)] = &[$(($name, Named::$variant),)*];
    };
}

named! {
    Args "args"
    BestHttpHost "best_http_host"
    BodyBytesSent "body_bytes_sent"
    BytesSent "bytes_sent"
    Connection "connection"
    ConnectionRequests "connection_requests"
    EscapedRequestUri "escaped_request_uri"
    Host "host"
    Hostname "hostname"
    Https "https"
    IngressName "ingress_name"
    IsArgs "is_args"
    LocationPath "location_path"
    Msec "msec"
    Namespace "namespace"
    PassAccessScheme "pass_access_scheme"
    PassPort "pass_port"
    PassServerPort "pass_server_port"
    ProxyAddXForwardedFor "proxy_add_x_forwarded_for"
    ProxyAlternativeUpstreamName "proxy_alternative_upstream_name"
    ProxyProtocolAddr "proxy_protocol_addr"
    ProxyUpstreamName "proxy_upstream_name"
    QueryString "query_string"
    RemoteAddr "remote_addr"
    RemotePort "remote_port"
    RemoteUser "remote_user"
    ReqId "req_id"
    Request "request"
    RequestId "request_id"
    RequestLength "request_length"
    RequestMethod "request_method"
    RequestTime "request_time"
    RequestUri "request_uri"
    Scheme "scheme"
    ServerName "server_name"
    ServerPort "server_port"
    ServerProtocol "server_protocol"
    ServiceName "service_name"
    ServicePort "service_port"
    SslCipher "ssl_cipher"
    SslClientIDn "ssl_client_i_dn"
    SslClientSDn "ssl_client_s_dn"
    SslClientVerify "ssl_client_verify"
    SslProtocol "ssl_protocol"
    SslServerName "ssl_server_name"
    Status "status"
    TheRealIp "the_real_ip"
    TimeIso8601 "time_iso8601"
    TimeLocal "time_local"
    UpstreamAddr "upstream_addr"
    UpstreamConnectTime "upstream_connect_time"
    UpstreamHeaderTime "upstream_header_time"
    UpstreamResponseLength "upstream_response_length"
    UpstreamResponseTime "upstream_response_time"
    UpstreamStatus "upstream_status"
    Uri "uri"
}

/// What variables stand for.
pub trait Values {
    /// The head of the request.
    fn head(&self) -> Head<'_>;
    /// A group of the rule's expression; empty if there is none.
    fn group(&self, number: u8) -> &[u8];
    /// A named variable; `None` for what has no value here.
    fn named(&self, name: Named) -> Option<Cow<'_, str>>;
}

impl Template {
    /// Reads a value: `$name`, `${name}`, and the rest as it is; a `$` that no name follows is one.
    /// The case of names does not count (`ngx_http_script_compile`).
    ///
    /// # Errors
    /// A name that is no variable's; a brace that is not closed is part of it.
    pub fn parse(text: &str) -> Result<Self, Unknown> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            literal.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let (name, after) = split_name(rest);
            if name.is_empty() {
                literal.push('$');
                continue;
            }
            let known = Variable::parse(&name.to_ascii_lowercase());
            let variable = known.ok_or_else(|| Unknown(name.to_owned()))?;
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(Part::Variable(variable));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        let text = text.to_owned();
        Ok(Self { text, parts })
    }

    /// Whether it has any.
    pub(crate) fn has_variables(&self) -> bool {
        let mut parts = self.parts.iter();
        parts.any(|part| matches!(part, Part::Variable(_)))
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its value for a request. What has none is empty, and bytes that are no UTF-8 are replaced.
    pub fn fill(&self, values: &impl Values) -> String {
        self.write(|out, variable| {
            let value = variable.value(values);
            out.push_str(&String::from_utf8_lossy(&value.unwrap_or_default()));
        })
    }

    /// As [`Template::fill`], in bytes, and each value as `write` puts it there.
    pub(crate) fn fill_with(
        &self,
        values: &impl Values,
        write: impl Fn(&mut Vec<u8>, &[u8]),
    ) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.text.len() * 2);
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Variable(name) => write(&mut out, &name.value(values).unwrap_or_default()),
            }
        }
        out
    }

    /// A line of a log for a request: with values escaped, so that none can end the line or what
    /// stands around it.
    pub fn log_line(&self, values: &impl Values, escape: Escape) -> String {
        self.write(|out, variable| match (variable.value(values), escape) {
            (Some(value), Escape::Default) => escape_default(out, &value),
            (Some(value), Escape::Json) => escape_json(out, &String::from_utf8_lossy(&value)),
            (Some(value), Escape::None) => escape_none(out, &String::from_utf8_lossy(&value)),
            (None, Escape::Default) => out.push('-'),
            (None, Escape::Json | Escape::None) => {}
        })
    }

    fn write(&self, mut variable: impl FnMut(&mut String, &Variable)) -> String {
        let mut out = String::with_capacity(self.text.len() * 2);
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Variable(name) => variable(&mut out, name),
            }
        }
        out
    }
}

/// How values are written into a log (`escape` of nginx's `log_format`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Escape {
    /// `"`, `\`, control characters and all bytes from 127 are `\xXX`; what has no value is `-`.
    #[default]
    Default,
    /// As in strings of JSON (RFC 8259, section 7); what has no value is empty
    /// (`log-format-escape-json`).
    Json,
    /// As they are, but for control characters, which are `\xXX`: those of nginx could begin a
    /// line. What has no value is empty (`log-format-escape-none`).
    None,
}

/// `ngx_http_log_escape`.
fn escape_default(out: &mut String, value: &[u8]) {
    let is_plain = |byte: &u8| !matches!(byte, b'"' | b'\\' | 0..0x20 | 0x7f..);
    // Most are.
    if let Some(text) = std::str::from_utf8(value)
        .ok()
        .filter(|_| value.iter().all(is_plain))
    {
        return out.push_str(text);
    }
    for byte in value {
        match byte {
            b'"' | b'\\' | 0..0x20 | 0x7f.. => {
                // A String takes everything.
                let _ = write!(out, "\\x{byte:02X}");
            }
            byte => out.push(char::from(*byte)),
        }
    }
}

/// No value ends its line.
fn escape_none(out: &mut String, value: &str) {
    for char in value.chars() {
        match char {
            '\0'..' ' | '\x7f' if char != '\t' => {
                // A String takes everything.
                let _ = write!(out, "\\x{:02X}", u32::from(char));
            }
            char => out.push(char),
        }
    }
}

/// `ngx_escape_json`.
fn escape_json(out: &mut String, value: &str) {
    let is_plain = |byte: u8| !matches!(byte, b'"' | b'\\' | 0..0x20);
    // Most are.
    if value.bytes().all(is_plain) {
        return out.push_str(value);
    }
    for char in value.chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..' ' => {
                // A String takes everything.
                let _ = write!(out, "\\u{:04X}", u32::from(char));
            }
            char => out.push(char),
        }
    }
}

/// What follows a `$`: the name, and what is behind it.
fn split_name(text: &str) -> (&str, &str) {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if let Some(braced) = text.strip_prefix('{') {
        let end = braced.find(|c| !is_name(c)).unwrap_or(braced.len());
        return match braced[end..].strip_prefix('}') {
            Some(after) if end > 0 => (&braced[..end], after),
            // With the brace it is no name.
            _ => text.split_at(end + 1),
        };
    }
    // A group has one digit, as in nginx.
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return text.split_at(1);
    }
    text.split_at(text.find(|c| !is_name(c)).unwrap_or(text.len()))
}

impl Variable {
    /// By its name in lower case, without the `$`.
    fn parse(name: &str) -> Option<Self> {
        if let Some(digit) = name.parse::<u8>().ok().filter(|n| (1..=9).contains(n)) {
            return Some(Self::Group(digit));
        }
        let named = NAMED.iter().find(|(known, _)| *known == name);
        if let Some((_, named)) = named {
            return Some(Self::Named(*named));
        }
        let (kind, rest) = name.split_once('_').filter(|(_, rest)| !rest.is_empty())?;
        match kind {
            "http" => {
                let header = rest.replace('_', "-");
                header.parse().ok().map(Self::Header)
            }
            "cookie" => Some(Self::Cookie(rest.to_owned())),
            "arg" => Some(Self::Arg(rest.to_owned())),
            _ => None,
        }
    }

    fn value<'v>(&self, values: &'v impl Values) -> Option<Cow<'v, [u8]>> {
        match self {
            Self::Group(number) => Some(Cow::Borrowed(values.group(*number))),
            Self::Header(name) => values.head().header_bytes(name),
            Self::Cookie(name) => values.head().cookie_bytes(name).map(Cow::Borrowed),
            Self::Arg(name) => Some(Cow::Borrowed(values.head().arg(name)?.as_bytes())),
            Self::Named(named) => Some(match values.named(*named)? {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            }),
        }
    }
}

/// A time as nginx writes it: seconds, and three digits of milliseconds.
pub fn seconds(time: Duration) -> String {
    format!("{}.{:03}", time.as_secs(), time.subsec_millis())
}

/// What nginx's `set_escape_uri` makes of a value: all but letters, digits and `-_.~` is `%XX`.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(byte.into());
            }
            _ => {
                // A String takes everything.
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests;
