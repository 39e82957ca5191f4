//! The body of an answer, as it comes from an endpoint.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::{sync::mpsc, time::Instant};

use crate::{
    timer::Timer,
    upstream::{Connect, Lane, Patience, Pool, Target, h2::Stream},
};

/// Why an answer ends before its end.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The connection broke.
    #[error("the endpoint's answer broke off: {0}")]
    Connection(#[from] io::Error),
    /// The connection ended.
    #[error("the endpoint's answer broke off")]
    Early,
    /// What came is no body with chunks.
    #[error("the chunks of the endpoint's answer are not well-formed")]
    Chunks,
    /// The same of an answer by HTTP/2.
    #[error("the endpoint's answer broke off: {0}")]
    Http2(#[from] hyper::Error),
    /// Nothing came.
    #[error("the endpoint sent nothing of its answer for proxy-read-timeout")]
    Timeout,
}

/// So many bytes are read for the sake of their connection.
const LITTLE: u64 = 16 * 1024;

/// By what it comes.
enum Way<C: Connect> {
    /// By a connection that is driven here, and then goes back to the pool.
    Lane(Box<Lane<C::Io>>, Target<C::Tls>, Arc<Pool<C>>),
    /// By a connection of HTTP/2.
    Stream(Incoming, Stream),
    /// By one that drives itself.
    Detached(Detached),
    /// It has all come.
    Done,
}

/// A body by a connection that drives itself.
struct Detached {
    frames: mpsc::Receiver<Result<Frame<Bytes>, Broken>>,
    /// Bytes that are still to come, if that is known.
    left: Option<u64>,
    timer: Timer,
}

/// A body on its way.
pub(crate) struct Download<C: Connect> {
    way: Way<C>,
    patience: Duration,
    deadline: Option<Instant>,
    /// What is still to be said.
    broken: Option<Broken>,
}

impl<C: Connect> Download<C> {
    /// By HTTP/1. If it has no bytes, the connection goes back at once.
    pub(crate) fn by_lane(
        lane: Box<Lane<C::Io>>,
        to: (Target<C::Tls>, Arc<Pool<C>>),
        patience: Duration,
    ) -> Self {
        let mut body = Self::new(Way::Lane(lane, to.0, to.1), patience);
        body.finish();
        body
    }

    /// By HTTP/2.
    pub(crate) fn by_stream(incoming: Incoming, stream: Stream, patience: Duration) -> Self {
        Self::new(Way::Stream(incoming, stream), patience)
    }

    /// By a connection of HTTP/1 that has still something to send.
    pub(crate) fn detached(lane: Lane<C::Io>, patience: Patience) -> Self {
        let read = patience.read;
        let detached = Detached {
            left: lane.left(),
            frames: lane.detach(patience),
            timer: Timer::default(),
        };
        let mut body = Self::new(Way::Detached(detached), read);
        body.finish();
        body
    }

    /// Reads what nobody wants, so that the connection can be used again; if it is little.
    pub(crate) async fn discard(mut self) {
        let little = self
            .size_hint()
            .exact()
            .is_some_and(|bytes| bytes <= LITTLE);
        while little && !self.is_end_stream() {
            let frame = poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await;
            if !matches!(frame, Some(Ok(_))) {
                return;
            }
        }
    }

    fn new(way: Way<C>, patience: Duration) -> Self {
        Self {
            way,
            patience,
            deadline: None,
            broken: None,
        }
    }

    /// If all has come, the connection is free for another request.
    fn finish(&mut self) {
        if self.is_end_stream()
            && let Way::Lane(mut lane, target, pool) = std::mem::replace(&mut self.way, Way::Done)
            && lane.is_free()
        {
            lane.rest();
            pool.put(target, lane);
        }
    }

    fn poll_way(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut self.way {
            Way::Lane(lane, ..) => lane.poll_frame(cx),
            Way::Stream(incoming, _) => {
                let frame = ready!(Pin::new(incoming).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(Broken::from)))
            }
            Way::Detached(detached) => {
                let frame = ready!(detached.frames.poll_recv(cx));
                match (&frame, &mut detached.left) {
                    (Some(Ok(frame)), Some(left)) => {
                        let got = frame.data_ref().map_or(0, |data| data.len() as u64);
                        *left = left.saturating_sub(got);
                    }
                    (None, Some(1..)) => return Poll::Ready(Some(Err(Broken::Early))),
                    (None, left) => *left = Some(0),
                    (Some(_), _) => {}
                }
                Poll::Ready(frame)
            }
            Way::Done => Poll::Ready(None),
        }
    }

    /// hyper drops what it has not yet written when a body fails: it gets a turn to write before it
    /// hears of that.
    fn breaks<T>(&mut self, cx: &mut Context<'_>, broken: Broken) -> Poll<T> {
        self.way = Way::Done;
        self.broken = Some(broken);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let patience = self.patience;
        let deadline = *self
            .deadline
            .get_or_insert_with(|| Instant::now() + patience);
        match &mut self.way {
            Way::Lane(lane, ..) => lane.timer.poll(cx, deadline),
            Way::Stream(_, stream) => stream.timer.poll(cx, deadline),
            Way::Detached(detached) => detached.timer.poll(cx, deadline),
            Way::Done => Poll::Pending,
        }
    }
}

impl<C: Connect> Body for Download<C> {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        if let Some(broken) = this.broken.take() {
            return Poll::Ready(Some(Err(broken)));
        }
        match this.poll_way(cx) {
            Poll::Pending => {
                ready!(this.poll_deadline(cx));
                this.breaks(cx, Broken::Timeout)
            }
            Poll::Ready(Some(Err(error))) => this.breaks(cx, error),
            Poll::Ready(frame) => {
                this.deadline = None;
                this.finish();
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.broken.is_none()
            && match &self.way {
                Way::Lane(lane, ..) => lane.left() == Some(0),
                Way::Stream(incoming, _) => incoming.is_end_stream(),
                Way::Detached(detached) => detached.left == Some(0),
                Way::Done => true,
            }
    }

    fn size_hint(&self) -> SizeHint {
        let left = match &self.way {
            Way::Lane(lane, ..) => lane.left(),
            Way::Stream(incoming, _) => return incoming.size_hint(),
            Way::Detached(detached) => detached.left,
            Way::Done => Some(0),
        };
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl<C: Connect> Unpin for Download<C> {}
