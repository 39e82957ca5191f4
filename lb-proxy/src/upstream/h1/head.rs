//! Heads, as HTTP/1 writes them (RFC 9112, sections 2 to 6): of requests to endpoints, and of their
//! answers.

use std::mem::MaybeUninit;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING},
    request,
};
use httparse::{EMPTY_HEADER, ParserConfig, Status};
use hyper::ext::ReasonPhrase;

use super::decode::Decoder;
use crate::{client::digits, headers::words};

/// Bytes that the head of an answer may have; nginx has 4 to 8 KiB (`proxy_buffer_size`).
const HEAD: usize = 64 * 1024;
/// Headers that it may have.
const HEADERS: usize = 128;

/// What came is no head of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Invalid;

/// The head of an answer, and what follows from it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: Response<()>,
    /// What its body is.
    pub(super) decoder: Decoder,
    /// Whether the endpoint takes another request after this.
    pub(super) keeps: bool,
}

/// Writes the head of a request; `length` is that of a body whose length no header tells.
pub(super) fn write(head: &request::Parts, length: Option<u64>, out: &mut Vec<u8>) {
    let target = head.uri.path_and_query();
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.map_or("/", |target| target.as_str()).as_bytes());
    out.extend_from_slice(match head.version {
        Version::HTTP_10 => b" HTTP/1.0\r\n",
        _ => b" HTTP/1.1\r\n",
    });
    for (name, value) in &head.headers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    if let Some(length) = length {
        out.extend_from_slice(format!("content-length: {length}\r\n").as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Takes the head of an answer from what was read, if it has all come. `is_head` if the method of
/// the request was HEAD.
///
/// # Errors
/// It is none.
pub(super) fn parse(read: &mut BytesMut, is_head: bool) -> Result<Option<Answer>, Invalid> {
    let mut room = [const { MaybeUninit::uninit() }; HEADERS];
    let mut found = httparse::Response::new(&mut []);
    let parsed = ParserConfig::default()
        .parse_response_with_uninit_headers(&mut found, read, &mut room)
        .map_err(|_| Invalid)?;
    let Status::Complete(length) = parsed else {
        return match read.len() <= HEAD {
            true => Ok(None),
            false => Err(Invalid),
        };
    };
    let status = found.code.ok_or(Invalid)?;
    let status = StatusCode::from_u16(status).map_err(|_| Invalid)?;
    let version = match found.version {
        Some(0) => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    let reason = own_reason(status, found.reason);
    let names = names(read, found.headers)?;
    let headers = headers(names, &read.split_to(length).freeze())?;
    let decoder = decoder(status, version, &headers, is_head)?;
    let keeps = decoder != Decoder::Close && keeps(version, &headers);
    let mut head = Response::new(());
    *head.status_mut() = status;
    *head.version_mut() = version;
    *head.headers_mut() = headers;
    if let Some(reason) = reason {
        head.extensions_mut().insert(reason);
    }
    Ok(Some(Answer {
        head,
        decoder,
        keeps,
    }))
}

/// Takes the trailers behind a last chunk, if they have all come.
///
/// # Errors
/// They are none.
pub(super) fn trailers(read: &mut BytesMut) -> Result<Option<HeaderMap>, Invalid> {
    let mut room = [EMPTY_HEADER; HEADERS];
    match httparse::parse_headers(read, &mut room).map_err(|_| Invalid)? {
        Status::Partial => Ok(None),
        Status::Complete((2, _)) => {
            // Mostly there are none.
            read.advance(2);
            Ok(Some(HeaderMap::new()))
        }
        Status::Complete((length, found)) => {
            let names = names(read, found)?;
            headers(names, &read.split_to(length).freeze()).map(Some)
        }
    }
}

/// A reason that is not the usual one of its status: hyper writes it to the client.
fn own_reason(status: StatusCode, reason: Option<&str>) -> Option<ReasonPhrase> {
    let reason = reason.filter(|reason| Some(*reason) != status.canonical_reason())?;
    ReasonPhrase::try_from(reason.as_bytes()).ok()
}

/// A name, and where its value is.
type Found = (HeaderName, std::ops::Range<usize>);

fn names(read: &[u8], headers: &[httparse::Header<'_>]) -> Result<Vec<Found>, Invalid> {
    let at = |header: &httparse::Header<'_>| {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| Invalid)?;
        // Of an empty value it does not matter.
        let begin = header
            .value
            .as_ptr()
            .addr()
            .saturating_sub(read.as_ptr().addr());
        Ok((name, begin..begin + header.value.len()))
    };
    headers.iter().map(at).collect()
}

/// Values are pieces of the head, and no copies.
fn headers(names: Vec<Found>, head: &Bytes) -> Result<HeaderMap, Invalid> {
    let mut headers = HeaderMap::with_capacity(names.len() + 2);
    for (name, at) in names {
        let value = match at.is_empty() {
            true => HeaderValue::from_static(""),
            false => HeaderValue::from_maybe_shared(head.slice(at)).map_err(|_| Invalid)?,
        };
        headers.append(name, value);
    }
    Ok(headers)
}

/// How the body's end is known (RFC 9112, section 6.3).
fn decoder(
    status: StatusCode,
    version: Version,
    headers: &HeaderMap,
    is_head: bool,
) -> Result<Decoder, Invalid> {
    let never = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if is_head || never || status.is_informational() {
        return Ok(Decoder::Over);
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        // HTTP/1.0 has no codings: who sends one has passed on what it did not understand.
        if version == Version::HTTP_10 {
            return Err(Invalid);
        }
        let last = words(headers, TRANSFER_ENCODING).last();
        let chunked = last.is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        return Ok(match chunked {
            true => Decoder::Size,
            false => Decoder::Close,
        });
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else {
        return Ok(Decoder::Close);
    };
    // The same several times is one (RFC 9110, section 8.6).
    let same = lengths.all(|other| other == first);
    let length = length(first).filter(|_| same).ok_or(Invalid)?;
    Ok(Decoder::of_length(length))
}

fn length(value: &HeaderValue) -> Option<u64> {
    let all = value.as_bytes().split(|byte| *byte == b',');
    let mut all = all.map(|text| digits(text.trim_ascii()));
    let first = all.next()??;
    all.all(|other| other == Some(first)).then_some(first)
}

/// Whether the connection stays (RFC 9112, section 9.3).
fn keeps(version: Version, headers: &HeaderMap) -> bool {
    if !headers.contains_key(CONNECTION) {
        return version == Version::HTTP_11;
    }
    let says = |word: &str| words(headers, CONNECTION).any(|said| said.eq_ignore_ascii_case(word));
    !says("close") && (version == Version::HTTP_11 || says("keep-alive"))
}

#[cfg(test)]
mod tests;
