//! The body of a request, on its way to an endpoint.

use std::{
    error::Error as _,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::timer::Timer;

/// Bytes of a body that are kept, so that another endpoint can be tried: what nginx reads into
/// memory is 16 KiB, and what it writes to a file has no bound (`client_body_buffer_size`).
pub const KEPT: usize = 64 * 1024;

/// Why a body does not reach the endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Cause {
    #[error("the body has more bytes than proxy-body-size allows")]
    TooLarge,
    #[error("the client sent nothing of the body for client-body-timeout")]
    Slow,
    #[error("the client's body is not well-formed")]
    Malformed,
    #[error("the client left before the end of its body")]
    Gone,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Turn {
    /// The client's: to send more.
    Client,
    /// The endpoint's, since then: to take what there is.
    Take(Instant),
    /// The endpoint's, since then: to answer.
    Answer(Instant),
}

/// A body that comes from a client.
#[derive(Debug)]
pub(crate) struct Source {
    incoming: Incoming,
    /// `Content-Length`.
    declared: Option<u64>,
    /// What was read, for another attempt.
    kept: Vec<Bytes>,
    bytes: u64,
    /// Whether all that was read is in `kept`.
    whole: bool,
    ended: bool,
    trailers: Option<HeaderMap>,
    limit: Option<u64>,
    failed: Option<Cause>,
    turn: Turn,
    patience: Duration,
    timer: Timer,
    since: Option<Instant>,
}

/// A body that attempts share.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<Mutex<Source>>);

impl Shared {
    /// A body of at most `limit` bytes, of a client that may pause for `patience`.
    pub(crate) fn new(incoming: Incoming, limit: Option<u64>, patience: Duration) -> Self {
        Self(Arc::new(Mutex::new(Source {
            declared: incoming.size_hint().exact(),
            incoming,
            kept: Vec::new(),
            bytes: 0,
            whole: true,
            ended: false,
            trailers: None,
            limit,
            failed: None,
            turn: Turn::Client,
            patience,
            timer: Timer::default(),
            since: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Source> {
        // Nothing is done under the lock that leaves the body half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads until the end, or until there is as much as is kept.
    ///
    /// # Errors
    /// The client is at fault.
    pub(crate) async fn fill(&self) -> Result<(), Cause> {
        std::future::poll_fn(|cx| {
            let mut source = self.lock();
            while !source.ended && source.bytes < KEPT as u64 {
                let Some(data) = ready!(source.poll_read(cx))? else {
                    break;
                };
                source.whole = source.bytes <= KEPT as u64;
                source.kept.push(data);
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Another attempt begins.
    pub(crate) fn begin(&self) {
        self.lock().turn = Turn::Take(Instant::now());
    }

    /// Whether another attempt could send it from its beginning.
    pub(crate) fn is_whole(&self) -> bool {
        let source = self.lock();
        source.whole && source.failed.is_none()
    }

    /// There will be no other attempt.
    pub(crate) fn settle(&self) {
        let mut source = self.lock();
        if matches!(source.turn, Turn::Answer(_)) {
            source.kept = Vec::new();
        }
        source.whole = false;
    }

    /// All of it, if it has come, and is kept.
    pub(crate) fn copy(&self) -> Option<Bytes> {
        let source = self.lock();
        let is_all = source.ended && source.whole && source.failed.is_none();
        is_all.then(|| source.kept.concat().into())
    }

    /// Its length, if it has all come.
    pub(crate) fn length(&self) -> Option<u64> {
        let source = self.lock();
        (source.ended && source.trailers.is_none()).then_some(source.bytes)
    }

    /// Bytes that have come.
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// Whose turn it is.
    pub(crate) fn turn(&self) -> Turn {
        self.lock().turn
    }

    /// Why the client is at fault, if it is.
    pub(crate) fn failed(&self) -> Option<Cause> {
        self.lock().failed
    }
}

impl Source {
    /// More data; `None` at the end, or at trailers.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Cause>> {
        let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let since = *self.since.get_or_insert_with(Instant::now);
                ready!(self.timer.poll(cx, since + self.patience));
                return Poll::Ready(Err(self.fail(Cause::Slow)));
            }
        };
        self.since = None;
        let frame = match frame {
            None => {
                self.ended = true;
                return Poll::Ready(Ok(None));
            }
            Some(Err(error)) => return Poll::Ready(Err(self.fail(cause(&error)))),
            Some(Ok(frame)) => frame,
        };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                self.trailers = frame.into_trailers().ok();
                self.ended = true;
                return Poll::Ready(Ok(None));
            }
        };
        self.bytes += data.len() as u64;
        if self.limit.is_some_and(|limit| self.bytes > limit) {
            return Poll::Ready(Err(self.fail(Cause::TooLarge)));
        }
        self.ended = self.incoming.is_end_stream() || self.declared == Some(self.bytes);
        Poll::Ready(Ok(Some(data)))
    }

    fn fail(&mut self, cause: Cause) -> Cause {
        *self.failed.insert(cause)
    }

    /// What an attempt sends next that has sent `sent` pieces.
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        sent: usize,
    ) -> Poll<Result<Option<Bytes>, Cause>> {
        if let Some(failed) = self.failed {
            return Poll::Ready(Err(failed));
        }
        if let Some(piece) = self.kept.get_mut(sent) {
            let piece = if self.whole {
                piece.clone()
            } else {
                std::mem::take(piece)
            };
            let last = self.ended && sent + 1 == self.kept.len();
            self.taken(last);
            return Poll::Ready(Ok(Some(piece)));
        }
        if self.ended {
            self.taken(true);
            return Poll::Ready(Ok(None));
        }
        self.turn = Turn::Client;
        let Some(data) = ready!(self.poll_read(cx))? else {
            self.taken(true);
            return Poll::Ready(Ok(None));
        };
        if self.whole && self.bytes <= KEPT as u64 {
            self.kept.push(data.clone());
        } else {
            // All of it was sent.
            self.whole = false;
            self.kept = Vec::new();
        }
        self.taken(self.ended);
        Poll::Ready(Ok(Some(data)))
    }

    fn taken(&mut self, last: bool) {
        let now = Instant::now();
        self.turn = if last {
            Turn::Answer(now)
        } else {
            Turn::Take(now)
        };
    }
}

/// Whose fault an error of a client's body is.
fn cause(error: &hyper::Error) -> Cause {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return match io.kind() {
                io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Cause::Malformed,
                _ => Cause::Gone,
            };
        }
        source = inner.source();
    }
    Cause::Gone
}

/// The body of one attempt.
#[derive(Debug)]
pub(crate) enum Upload {
    /// All of it; none, if it has no bytes.
    Whole(Bytes),
    /// That of a client.
    From {
        /// It.
        source: Shared,
        /// Pieces that were sent.
        sent: usize,
        /// Whether trailers are passed on.
        trailers: bool,
    },
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        let (source, sent, trailers) = match self.get_mut() {
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                let data = (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)));
                return Poll::Ready(data);
            }
            Self::From {
                source,
                sent,
                trailers,
            } => (source, sent, trailers),
        };
        let mut source = source.lock();
        match ready!(source.poll_next(cx, *sent)) {
            Ok(Some(data)) => {
                *sent += 1;
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Ok(None) => {
                let passed = std::mem::take(trailers).then(|| source.trailers.clone());
                Poll::Ready(passed.flatten().map(|passed| Ok(Frame::trailers(passed))))
            }
            Err(cause) => Poll::Ready(Some(Err(cause))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::From {
                source,
                sent,
                trailers,
            } => {
                let source = source.lock();
                let passed = *trailers && source.trailers.is_some();
                source.failed.is_none()
                    && source.ended
                    && *sent >= source.kept.len()
                    && !passed
                    && matches!(source.turn, Turn::Answer(_))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            // The header tells.
            Self::From { .. } => SizeHint::default(),
        }
    }
}
