//! What is known of a request when it is over: for logs and metrics.

use std::{
    borrow::Cow,
    net::SocketAddr,
    num::NonZeroU64,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, Method, StatusCode, Uri, Version};
use lb_route::{
    action::{self, Forward, Location},
    context::{self, Context},
    globals::Globals,
    limits::{Admitted, Refused},
    request::{Client, Head},
    trace::Span,
};
use tokio::time::Instant;

use crate::{client::Link, upload::Shared};

/// A request that is over.
#[derive(Debug)]
pub struct Record {
    /// When its head had come.
    pub time: SystemTime,
    /// Method.
    pub method: Method,
    /// Target, as the client wrote it.
    pub uri: Uri,
    /// Version of HTTP.
    pub version: Version,
    /// Headers, as the client sent them.
    pub headers: HeaderMap,
    /// Who sent it.
    pub client: Client,
    /// Number of the connection, from 1.
    pub connection: u64,
    /// Number of the request on its connection, from 1.
    pub connection_requests: u64,
    /// What was to become of it, if a backend was to answer.
    pub forward: Option<Arc<Forward>>,
    /// The path that it is for.
    pub location: Option<Arc<Location>>,
    /// The user, of basic authentication.
    pub user: Option<String>,
    /// The limit that the client had reached, if it was refused for that.
    pub limited: Option<Refused>,
    /// Status; 499 if the client left before there was one (as in nginx).
    pub status: StatusCode,
    /// Bytes of the request, with its head as far as that is known.
    pub request_length: u64,
    /// Bytes of the answer's head, about: as HTTP/1 writes it.
    pub head_bytes_sent: u64,
    /// Bytes of the answer's body.
    pub body_bytes_sent: u64,
    /// From the head of the request to the end of the answer.
    pub request_time: Duration,
    /// Each attempt to have an endpoint answer.
    pub attempts: Vec<Attempt>,
    /// Its place in a trace, if it is traced.
    pub trace: Option<Box<Trace>>,
}

impl Record {
    /// The head of the request.
    pub fn head(&self) -> Head<'_> {
        Head {
            method: &self.method,
            uri: &self.uri,
            version: self.version,
            headers: &self.headers,
        }
    }

    /// Says to whoever is asked for it what trace it is of; `by` is the span that asks, or none for
    /// its own.
    pub(crate) fn pass_trace_on(&self, headers: &mut HeaderMap, by: Option<NonZeroU64>) {
        if let Some(trace) = &self.trace {
            trace.span.pass_on(headers, by.unwrap_or(trace.span.id));
        }
    }

    /// A span for who is asked, if spans are kept of this request.
    pub(crate) fn next_span(&self) -> Option<NonZeroU64> {
        let is_kept = self.trace.as_ref().is_some_and(|trace| trace.span.sampled);
        is_kept.then(rand::random)
    }

    /// One value for each attempt (ngx_http_upstream_module, "Embedded Variables").
    pub fn of_attempts(&self, value: impl Fn(&Attempt) -> String) -> Option<Cow<'static, str>> {
        let values: Vec<_> = self.attempts.iter().map(value).collect();
        (!values.is_empty()).then(|| values.join(", ").into())
    }

    /// What it asked for: known of one that was to be forwarded, and found out again of one that
    /// the proxy has answered by itself.
    pub fn asked(&self, globals: &Globals) -> Cow<'_, action::Asked> {
        match &self.forward {
            Some(forward) => Cow::Borrowed(&forward.asked),
            None => Cow::Owned(context::asked(globals, &self.head(), &self.client)),
        }
    }

    /// It, as variables of answers have it, with what it [`Record::asked`] for.
    pub fn answered<'r>(&'r self, asked: &'r action::Asked) -> Context<'r> {
        let groups = self.forward.as_ref().map(|forward| &*forward.groups);
        Context {
            head: self.head(),
            client: &self.client,
            asked,
            location: self.location.as_deref(),
            groups: groups.unwrap_or_default(),
        }
    }

    /// It, as variables have it.
    pub(crate) fn context<'r>(&'r self, forward: &'r Forward) -> Context<'r> {
        Context {
            head: self.head(),
            client: &self.client,
            asked: &forward.asked,
            location: Some(&forward.location),
            groups: &forward.groups,
        }
    }
}

