//! A connection to an endpoint that speaks HTTP/1: one request at a time.
//!
//! The task of the request drives it, and no task of its own: nothing is handed from one task to
//! another, neither a head nor a piece of a body. Between requests nobody drives it; the pool looks
//! after it.

mod decode;
mod head;
mod send;

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    sync::mpsc,
    time::Instant,
};

use crate::{
    timer::Timer,
    upload::Upload,
    upstream::{Broken, Failed, Patience, What},
};
use decode::{Decoder, Malformed};
use head::Answer;
use send::Sending;

/// Bytes that are read at once: mostly a whole answer. Answers that have more double it.
const READ: usize = 4 * 1024;
/// Bytes that are read at once at most.
const READ_MOST: usize = 64 * 1024;

/// A connection.
pub(crate) struct Lane<Io> {
    io: Io,
    sending: Sending,
    reading: Reading,
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
    pub(crate) fn new(io: Io) -> Self {
        Self {
            io,
            sending: Sending::default(),
            reading: Reading::default(),
            timer: Timer::default(),
            born: Instant::now(),
            requests: 0,
        }
    }

    /// Whether one that waits can take a request now: nothing has come, not even the end.
    pub(super) fn is_ready(&mut self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        let mut byte = [0];
        let mut byte = ReadBuf::new(&mut byte);
        let io = Pin::new(&mut self.io);
        io.poll_read(&mut nobody, &mut byte).is_pending()
    }

    /// Waits for another request with no more memory than most need.
    pub(super) fn rest(&mut self) {
        if self.reading.size > READ {
            self.reading.read = BytesMut::new();
        }
    }

    /// Whether the last request and its answer were whole, and another may follow.
    pub(super) fn is_free(&self) -> bool {
        let reading = &self.reading;
        let is_over = self.sending.is_over() && reading.decoder.is_over();
        is_over && reading.keeps && reading.read.is_empty()
    }

    /// Sends a request, and waits for the head of the answer. What comes then is read by
    /// [`Lane::poll_frame`].
    ///
    /// # Errors
    /// There is none; then the connection is of no more use.
    pub(crate) async fn ask(
        &mut self,
        request: Request<Upload>,
        patience: &Patience,
    ) -> Result<Response<()>, Failed> {
        let reused = self.requests > 0;
        self.requests += 1;
        let is_head = request.method() == Method::HEAD;
        self.sending = Sending::begin(request, std::mem::take(&mut self.sending));
        turn_of_others().await;
        let answer = poll_fn(|cx| {
            if let Poll::Ready(answer) = self.poll_answer(cx, is_head) {
                return Poll::Ready(answer);
            }
            let over = patience.poll(cx, &mut self.timer);
            over.map(|()| Err(What::Timeout))
        });
        answer.await.map_err(|what| Failed {
            what,
            sent: self.sending.has_sent(),
            reused,
        })
    }

    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        is_head: bool,
    ) -> Poll<Result<Response<()>, What>> {
        // Who takes no more of a request may have answered it.
        if self.sending.poll(cx, &mut self.io).is_ready() && self.sending.has_no_source() {
            return Poll::Ready(Err(What::Error));
        }
        self.reading.poll_head(cx, &mut self.io, is_head)
    }

    /// Whether something of the request has still to be sent.
    pub(super) fn sends(&self) -> bool {
        self.sending.is_under_way()
    }

    /// What comes next of the answer.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.reading.poll_frame(cx, &mut self.io)
    }

    /// How many bytes of the answer's body are still to come, if that is known.
    pub(super) fn left(&self) -> Option<u64> {
        self.reading.decoder.left()
    }

    /// The connection, after an answer of 101.
    pub(crate) fn into_parts(self) -> Parts<Io> {
        Parts {
            io: self.io,
            read: self.reading.read.freeze(),
        }
    }

    /// Drives it in a task of its own: the rest of the request has still to be sent, even while the
    /// client takes nothing of the answer. Its body comes here.
    pub(crate) fn detach(self, patience: Patience) -> mpsc::Receiver<Result<Frame<Bytes>, Broken>> {
        let (frames, receiver) = mpsc::channel(1);
        let Self {
            io,
            mut sending,
            mut reading,
            mut timer,
            ..
        } = self;
        let (mut from, mut to) = tokio::io::split(io);
        let sent = async move {
            poll_fn(|cx| {
                // Who has answered need not take the rest.
                match sending.poll(cx, &mut to) {
                    Poll::Pending => patience.poll(cx, &mut timer),
                    ready => ready,
                }
            })
            .await;
            Ok(())
        };
        let received = async move {
            loop {
                let frame = poll_fn(|cx| reading.poll_frame(cx, &mut from)).await;
                let Some(frame) = frame else { return Ok(()) };
                let is_broken = frame.is_err();
                let sent = frames.send(frame).await;
                if is_broken || sent.is_err() {
                    return Err(());
                }
            }
        };
        tokio::spawn(async move {
            // Both to their ends, unless nobody wants the answer.
            let _ = tokio::try_join!(sent, received);
        });
        receiver
    }
}

