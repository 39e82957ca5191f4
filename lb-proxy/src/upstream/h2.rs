//! Connections to endpoints that speak HTTP/2: many requests at a time, each connection driven by a
//! task of its own.

use std::{
    error::Error as _,
    future::poll_fn,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
};

use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lb_route::globals::Pool as Settings;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use crate::{
    timer::Timer,
    upload::Upload,
    upstream::{Failed, Outgoing, What},
};

/// Requests at once on a connection. An endpoint that allows fewer has the others wait; hardly any
/// does (RFC 9113, section 6.5.2).
const STREAMS: usize = 100;

/// A connection that requests share.
#[derive(Debug)]
pub(super) struct Line {
    sender: http2::SendRequest<Upload>,
    streams: Arc<AtomicUsize>,
    born: Instant,
    used: Instant,
    requests: u32,
}

/// The place of a request on a connection.
#[derive(Debug)]
pub(crate) struct Stream {
    sender: http2::SendRequest<Upload>,
    streams: Arc<AtomicUsize>,
    reused: bool,
    pub(super) timer: Timer,
}

impl Line {
    /// Of a fresh connection.
    ///
    /// # Errors
    /// Those of hyper.
    pub(super) async fn new<Io>(io: Io) -> hyper::Result<Self>
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let exec = TokioExecutor::new();
        let (sender, connection) = http2::handshake(exec, TokioIo::new(io)).await?;
        tokio::spawn(connection);
        let now = Instant::now();
        Ok(Self {
            sender,
            streams: Arc::default(),
            born: now,
            used: now,
            requests: 0,
        })
    }

    /// A place on it, if it has one left.
    pub(super) fn stream(&mut self, options: &Settings) -> Option<Stream> {
        if !self.takes(options) || self.streams.load(Relaxed) >= STREAMS {
            return None;
        }
        self.streams.fetch_add(1, Relaxed);
        self.requests += 1;
        self.used = Instant::now();
        Some(Stream {
            sender: self.sender.clone(),
            streams: self.streams.clone(),
            reused: self.requests > 1,
            timer: Timer::default(),
        })
    }

    fn takes(&self, options: &Settings) -> bool {
        !self.sender.is_closed()
            && self.requests < options.requests
            && self.born.elapsed() < options.time
    }

    /// Whether it is of use, or may be.
    pub(super) fn is_kept(&self, options: &Settings) -> bool {
        let busy = self.streams.load(Relaxed) > 0;
        !self.sender.is_closed()
            && (busy || (self.takes(options) && self.used.elapsed() < options.timeout))
    }
}

impl Stream {
    /// Sends a request, and waits for the head of the answer.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn ask(
        &mut self,
        outgoing: Box<Outgoing>,
    ) -> Result<hyper::Response<Incoming>, Failed> {
        let reused = self.reused;
        let patience = outgoing.patience();
        let mut sent = pin!(self.sender.try_send_request(outgoing.request));
        poll_fn(|cx| {
            if let Poll::Ready(answer) = sent.as_mut().poll(cx) {
                return Poll::Ready(answer.map_err(|error| Failed {
                    what: what(error.error()),
                    sent: error.message().is_none(),
                    reused,
                }));
            }
            patience.poll(cx, &mut self.timer).map(|()| {
                Err(Failed {
                    what: What::Timeout,
                    sent: true,
                    reused,
                })
            })
        })
        .await
    }
}

/// What an error of hyper is.
fn what(error: &hyper::Error) -> What {
    if error.is_parse() {
        return What::Invalid;
    }
    let io = error.source().and_then(|source| source.downcast_ref());
    match io.map(io::Error::kind) {
        Some(io::ErrorKind::TimedOut) => What::Timeout,
        _ => What::Error,
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.streams.fetch_sub(1, Relaxed);
    }
}
