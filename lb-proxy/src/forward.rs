//! The phase in which a backend answers: attempts at one endpoint after the other.

mod head;

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{CONTENT_LENGTH, SET_COOKIE, USER_AGENT},
};
use http_body::Body as _;
use lb_route::{
    action::{Forward, Upstream},
    affinity::Asker,
    settings::{BackendProtocol, NextUpstream},
};
use tokio::time::Instant;

use crate::{
    answer::{Refusal, status_of},
    body::Content,
    choose::{self, Choice},
    exchange::Exchange,
    headers,
    record::Attempt,
    upload::{Shared, Upload},
    upstream::{Connect, Failed, How, Outgoing, Reply, Target, What},
};
use head::{Head, Length};

/// Headers for the backend that a phase before has found; `None` takes one away.
pub(crate) type Extra = Vec<(HeaderName, Option<HeaderValue>)>;

/// What all attempts have in common.
struct Plan<'p, C: Connect> {
    choice: Choice<'p>,
    head: Head<'p>,
    body: Option<Shared>,
    h2: bool,
    tls: Option<C::Tls>,
    begun: Instant,
}

impl<C: Connect> Exchange<C> {
    /// Has a backend answer.
    ///
    /// # Errors
    /// None did, or the client's body does not come.
    pub(crate) async fn forward(
        &mut self,
        forward: &Forward,
        upstream: &Upstream,
        extra: &Extra,
    ) -> Result<Response<Content<C>>, Refusal> {
        let proxy = self.visit.proxy.clone();
        let endpoints = choose::endpoints(upstream, &proxy.names).await;
        if endpoints.is_empty() {
            return Err(StatusCode::SERVICE_UNAVAILABLE.into());
        }
        let body = self.body(forward).await?;
        if let Some(mirror) = &forward.location.settings.mirror {
            self.mirror(forward, mirror, body.as_ref());
        }
        let settings = &forward.location.settings.upstream;
        let h2 = is_h2(settings.protocol);
        let length = self.length(body.as_ref());
        let head = Head::new(&self.entry.record, forward, extra, length)?;
        let plan = Plan {
            head: head.with_underscores(self.options().client.underscores),
            body,
            h2,
            tls: self.tls(forward, upstream, h2)?,
            choice: Choice::new(forward, upstream, endpoints, &proxy.averages),
            begun: Instant::now(),
        };
        self.attempts(&plan).await
    }

    /// The body that the client sends, if it does; read as far as the settings want it.
    async fn body(&mut self, forward: &Forward) -> Result<Option<Shared>, Refusal> {
        let Some(incoming) = self.incoming.take().filter(|body| !body.is_end_stream()) else {
            return Ok(None);
        };
        let settings = &forward.location.settings;
        let declared = incoming.size_hint().exact();
        if let (Some(declared), Some(limit)) = (declared, settings.body_size)
            && declared > limit
        {
            return Err(StatusCode::PAYLOAD_TOO_LARGE.into());
        }
        let patience = self.options().client.body_timeout;
        let body = Shared::new(incoming, settings.body_size, patience);
        self.entry.set_body(body.clone());
        // Calls of gRPC are streams: nginx buffers none of them (ngx_http_grpc_module). What is
        // copied is read first in any case (ngx_http_mirror_module).
        let is_copied = settings.mirror.as_ref().is_some_and(|mirror| mirror.body);
        let is_read = settings.upstream.request_buffering || is_copied;
        if is_read && !is_h2(settings.upstream.protocol) {
            body.fill().await?;
        }
        Ok(Some(body).filter(|body| body.length() != Some(0)))
    }

    /// What the endpoint is told of the body's length.
    fn length(&self, body: Option<&Shared>) -> Length {
        let declared = self.entry.record.head().headers;
        let declared = declared.get(CONTENT_LENGTH);
        match body {
            None if declared.is_some() => Length::Known(0),
            None => Length::None,
            Some(body) => match (declared, body.length()) {
                // Checked by the parser.
                (Some(declared), _) => Length::Declared(declared.clone()),
                (None, Some(length)) => Length::Known(length),
                (None, None) => Length::Unknown,
            },
        }
    }