/// Lets the tasks run that are ready too, those of requests that came at the same time: then all of
/// these go out together. To wake who sleeps is the largest part of a write to somebody on this
/// machine, and who is woken by the first finds the others there. (Redis writes its answers so.)
async fn turn_of_others() {
    let mut had = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut had, true) {
            return Poll::Ready(());
        }
        // Unlike `yield_now`, which looks for events of the system first.
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// What comes by a connection.
#[derive(Debug)]
struct Reading {
    /// What has come, and is not yet taken.
    read: BytesMut,
    /// Bytes that the next read may bring.
    size: usize,
    decoder: Decoder,
    /// Whether the endpoint takes another request after this.
    keeps: bool,
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            read: BytesMut::new(),
            size: READ,
            decoder: Decoder::Over,
            keeps: true,
        }
    }
}

impl Reading {
    /// Reads more; 0 at the end.
    fn poll_fill<Io: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut Io,
    ) -> Poll<io::Result<usize>> {
        self.read.reserve(self.size);
        let got = ready!(pin!(io.read_buf(&mut self.read)).poll(cx))?;
        if got >= self.size {
            self.size = READ_MOST.min(2 * self.size);
        }
        Poll::Ready(Ok(got))
    }

    fn poll_head<Io: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut Io,
        is_head: bool,
    ) -> Poll<Result<Response<()>, What>> {
        loop {
            let parsed = head::parse(&mut self.read, is_head);
            if let Some(answer) = parsed.map_err(|_| What::Invalid)? {
                let status = answer.head.status();
                // RFC 9110, section 15.2: others than these may come before it, and say nothing.
                if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                    continue;
                }
                return Poll::Ready(Ok(self.begins(answer)));
            }
            match ready!(self.poll_fill(cx, io)) {
                Ok(0) => return Poll::Ready(Err(What::Error)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Poll::Ready(Err(What::Timeout));
                }
                Err(_) => return Poll::Ready(Err(What::Error)),
            }
        }
    }

    fn begins(&mut self, answer: Answer) -> Response<()> {
        self.decoder = answer.decoder;
        self.keeps = answer.keeps;
        self.size = READ;
        answer.head
    }

    fn poll_frame<Io: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut Io,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            match self.decoder.next(&mut self.read) {
                Ok(None) if self.decoder.is_over() => return Poll::Ready(None),
                Ok(None) => {}
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Err(Malformed) => return Poll::Ready(Some(Err(Broken::Chunks))),
            }
            match ready!(self.poll_fill(cx, io)) {
                Ok(0) if self.decoder == Decoder::Close => {
                    self.decoder = Decoder::Over;
                    return Poll::Ready(None);
                }
                Ok(0) => return Poll::Ready(Some(Err(Broken::Early))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }
}

impl<Io> std::fmt::Debug for Lane<Io> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let requests = &self.requests;
        f.debug_struct("Lane").field("requests", requests).finish()
    }
}
