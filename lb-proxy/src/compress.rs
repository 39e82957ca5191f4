//! Answers that are compressed on their way to a client (RFC 7932, RFC 1952), when the filters of
//! nginx would (ngx_brotli, ngx_http_gzip_filter_module). But what is said to be no-transform stays
//! as it is (RFC 9111, section 5.2.2.6).

use std::{io::Write, task::Poll};

use brotli::CompressorWriter;
use bytes::Bytes;
use flate2::write::GzEncoder;
use http::{
    HeaderMap, HeaderValue, Method, Version,
    header::{
        ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH,
        CONTENT_TYPE, ETAG, USER_AGENT, VARY,
    },
    response::Parts,
};
use http_body::Frame;
use lb_route::globals::{Coding, Compression};

use crate::{headers::words, record::Record};

/// Bytes that are handed out together.
const PIECE: usize = 8 << 10;
/// Bytes that are taken in at most before some are handed out: others wait meanwhile.
const MOST: usize = 64 << 10;

/// Memory of brotli's window, as a power of two (`brotli_window` of ngx_brotli, 512 KiB).
const WINDOW: u32 = 19;

/// Whether an answer is compressed, of which this is the length if that is known; its head is
/// changed then.
pub(crate) fn begin(
    compression: &Compression,
    record: &Record,
    parts: &mut Parts,
    length: Option<u64>,
) -> Option<Box<Compress>> {
    let is_meant = |coding| is_meant(coding, &record.method, parts, length);
    let [brotli, gzip] = [&compression.brotli, &compression.gzip].map(is_meant);
    if !brotli && !gzip {
        return None;
    }
    vary(&mut parts.headers);
    if record.version < Version::HTTP_11 {
        return None;
    }
    let is_disabled = || {
        let agent = record.headers.get(USER_AGENT);
        let pattern = compression.gzip_disabled.as_ref();
        pattern.is_some_and(|pattern| agent.is_some_and(|a| pattern.is_match(a.as_bytes())))
    };
    let (name, encoder) = if brotli && accepts(&record.headers, "br") {
        ("br", self::brotli(compression.brotli.level))
    } else if gzip && accepts(&record.headers, "gzip") && !is_disabled() {
        ("gzip", self::gzip(compression.gzip.level))
    } else {
        return None;
    };
    let headers = &mut parts.headers;
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
    headers.remove(CONTENT_LENGTH);
    headers.remove(ACCEPT_RANGES);
    weaken(headers);
    Some(Box::new(Compress::new(encoder)))
}

/// Whether such answers are compressed so, for whoever takes it.
fn is_meant(coding: &Coding, method: &Method, parts: &Parts, length: Option<u64>) -> bool {
    if !coding.on {
        return false;
    }
    let headers = &parts.headers;
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let kind = kind.and_then(|kind| kind.split(|byte| *byte == b';').next());
    let kind = String::from_utf8_lossy(kind.unwrap_or_default());
    let kind = kind.trim().to_ascii_lowercase();
    let is_of_type =
        || kind == "text/html" || ["*", &kind].iter().any(|k| coding.types.contains(*k));
    method != Method::HEAD
        && [200, 403, 404].contains(&parts.status.as_u16())
        && headers
            .get(CONTENT_ENCODING)
            .is_none_or(HeaderValue::is_empty)
        && length.is_none_or(|length| length >= coding.min_length)
        && !kind.is_empty()
        && is_of_type()
        && !words(headers, CACHE_CONTROL).any(|word| word.eq_ignore_ascii_case("no-transform"))
}

/// Whether a client takes it (RFC 9110, section 12.5.3). As with nginx it has to name it.
fn accepts(headers: &HeaderMap, coding: &str) -> bool {
    let quality = words(headers, ACCEPT_ENCODING).find_map(|word| {
        let (name, rest) = word.split_once(';').unwrap_or((word, ""));
        let is_it = name.trim().eq_ignore_ascii_case(coding);
        is_it.then(|| rest.trim())
    });
    quality.is_some_and(|rest| {
        let rest = rest.to_ascii_lowercase();
        let value = rest.split_once("q=").map(|(_, value)| value.trim());
        value.is_none_or(|value| value.parse::<f32>().is_ok_and(|quality| quality > 0.0))
    })
}

