//! A request, phase after phase:
//!
//! 1. The head is checked ([`crate::check`]).
//! 2. It is decided which path of which host it is for ([`crate::Decide`]).
//! 3. Limits, and who may ask ([`crate::access`]).
//! 4. A backend answers ([`crate::forward`]).
//! 5. Errors are answered in its place ([`crate::errors`]).
//! 6. Headers of the answer ([`crate::response`]).
//! 7. The end of the answer is the end of the record ([`crate::record`]).

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use http::{Request, Response, StatusCode, request::Parts};
use hyper::body::Incoming;
use lb_route::{
    action::{Action, Answer, Forward, Location},
    request::Client,
    trace::Span,
};

use crate::{
    access::Cookies,
    answer::{Refusal, own},
    body::{Body, Content},
    check::check,
    client::Visit,
    exchange::Exchange,
    record::{CLIENT_CLOSED, Entry, Record, Trace},
    response,
    upstream::Connect,
};

/// Answers a request.
pub(crate) async fn answer<C: Connect>(
    visit: &Arc<Visit<C>>,
    request: Request<Incoming>,
) -> Response<Body<C>> {
    let number = visit.requests.fetch_add(1, Relaxed) + 1;
    let (parts, incoming) = request.into_parts();
    let mut exchange = Exchange {
        visit: visit.clone(),
        entry: entry(visit, parts, number),
        incoming: Some(incoming),
    };
    let response = exchange.run(number).await;
    exchange.finish(response)
}

fn entry<C: Connect>(visit: &Visit<C>, parts: Parts, number: u64) -> Box<Entry> {
    let record = Record {
        time: SystemTime::now(),
        method: parts.method,
        uri: parts.uri,
        version: parts.version,
        headers: parts.headers,
        client: client(visit),
        connection: visit.number,
        connection_requests: number,
        forward: None,
        location: None,
        user: None,
        limited: None,
        // The constant is a status.
        status: StatusCode::from_u16(CLIENT_CLOSED).unwrap_or_default(),
        request_length: visit.link.head(),
        head_bytes_sent: 0,
        body_bytes_sent: 0,
        request_time: Duration::ZERO,
        attempts: Vec::new(),
        trace: None,
    };
    Entry::new(record, visit.proxy.observe.clone(), visit.link.clone())
}

fn client<C: Connect>(visit: &Visit<C>) -> Client {
    let peer = &visit.peer;
    // What nobody can foresee: the generator is one for cryptography.
    let (id, random) = rand::random::<(u128, u32)>();
    Client {
        address: peer.address,
        port: peer.port,
        tls: peer.tls.clone(),
        random,
        request_id: hexadecimal(id),
    }
}

/// 32 digits, as `{:032x}` has them in five times the time.
fn hexadecimal(id: u128) -> String {
    let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
    let digits = |byte: u8| [digit(byte >> 4), digit(byte & 15)];
    let mut text = String::with_capacity(32);
    text.extend(id.to_be_bytes().into_iter().flat_map(digits));
    text
}

impl<C: Connect> Exchange<C> {
    async fn run(&mut self, number: u64) -> Response<Content<C>> {
        let refused = self.visit.link.refused(number);
        let record = &self.entry.record;
        if let Some(status) = refused.or_else(|| check(&record.head()).err()) {
            return own(status.into());
        }
        let decide = self.visit.proxy.decide.clone();
        match decide.decide(&record.head(), &record.client) {
            Action::Answer(answer) => {
                self.trace(answer.location.as_deref());
                self.by_itself(answer)
            }
            Action::Forward(forward) => {
                self.trace(Some(&forward.location));
                let forward: Arc<Forward> = forward.into();
                let record = &mut self.entry.record;
                record.location = Some(forward.location.clone());
                record.forward = Some(forward.clone());
                self.by_backend(&forward).await
            }
        }
    }

    /// Gives it a place in a trace, if requests for its path are traced.
    fn trace(&mut self, location: Option<&Location>) {
        let settings = match location {
            Some(location) => &location.settings.tracing,
            None => &self.visit.options.tracing,
        };
        if settings.on {
            let record = &mut self.entry.record;
            let span = Span::begin(settings, &record.headers, rand::random());
            record.trace = Some(Box::new(Trace {
                span,
                questions: Vec::new(),
            }));
        }
    }

    fn by_itself(&mut self, answer: Answer) -> Response<Content<C>> {
        let mut response = own(Refusal {
            status: answer.status,
            headers: answer.headers,
        });
        let headers = response.headers_mut();
        let served = answer.location.iter().filter(|l| l.denied.is_none());
        for (name, value) in served.flat_map(|location| &location.answer_headers) {
            headers.insert(name, value.clone());
        }
        self.entry.record.location = answer.location;
        response
    }

    async fn by_backend(&mut self, forward: &Forward) -> Response<Content<C>> {
        let granted = match forward.too_large {
            true => Err(StatusCode::PAYLOAD_TOO_LARGE.into()),
            false => self.access(forward).await,
        };
        let (result, cookies) = match granted {
            Ok(granted) => {
                let upstream = &forward.upstream;
                let result = self.forward(forward, upstream, &granted.headers).await;
                (result, granted.cookies)
            }
            Err(refused) => (Err(refused), Cookies::default()),
        };
        let ours = result.is_err();
        let response = result.unwrap_or_else(own);
        let mut response = self.intercept(forward, response, ours).await;
        // What the proxy sets itself is not hidden (`proxy_hide_header`).
        for name in &self.options().hidden {
            response.headers_mut().remove(name);
        }
        response::change(forward, &mut response, cookies);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_have_all_their_digits() {
        for id in [0, 1, u128::MAX, 0x0123_4567_89ab_cdef << 60] {
            assert_eq!(hexadecimal(id), format!("{id:032x}"));
        }
    }
}