    fn tls(
        &self,
        forward: &Forward,
        upstream: &Upstream,
        h2: bool,
    ) -> Result<Option<C::Tls>, Refusal> {
        let settings = &forward.location.settings.upstream;
        match settings.protocol {
            BackendProtocol::Http | BackendProtocol::Grpc => return Ok(None),
            BackendProtocol::Https | BackendProtocol::Grpcs => {}
        }
        let connector = self.visit.proxy.pool.connector();
        let secret = forward.location.upstream_secret.as_ref();
        match connector.tls(&settings.tls, secret, h2, &upstream.name) {
            Ok(tls) => Ok(Some(tls)),
            Err(error) => {
                let upstream = &upstream.name;
                tracing::warn!(%upstream, %error, "no TLS can be spoken with the backend");
                Err(StatusCode::BAD_GATEWAY.into())
            }
        }
    }

    /// Attempts, until there is an answer that may be passed on, or no other attempt may be made.
    async fn attempts(&mut self, plan: &Plan<'_, C>) -> Result<Response<Content<C>>, Refusal> {
        let next = &plan.choice.forward.location.settings.upstream.next;
        let mut tries = match next.tries {
            0 => plan.choice.endpoints.len(),
            tries => tries as usize,
        };
        let mut tried = Vec::new();
        let mut again = None;
        loop {
            let fresh = again.is_some();
            let clock = || self.visit.proxy.clock();
            let chosen = again.take().or_else(|| plan.choice.next(&tried, clock));
            let Some((address, key)) = chosen else {
                return Err(StatusCode::SERVICE_UNAVAILABLE.into());
            };
            tries = tries.saturating_sub(usize::from(!fresh));
            let result = self.attempt(plan, address, fresh).await;
            let more = tries > 0
                && next
                    .within
                    .is_none_or(|within| plan.begun.elapsed() < within);
            match self.outcome(plan, result, more) {
                Outcome::Answer(mut response) => {
                    self.bind(plan, key, &mut response);
                    return Ok(response);
                }
                Outcome::Refused(refused) => return Err(refused),
                // The endpoint has closed a connection that waited: that says nothing of it.
                Outcome::Again => again = Some((address, key)),
                Outcome::Another => tried.push(address),
            }
        }
    }

    /// What follows from an attempt; `more` if others may follow.
    fn outcome(
        &self,
        plan: &Plan<'_, C>,
        result: Result<Response<Content<C>>, Failed>,
        more: bool,
    ) -> Outcome<C> {
        let next = &plan.choice.forward.location.settings.upstream.next;
        let failed = match result {
            Ok(response) => {
                let wanted = next.statuses.contains(&response.status().as_u16());
                if wanted && more && self.may_repeat(plan, true) {
                    return Outcome::Another;
                }
                plan.body.iter().for_each(Shared::settle);
                return Outcome::Answer(response);
            }
            Err(failed) => failed,
        };
        if let Some(cause) = plan.body.as_ref().and_then(Shared::failed) {
            return Outcome::Refused(cause.into());
        }
        let may = self.may_repeat(plan, failed.sent);
        if may && failed.reused && failed.what == What::Error {
            Outcome::Again
        } else if may && more && is_wanted(next, failed) {
            Outcome::Another
        } else {
            Outcome::Refused(status_of(failed).into())
        }
    }

