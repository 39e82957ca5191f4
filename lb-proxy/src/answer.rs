//! Answers that the proxy makes by itself.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use crate::{
    body::Content,
    upload::Cause,
    upstream::{Connect, Failed, What},
};

/// Why a request does not get the answer of a backend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    /// The status that it gets.
    pub(crate) status: StatusCode,
    /// Headers that it gets.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

impl From<StatusCode> for Refusal {
    fn from(status: StatusCode) -> Self {
        let headers = Vec::new();
        Self { status, headers }
    }
}

impl From<Cause> for Refusal {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Cause::Slow => StatusCode::REQUEST_TIMEOUT,
            Cause::Malformed | Cause::Gone => StatusCode::BAD_REQUEST,
        }
        .into()
    }
}

/// The status for an endpoint that gave none (`ngx_http_upstream_next`).
pub(crate) fn status_of(failed: Failed) -> StatusCode {
    match failed.what {
        What::Error | What::Invalid => StatusCode::BAD_GATEWAY,
        What::Timeout => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// An answer with a status, and a line of text that says it.
pub(crate) fn own<C: Connect>(refusal: Refusal) -> Response<Content<C>> {
    let status = refusal.status;
    let bodyless = status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    let content = if bodyless {
        Content::Empty
    } else {
        let reason = status.canonical_reason().unwrap_or("Answer");
        Content::Full(Bytes::from(format!("{} {reason}\n", status.as_u16())))
    };
    let mut response = Response::new(content);
    *response.status_mut() = status;
    if !bodyless {
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, text);
    }
    for (name, value) in refusal.headers {
        if name == header::SET_COOKIE || name == header::WWW_AUTHENTICATE {
            response.headers_mut().append(name, value);
        } else {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
