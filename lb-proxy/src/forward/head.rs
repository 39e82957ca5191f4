//! The head of a request, as an endpoint gets it.

use http::{
    HeaderMap, HeaderValue, Request, StatusCode, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE},
    uri::{Authority, PathAndQuery, Scheme},
};
use lb_route::{
    action::Forward,
    settings::{BackendProtocol, Forwarding},
};

use crate::{
    answer::Refusal,
    forward::{Extra, is_h2},
    headers,
    record::Record,
    upload::Upload,
};

/// What an endpoint is told of the length of a body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Length {
    /// There is none.
    None,
    /// This.
    Known(u64),
    /// What the client has told.
    Declared(HeaderValue),
    /// Its end is told when it has come.
    Unknown,
}

/// What the heads of all attempts have in common.
pub(super) struct Head<'h> {
    forward: &'h Forward,
    extra: &'h Extra,
    uri: Uri,
    length: Length,
    h2: bool,
    /// The protocol that is asked for in place of HTTP.
    pub(super) upgrade: Option<HeaderValue>,
    underscores: bool,
}

impl<'h> Head<'h> {
    /// For a request.
    ///
    /// # Errors
    /// What the request is rewritten to is no target, or the endpoint takes no body without a
    /// length.
    pub(super) fn new(
        record: &Record,
        forward: &'h Forward,
        extra: &'h Extra,
        length: Length,
    ) -> Result<Self, Refusal> {
        let settings = &forward.location.settings.upstream;
        let h2 = is_h2(settings.protocol);
        if settings.http10 && !h2 && length == Length::Unknown {
            return Err(StatusCode::LENGTH_REQUIRED.into());
        }
        let upgrade = headers::upgrade(&record.headers, record.version);
        Ok(Self {
            forward,
            extra,
            uri: uri(forward, settings, h2)?,
            length,
            h2,
            upgrade: upgrade.filter(|_| !h2 && !settings.http10).cloned(),
            underscores: false,
        })
    }

    /// Headers whose names have underscores are passed on.
    pub(super) fn with_underscores(self, underscores: bool) -> Self {
        Self {
            underscores,
            ..self
        }
    }

    /// The request of an attempt.
    pub(super) fn request(&self, record: &Record, body: Upload) -> Request<Upload> {
        let settings = &self.forward.location.settings.upstream;
        let mut request = Request::new(body);
        *request.method_mut() = record.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = match (self.h2, settings.http10) {
            (true, _) => Version::HTTP_2,
            (false, true) => Version::HTTP_10,
            (false, false) => Version::HTTP_11,
        };
        *request.headers_mut() = self.headers(record, settings);
        request
    }

    fn headers(&self, record: &Record, settings: &Forwarding) -> HeaderMap {
        let ours = &self.forward.headers;
        let room = ours.len() + self.extra.len() + 4;
        let mut headers = headers::passed(&record.headers, self.underscores, room);
        for (name, value) in ours.iter().chain(self.extra) {
            headers::set(&mut headers, name, value.clone());
        }
        match &self.length {
            Length::None => {}
            Length::Known(length) => drop(headers.insert(CONTENT_LENGTH, (*length).into())),
            Length::Declared(length) => drop(headers.insert(CONTENT_LENGTH, length.clone())),
            Length::Unknown if self.h2 => {}
            Length::Unknown => {
                headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
        }
        let attempt = record.attempts.last();
        record.pass_trace_on(&mut headers, attempt.and_then(|attempt| attempt.span));
        if self.h2 {
            // It is in the target.
            headers.remove(HOST);
            headers.insert(TE, HeaderValue::from_static("trailers"));
            return headers;
        }
        if !headers.contains_key(HOST)
            && let Ok(host) = HeaderValue::from_str(&self.forward.asked.host)
        {
            headers.insert(HOST, host);
        }
        if let Some(protocol) = &self.upgrade {
            headers.insert(UPGRADE, protocol.clone());
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        } else if let Some(value) = &settings.connection_header {
            headers.insert(CONNECTION, value.clone());
        }
        headers
    }
}

/// The target: with HTTP/2 the host is a part of it.
fn uri(forward: &Forward, settings: &Forwarding, h2: bool) -> Result<Uri, Refusal> {
    let wrong = |_| Refusal::from(StatusCode::BAD_REQUEST);
    let path = PathAndQuery::try_from(forward.target.as_str()).map_err(wrong)?;
    if !h2 {
        return Ok(Uri::from(path));
    }
    let host = forward.headers.iter().find(|(name, _)| *name == HOST);
    let host = host.and_then(|(_, value)| value.as_ref()?.to_str().ok());
    let host = host.unwrap_or(&forward.asked.host);
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(match settings.protocol {
        BackendProtocol::Grpcs => Scheme::HTTPS,
        _ => Scheme::HTTP,
    });
    parts.authority = Some(Authority::try_from(host).map_err(wrong)?);
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(|_| StatusCode::BAD_REQUEST.into())
}