/// The place of a request in a trace.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Its span.
    pub span: Span,
    /// Questions whether the client may ask, if spans are kept of this request.
    pub questions: Vec<Asked>,
}

/// A question to another server, whether a client may ask (`auth-url`).
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its span.
    pub span: NonZeroU64,
    /// Its method.
    pub method: Method,
    /// The address that was asked, of `http` or `https`.
    pub url: String,
    /// Status of the answer, if there was one.
    pub status: Option<StatusCode>,
    /// From the head of the request to the question.
    pub begun: Duration,
    /// From the question to the answer.
    pub took: Duration,
}

/// An attempt to have an endpoint answer (`$upstream_addr` and its companions).
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The endpoint.
    pub address: SocketAddr,
    /// Its span, if spans are kept of the request.
    pub span: Option<NonZeroU64>,
    /// From the head of the request to the attempt.
    pub begun: Duration,
    /// Status of its answer, or of what was made of there being none: 502 or 504.
    pub status: StatusCode,
    /// Until there was a connection.
    pub connect_time: Option<Duration>,
    /// Until the head of the answer.
    pub header_time: Option<Duration>,
    /// Until the end of the answer.
    pub response_time: Duration,
    /// Bytes of the answer's body.
    pub response_length: u64,
}

/// Takes records.
pub trait Observe: Send + Sync + 'static {
    /// The head of a request has come: there will be a record. Nothing here may block.
    fn begun(&self) {}

    /// A request is over. Nothing here may block.
    fn done(&self, record: &Record);
}

/// Takes none.
#[derive(Clone, Copy, Default, Debug)]
pub struct Nobody;

impl Observe for Nobody {
    fn done(&self, _: &Record) {}
}

/// A record that is being made; it is handed over when it is dropped.
pub(crate) struct Entry {
    pub(crate) record: Record,
    begun: Instant,
    /// When the attempt began that is under way.
    pub(crate) attempt: Option<Instant>,
    /// Counts as one of the client's requests at once.
    pub(crate) admitted: Option<Admitted>,
    observe: Arc<dyn Observe>,
    link: Arc<Link>,
    body: Option<Shared>,
}

/// The client closed the connection: a status of nginx.
pub(crate) const CLIENT_CLOSED: u16 = 499;

impl Entry {
    /// Of a request whose head has just come.
    pub(crate) fn new(record: Record, observe: Arc<dyn Observe>, link: Arc<Link>) -> Box<Self> {
        link.begin();
        observe.begun();
        Box::new(Self {
            record,
            begun: Instant::now(),
            attempt: None,
            admitted: None,
            observe,
            link,
            body: None,
        })
    }

    /// How long after its head that was.
    pub(crate) fn until(&self, then: Instant) -> Duration {
        then.duration_since(self.begun)
    }

    /// The request has a body.
    pub(crate) fn set_body(&mut self, body: Shared) {
        self.body = Some(body);
    }

    /// Bytes of the answer's body go to the client.
    pub(crate) fn sends(&mut self, bytes: u64) {
        self.record.body_bytes_sent += bytes;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let now = Instant::now();
        self.link.end(now);
        let record = &mut self.record;
        record.request_time = now.duration_since(self.begun);
        record.request_length += self.body.as_ref().map_or(0, |body| body.bytes());
        if let (Some(begun), Some(last)) = (self.attempt, record.attempts.last_mut()) {
            last.response_time = now.duration_since(begun);
            last.response_length = record.body_bytes_sent;
        }
        self.observe.done(record);
    }
}
