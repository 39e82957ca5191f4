//! A connection to an endpoint that speaks HTTP/1: one request at a time.
//!
//! The task of the request drives it, and no task of its own: that saves the switches between two
//! tasks at every event. Between requests nobody drives it; the pool looks after it.

use std::{
    error::Error as _,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use crate::{
    timer::Timer,
    upload::{Turn, Upload},
    upstream::{Failed, Outgoing, What},
};

/// A connection.
pub(crate) struct Lane<Io: AsyncRead + AsyncWrite + Unpin> {
    sender: http1::SendRequest<Upload>,
    connection: http1::Connection<TokioIo<Io>, Upload>,
    /// Whether the connection has ended.
    over: bool,
    pub(super) timer: Timer,
    pub(super) born: Instant,
    pub(super) requests: u32,
}

/// A connection whose protocol was changed, and what was already read of it.
pub(crate) struct Parts<Io> {
    /// The connection.
    pub(crate) io: Io,
    /// What was read.
    pub(crate) read: Bytes,
}

impl<Io: AsyncRead + AsyncWrite + Send + Unpin + 'static> Lane<Io> {
    /// Of a fresh connection.
    ///
    /// # Errors
    /// Those of hyper.
    pub(crate) async fn new(io: Io) -> hyper::Result<Self> {
        let (sender, connection) = http1::handshake(TokioIo::new(io)).await?;
        Ok(Self {
            sender,
            connection,
            over: false,
            timer: Timer::default(),
            born: Instant::now(),
            requests: 0,
        })
    }

    /// Lets it make progress.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        // An error reaches the one who waits for an answer, or for more of a body.
        self.over = self.over || Pin::new(&mut self.connection).poll(cx).is_ready();
    }

    /// Whether it can take a request now.
    pub(super) fn is_ready(&mut self) -> bool {
        self.poll(&mut Context::from_waker(Waker::noop()));
        !self.over && self.sender.is_ready()
    }

    /// Sends a request, and waits for the head of the answer.
    ///
    /// # Errors
    /// There is none; then the connection is of no more use.
    pub(crate) async fn ask(
        &mut self,
        outgoing: Box<Outgoing>,
    ) -> Result<hyper::Response<Incoming>, Failed> {
        let reused = self.requests > 0;
        self.requests += 1;
        let Outgoing {
            request,
            body,
            send_timeout,
            read_timeout,
        } = *outgoing;
        let begun = Instant::now();
        // What it waits for comes only while the connection is polled: nobody need be woken. And
        // the budget of the task must not end it: then nobody would be.
        let sent = tokio::task::unconstrained(self.sender.try_send_request(request));
        let mut sent = pin!(sent);
        poll_fn(|cx| {
            self.over = self.over || Pin::new(&mut self.connection).poll(cx).is_ready();
            let mut nobody = Context::from_waker(Waker::noop());
            if let Poll::Ready(answer) = sent.as_mut().poll(&mut nobody) {
                return Poll::Ready(answer.map_err(|error| failed(&error, reused)));
            }
            let deadline = match body
                .as_ref()
                .map_or(Turn::Answer(begun), |body| body.turn())
            {
                Turn::Client => return Poll::Pending,
                Turn::Take(since) => since + send_timeout,
                Turn::Answer(since) => since + read_timeout,
            };
            self.timer.poll(cx, deadline).map(|()| {
                Err(Failed {
                    what: What::Timeout,
                    sent: true,
                    reused,
                })
            })
        })
        .await
    }

    /// Waits until hyper has let go of it after an answer of 101.
    ///
    /// # Errors
    /// The connection is broken.
    pub(crate) async fn into_parts(mut self) -> hyper::Result<Parts<Io>> {
        if !self.over {
            Pin::new(&mut self.connection).await?;
        }
        let parts = self.connection.into_parts();
        Ok(Parts {
            io: parts.io.into_inner(),
            read: parts.read_buf,
        })
    }

    /// Drives it in a task of its own: the rest of the request has still to be sent, even while the
    /// client takes nothing of the answer.
    pub(crate) fn detach(self) {
        if !self.over {
            tokio::spawn(self.connection);
        }
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> std::fmt::Debug for Lane<Io> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let requests = &self.requests;
        f.debug_struct("Lane").field("requests", requests).finish()
    }
}

fn failed(error: &TrySendError<hyper::Request<Upload>>, reused: bool) -> Failed {
    let sent = error.message().is_none();
    let error = error.error();
    Failed {
        what: what(error),
        sent,
        reused,
    }
}

/// What an error of hyper is.
pub(super) fn what(error: &hyper::Error) -> What {
    if error.is_parse() {
        return What::Invalid;
    }
    let io = error.source().and_then(|source| source.downcast_ref());
    match io.map(io::Error::kind) {
        Some(io::ErrorKind::TimedOut) => What::Timeout,
        _ => What::Error,
    }
}