/// Caches are told what the answer goes by.
fn vary(headers: &mut HeaderMap) {
    let is_there = |word: &str| word == "*" || word.eq_ignore_ascii_case("accept-encoding");
    if !words(headers, VARY).any(is_there) {
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

/// What is compressed is not the same byte by byte (`ngx_http_weak_etag`).
fn weaken(headers: &mut HeaderMap) {
    let Some(tag) = headers.get(ETAG).map(HeaderValue::as_bytes) else {
        return;
    };
    if tag.starts_with(b"W/") {
        return;
    }
    let weak = match tag.starts_with(b"\"") {
        true => HeaderValue::from_bytes(&[b"W/", tag].concat()).ok(),
        false => None,
    };
    match weak {
        Some(weak) => drop(headers.insert(ETAG, weak)),
        None => drop(headers.remove(ETAG)),
    }
}

/// A body that is compressed.
pub(crate) struct Compress {
    /// Until the end is handed out.
    encoder: Option<Encoder>,
    /// Bytes that were taken in since some were handed out.
    taken: usize,
    trailers: Option<Frame<Bytes>>,
}

/// Writes into memory, which does not fail.
trait Encode: Write + Send {
    /// What has come out.
    fn out(&mut self) -> &mut Vec<u8>;
    /// What has come out, and what was held back.
    fn finish(self: Box<Self>) -> Vec<u8>;
}

type Encoder = Box<dyn Encode>;

impl Encode for GzEncoder<Vec<u8>> {
    fn out(&mut self) -> &mut Vec<u8> {
        self.get_mut()
    }

    fn finish(self: Box<Self>) -> Vec<u8> {
        Self::finish(*self).unwrap_or_default()
    }
}

impl Encode for CompressorWriter<Vec<u8>> {
    fn out(&mut self) -> &mut Vec<u8> {
        self.get_mut()
    }

    fn finish(self: Box<Self>) -> Vec<u8> {
        self.into_inner()
    }
}

fn gzip(level: u32) -> Encoder {
    Box::new(GzEncoder::new(Vec::new(), flate2::Compression::new(level)))
}

fn brotli(level: u32) -> Encoder {
    Box::new(CompressorWriter::new(Vec::new(), PIECE, level, WINDOW))
}

impl Compress {
    fn new(encoder: Encoder) -> Self {
        Self {
            encoder: Some(encoder),
            taken: 0,
            trailers: None,
        }
    }

    /// Whether all is handed out.
    pub(crate) fn is_over(&self) -> bool {
        self.encoder.is_none() && self.trailers.is_none()
    }

    /// What comes next, of a body whose next frame `next` has. What it has while more is waited
    /// for is not held back: a client may wait for just that.
    pub(crate) fn poll<E>(
        &mut self,
        mut next: impl FnMut() -> Poll<Option<Result<Frame<Bytes>, E>>>,
    ) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        loop {
            if self.encoder.is_none() {
                return Poll::Ready(self.trailers.take().map(Ok));
            }
            let piece = match next() {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.take(&data),
                    Err(trailers) => {
                        self.trailers = Some(trailers);
                        self.end()
                    }
                },
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => self.end(),
                Poll::Pending if self.taken > 0 => self.hand_out(),
                Poll::Pending => return Poll::Pending,
            };
            if !piece.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(piece.into()))));
            }
        }
    }

    fn take(&mut self, data: &[u8]) -> Vec<u8> {
        let Some(encoder) = &mut self.encoder else {
            return Vec::new();
        };
        let _ = encoder.write_all(data);
        self.taken += data.len();
        match encoder.out().len() >= PIECE || self.taken >= MOST {
            true => self.hand_out(),
            false => Vec::new(),
        }
    }

    /// All that was taken in.
    fn hand_out(&mut self) -> Vec<u8> {
        self.taken = 0;
        let Some(encoder) = &mut self.encoder else {
            return Vec::new();
        };
        let _ = encoder.flush();
        std::mem::take(encoder.out())
    }

    fn end(&mut self) -> Vec<u8> {
        let ended = self.encoder.take().map(Encode::finish);
        ended.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