    /// The cookie that binds the client to its endpoint.
    fn bind(&self, plan: &Plan<'_, C>, key: Option<String>, response: &mut Response<Content<C>>) {
        let forward = plan.choice.forward;
        let affinity = choose::settings(forward).affinity.as_ref();
        let Some((affinity, key)) = affinity.zip(key) else {
            return;
        };
        let record = &self.entry.record;
        let agent = record.headers.get(USER_AGENT);
        let asker = Asker {
            path: &forward.location.path,
            is_https: forward.asked.scheme == "https",
            user_agent: agent.and_then(|agent| agent.to_str().ok()),
            now: record
                .time
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default(),
        };
        if let Some(cookie) = plan.choice.sticky(affinity).cookie(&key, &asker) {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
    }

    /// Whether the request may go out once more; `sent` if something of it has.
    fn may_repeat(&self, plan: &Plan<'_, C>, sent: bool) -> bool {
        let next = &plan.choice.forward.location.settings.upstream.next;
        // Those that nginx takes for not idempotent (ngx_http_upstream_next).
        let method = &self.entry.record.method;
        let idempotent = !matches!(*method, Method::POST | Method::PATCH) && *method != *"LOCK";
        let whole = plan.body.as_ref().is_none_or(Shared::is_whole);
        whole && (!sent || idempotent || next.non_idempotent)
    }

    async fn attempt(
        &mut self,
        plan: &Plan<'_, C>,
        address: SocketAddr,
        fresh: bool,
    ) -> Result<Response<Content<C>>, Failed> {
        let settings = &plan.choice.forward.location.settings.upstream;
        let begun = Instant::now();
        self.begin(address, begun);
        let mut how = How {
            connect_timeout: settings.connect_timeout,
            fresh,
            connected: None,
        };
        // Futures have room for it at each step that it is handed on: a pointer is smaller.
        let outgoing = Box::new(Outgoing {
            request: plan.head.request(&self.entry.record, self.upload(plan)),
            body: plan.body.clone(),
            send_timeout: settings.send_timeout,
            read_timeout: settings.read_timeout,
        });
        let target = Target {
            address,
            h2: plan.h2,
            tls: plan.tls.clone(),
        };
        let pool = self.visit.proxy.pool.clone();
        let reply = pool.ask(target, outgoing, &mut how).await;
        let took = begun.elapsed();
        let result = reply.and_then(|reply| passed(reply, plan));
        let status = result.as_ref().map(Response::status);
        self.ended(status, how.connected, took);
        if status.is_ok() {
            let clock = || self.visit.proxy.clock();
            plan.choice.answered(address, took, clock);
        }
        result
    }

    fn upload(&self, plan: &Plan<'_, C>) -> Upload {
        let Some(body) = &plan.body else {
            return Upload::Whole(Bytes::new());
        };
        body.begin();
        Upload::From {
            source: body.clone(),
            sent: 0,
            trailers: plan.h2,
        }
    }

    fn begin(&mut self, address: SocketAddr, begun: Instant) {
        self.entry.attempt = Some(begun);
        let attempt = Attempt {
            address,
            span: self.entry.record.next_span(),
            begun: self.entry.until(begun),
            status: StatusCode::BAD_GATEWAY,
            connect_time: None,
            header_time: None,
            response_time: Duration::ZERO,
            response_length: 0,
        };
        self.entry.record.attempts.push(attempt);
    }

    fn ended(
        &mut self,
        status: Result<StatusCode, &Failed>,
        connected: Option<Duration>,
        took: Duration,
    ) {
        if status.is_err() {
            // There is no answer whose end is waited for.
            self.entry.attempt = None;
        }
        if let Some(attempt) = self.entry.record.attempts.last_mut() {
            attempt.status = status.unwrap_or_else(|failed| status_of(*failed));
            attempt.connect_time = connected;
            attempt.header_time = status.is_ok().then_some(took);
            attempt.response_time = took;
        }
    }
}

/// What of an answer is passed on.
fn passed<C: Connect>(reply: Reply<C>, plan: &Plan<'_, C>) -> Result<Response<Content<C>>, Failed> {
    match reply {
        Reply::Answer(response) => {
            let mut response = response.map(|body| Content::Download(Box::new(body)));
            let status = response.status();
            headers::clean(response.headers_mut(), status);
            Ok(response)
        }
        Reply::Switched(response, parts) if plan.head.upgrade.is_some() => {
            let settings = &plan.choice.forward.location.settings.upstream;
            Ok(response.map(|()| Content::Switched(parts, settings.read_timeout)))
        }
        // Nobody has asked for that.
        Reply::Switched(..) => Err(Failed {
            what: What::Invalid,
            sent: true,
            reused: false,
        }),
    }
}

/// What follows from an attempt.
enum Outcome<C: Connect> {
    /// This is passed on.
    Answer(Response<Content<C>>),
    /// The client gets this.
    Refused(Refusal),
    /// The same endpoint is asked, by a fresh connection.
    Again,
    /// Another endpoint is asked.
    Another,
}

fn is_h2(protocol: BackendProtocol) -> bool {
    matches!(protocol, BackendProtocol::Grpc | BackendProtocol::Grpcs)
}

/// Whether what happened is a reason to try another endpoint.
fn is_wanted(next: &NextUpstream, failed: Failed) -> bool {
    match failed.what {
        What::Error => next.error,
        What::Timeout => next.timeout,
        What::Invalid => next.invalid_header,
    }
}
