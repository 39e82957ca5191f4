//! Connections to endpoints.

mod ask;
mod body;
mod connect;
mod dial;
mod h1;
mod h2;
mod pool;
mod question;
mod resolve;

use std::{
    task::{Context, Poll},
    time::Duration,
};

use http::Request;
use tokio::time::Instant;

pub(crate) use ask::{How, Reply};
pub use body::Broken;
pub(crate) use body::Download;
pub use connect::{Connect, Plain, Target};
pub use dial::{Dial, Speaks, Stream};
pub(crate) use h1::{Lane, Parts};
pub(crate) use pool::Pool;
pub(crate) use question::Question;
pub(crate) use resolve::Names;

use crate::{
    timer::Timer,
    upload::{Shared, Turn, Upload},
};

/// Why there is no answer of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Failed {
    /// What happened.
    pub(crate) what: What,
    /// Whether something of the request may have been sent.
    pub(crate) sent: bool,
    /// Whether it was sent on a connection that had been used before.
    pub(crate) reused: bool,
}

/// What happened to a request (`proxy_next_upstream` of nginx has these words).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    /// No connection, or it broke.
    Error,
    /// It took too long.
    Timeout,
    /// The answer is none.
    Invalid,
}

impl Failed {
    /// Nothing was sent.
    pub(crate) fn unsent(what: What) -> Self {
        Self {
            what,
            sent: false,
            reused: false,
        }
    }
}

/// A request for an endpoint.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// What is sent.
    pub(crate) request: Request<Upload>,
    /// Its body, if it has one.
    pub(crate) body: Option<Shared>,
    /// Between two writes.
    pub(crate) send_timeout: Duration,
    /// For an answer, and between two reads of it.
    pub(crate) read_timeout: Duration,
}

impl Outgoing {
    /// How long is waited for what.
    fn patience(&self) -> Patience {
        Patience {
            body: self.body.clone(),
            begun: Instant::now(),
            send: self.send_timeout,
            read: self.read_timeout,
        }
    }
}

/// What a request may wait for.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    /// The body, which knows whose turn it is.
    body: Option<Shared>,
    begun: Instant,
    send: Duration,
    read: Duration,
}

impl Patience {
    /// Ready when it has come to its end. While it is the client's turn, it has none.
    fn poll(&self, cx: &mut Context<'_>, timer: &mut Timer) -> Poll<()> {
        let turn = self.body.as_ref().map(Shared::turn);
        let deadline = match turn.unwrap_or(Turn::Answer(self.begun)) {
            Turn::Client => return Poll::Pending,
            Turn::Take(since) => since + self.send,
            Turn::Answer(since) => since + self.read,
        };
        timer.poll(cx, deadline)
    }
}
