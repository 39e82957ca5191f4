//! The body of an answer, as it comes from an endpoint.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::{
    timer::Timer,
    upstream::{Connect, Lane, Pool, Target, h2::Stream},
};

/// Why an answer ends before its end.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The connection broke, or what came by it is not HTTP.
    #[error("the endpoint's answer broke off: {0}")]
    Upstream(#[from] hyper::Error),
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
    Stream(Stream),
    /// By one that drives itself.
    Detached(Timer),
    /// It has all come.
    Done,
}

/// A body on its way.
pub(crate) struct Download<C: Connect> {
    incoming: Incoming,
    way: Way<C>,
    patience: Duration,
    deadline: Option<Instant>,
    /// What is still to be said.
    broken: Option<Broken>,
}

impl<C: Connect> Download<C> {
    /// By HTTP/1. If it has no bytes, the connection goes back at once.
    pub(crate) fn by_lane(
        incoming: Incoming,
        lane: Box<Lane<C::Io>>,
        to: (Target<C::Tls>, Arc<Pool<C>>),
        patience: Duration,
    ) -> Self {
        let way = Way::Lane(lane, to.0, to.1);
        let mut body = Self::new(incoming, way, patience);
        if body.incoming.is_end_stream() {
            body.finish();
        }
        body
    }

    /// By HTTP/2.
    pub(crate) fn by_stream(incoming: Incoming, stream: Stream, patience: Duration) -> Self {
        Self::new(incoming, Way::Stream(stream), patience)
    }

    /// By a connection that drives itself.
    pub(crate) fn detached(incoming: Incoming, patience: Duration) -> Self {
        Self::new(incoming, Way::Detached(Timer::default()), patience)
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

    fn new(incoming: Incoming, way: Way<C>, patience: Duration) -> Self {
        Self {
            incoming,
            way,
            patience,
            deadline: None,
            broken: None,
        }
    }

    /// The connection is free for another request.
    fn finish(&mut self) {
        if let Way::Lane(mut lane, target, pool) = std::mem::replace(&mut self.way, Way::Done)
            && lane.is_ready()
        {
            pool.put(target, lane);
        }
    }

    fn poll_incoming(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Way::Lane(lane, ..) = &mut self.way else {
            return Pin::new(&mut self.incoming).poll_frame(cx);
        };
        // As in `Lane::ask`: what it waits for comes only while the connection is polled.
        let mut nobody = Context::from_waker(Waker::noop());
        let there = Pin::new(&mut self.incoming).poll_frame(&mut nobody);
        if there.is_ready() {
            return there;
        }
        lane.poll(cx);
        Pin::new(&mut self.incoming).poll_frame(&mut nobody)
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
            Way::Stream(stream) => stream.timer.poll(cx, deadline),
            Way::Detached(timer) => timer.poll(cx, deadline),
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
        match this.poll_incoming(cx) {
            Poll::Pending => {
                ready!(this.poll_deadline(cx));
                this.breaks(cx, Broken::Timeout)
            }
            Poll::Ready(Some(Err(error))) => this.breaks(cx, error.into()),
            Poll::Ready(frame) => {
                this.deadline = None;
                if frame.is_none() || this.incoming.is_end_stream() {
                    this.finish();
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Broken::from)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl<C: Connect> Unpin for Download<C> {}
