//! A request, while it is being answered.

use std::sync::{Arc, PoisonError};

use http::{HeaderMap, HeaderValue, Response, StatusCode, Version, header, response::Parts};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::{
    answered::Answered,
    body::{Body, Content},
    client::{Tunnel, Visit},
    compress, headers,
    options::Options,
    record::Entry,
    upstream::Connect,
};

/// A request, and what is known of it.
pub(crate) struct Exchange<C: Connect> {
    /// The connection.
    pub(crate) visit: Arc<Visit<C>>,
    /// What is noted of it.
    pub(crate) entry: Box<Entry>,
    /// The body, until somebody reads it.
    pub(crate) incoming: Option<Incoming>,
}

impl<C: Connect> Exchange<C> {
    /// What counts for all requests of the connection.
    pub(crate) fn options(&self) -> &Options {
        &self.visit.options
    }

    /// The answer goes to the client.
    pub(crate) fn finish(mut self, response: Response<Content<C>>) -> Response<Body<C>> {
        let (mut parts, content) = response.into_parts();
        self.entry.record.status = parts.status;
        // What is below has its own version.
        parts.version = Version::HTTP_11;
        self.set_headers(parts.status, &mut parts.headers);
        let compression = &self.options().globals.compression;
        let length = content.size_hint().exact();
        let compress = compress::begin(compression, &self.entry.record, &mut parts, length);
        self.entry.record.head_bytes_sent = length_of(&parts);
        if self.entry.record.version < Version::HTTP_2 {
            self.keep_or_close(&mut parts);
        }
        let Content::Switched(upstream, patience) = content else {
            let body = Body::new(content, Some(self.entry), compress);
            return Response::from_parts(parts, body);
        };
        let tunnel = Tunnel {
            upstream,
            patience,
            entry: self.entry,
        };
        let mut place = self
            .visit
            .tunnel
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *place = Some(Box::new(tunnel));
        drop(place);
        Response::from_parts(parts, Body::new(Content::Empty, None, None))
    }

    /// What becomes of a connection of HTTP/1 after this answer.
    fn keep_or_close(&self, parts: &mut Parts) {
        let record = &self.entry.record;
        let last = record.connection_requests >= self.options().client.keep_alive_requests.into()
            || self.visit.link.is_leaving();
        // What the client sends next is read only now.
        let asked = record.headers.contains_key(header::UPGRADE);
        let switched = parts.status == StatusCode::SWITCHING_PROTOCOLS;
        if asked {
            self.visit.link.release(switched);
        }
        if last && !switched {
            let close = HeaderValue::from_static("close");
            parts.headers.insert(header::CONNECTION, close);
        }
    }

    /// What all answers have in common.
    fn set_headers(&self, status: StatusCode, headers: &mut HeaderMap) {
        let options = self.options();
        if !options.answer_headers.is_empty() {
            self.add_headers(status, headers);
        }
        if !(options.backend_server && headers.contains_key(header::SERVER)) {
            match &options.server {
                Some(server) => drop(headers.insert(header::SERVER, server.clone())),
                None => drop(headers.remove(header::SERVER)),
            }
        }
        // Whatever certificate the host has: lua_ingress.lua asks whether there is a function that
        // would tell, and not the function.
        if let Some(hsts) = &options.hsts
            && self.entry.record.client.tls.is_some()
        {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
    }

    /// `add-headers`.
    fn add_headers(&self, status: StatusCode, headers: &mut HeaderMap) {
        let record = &self.entry.record;
        let asked = record.asked(&self.options().globals);
        let answered = Answered {
            record,
            context: record.answered(&asked),
            status,
            took: self.entry.until(Instant::now()),
        };
        for (name, value) in &self.options().answer_headers {
            headers::set(headers, name, value.fill(&answered));
        }
    }
}

/// What hyper adds to the head of an answer: `date: Thu, 01 Jan 1970 00:00:00 GMT`.
const DATE: usize = "date: Thu, 01 Jan 1970 00:00:00 GMT\r\n".len();

/// Bytes of a head, as HTTP/1 writes it.
fn length_of(head: &Parts) -> u64 {
    let reason = head.status.canonical_reason().unwrap_or("<none>");
    let line = "HTTP/1.1 200 \r\n".len() + reason.len();
    let headers = head.headers.iter();
    let headers = headers.map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    let date = match head.headers.contains_key(header::DATE) {
        true => 0,
        false => DATE,
    };
    (line + headers.sum::<usize>() + date + "\r\n".len()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_as_long_as_it_is_written() {
        let answer = |builder: http::response::Builder| builder.body(()).unwrap().into_parts().0;
        let date = "date: Thu, 01 Jan 1970 00:00:00 GMT\r\n";
        let bare = answer(Response::builder());
        let written = format!("HTTP/1.1 200 OK\r\n{date}\r\n");
        assert_eq!(length_of(&bare), written.len() as u64);
        let full = Response::builder().status(404).header("date", "x");
        let full = answer(full.header("a", "1").header("a", "22"));
        let written = "HTTP/1.1 404 Not Found\r\ndate: x\r\na: 1\r\na: 22\r\n\r\n";
        assert_eq!(length_of(&full), written.len() as u64);
    }
}
