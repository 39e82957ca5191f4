//! The bytes of a client's connection: what may pass to the parser, and for how long is waited.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use crate::{
    client::{
        link::Link,
        scan::{Place, Scanner, Wrong},
    },
    options::Options,
    rest::SocketOf,
    timer::Timer,
    write::poll_write_pieces,
};

/// What the parser sees in place of a head that is refused: a last request.
const REFUSED: &[u8] = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n";
/// How long a client that is not to send more may go on, so that it reads the answer before its
/// connection is reset (RFC 9112, section 9.6; `lingering_time` and `lingering_timeout` of nginx).
const LINGER: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(5));
/// How long a connection without a request waits for one more when the proxy is to end.
const LEAVING: Duration = Duration::from_secs(5);

/// How long a connection that has rested is looked at: what woke it is read only when the runtime
/// has asked the kernel for it.
const LOOK: Duration = Duration::from_millis(100);

/// How long a connection is without a request before nothing is kept ready for the next.
const REST: Duration = Duration::from_secs(1);

/// What there is to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Input {
    /// What comes.
    Open,
    /// The end.
    Ended,
    /// Nothing, and no end: the request that is refused gets its answer.
    Refused,
}

/// A client's connection.
pub(crate) struct Guard<Io> {
    io: Io,
    scanner: Scanner,
    link: Arc<Link>,
    options: Arc<Options>,
    /// What was read and may pass, and behind it what may not yet.
    buffer: BytesMut,
    passes: usize,
    input: Input,
    timer: Timer,
    /// Since when a read waits for what it waits for.
    since: Option<Instant>,
    fresh: bool,
    /// Since when it is awake, if it may rest.
    awake: Option<Instant>,
    blocked: Option<Instant>,
    linger: Option<(Instant, Instant)>,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Guard<Io> {
    /// For a connection of which something was read already.
    pub(crate) fn new(
        (mut io, socket): (Io, SocketOf<Io>),
        read: BytesMut,
        scanner: Scanner,
        owner: (Arc<Link>, Arc<Options>),
    ) -> Self {
        Self {
            awake: socket(&mut io).map(|_| Instant::now()),
            fresh: scanner.heads() == 0,
            io,
            scanner,
            link: owner.0,
            options: owner.1,
            buffer: read,
            passes: 0,
            input: Input::Open,
            timer: Timer::default(),
            since: None,
            blocked: None,
            linger: None,
        }
    }

    /// The connection, and what was read of it.
    pub(crate) fn into_parts(self) -> (Io, BytesMut) {
        (self.io, self.buffer)
    }

    /// Until when a read may wait; `None` without end.
    pub(super) fn deadline(&mut self) -> Option<Instant> {
        let options = &self.options;
        let mut earliest = None;
        let patience = match self.scanner.place() {
            Place::Between if self.buffer.is_empty() => {
                let idle = self.link.idle_since()?;
                self.since = Some(idle);
                earliest = self.awake.map(|awake| awake + LOOK);
                match (self.link.is_leaving(), self.fresh) {
                    (true, _) => LEAVING.min(options.client.keep_alive),
                    (false, true) => options.client.header_timeout,
                    (false, false) => options.client.keep_alive,
                }
            }
            Place::Between | Place::Head => options.client.header_timeout,
            // Whoever reads the body, or speaks the protocol, waits as long as it wants.
            Place::Body | Place::Held | Place::Raw => return None,
        };
        let deadline = *self.since.get_or_insert_with(Instant::now) + patience;
        Some(earliest.map_or(deadline, |earliest| earliest.max(deadline)))
    }

    /// Ends the input when it has been waited for long enough.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(deadline) = self.deadline() {
            if self.may_rest(cx) {
                self.link.rest();
            }
            ready!(self.timer.poll(cx, deadline));
            self.input = Input::Ended;
            return Poll::Ready(());
        }
        if self.scanner.place() == Place::Between {
            // When the request is answered, hyper does not read again at once: this does.
            let later = Instant::now() + REST.min(self.options.client.keep_alive);
            let _ = self.timer.poll(cx, later);
        }
        Poll::Pending
    }

    /// Whether nothing has come for so long that nothing need be kept ready.
    fn may_rest(&mut self, cx: &mut Context<'_>) -> bool {
        let between = self.scanner.place() == Place::Between && self.buffer.is_empty();
        let idle = self
            .link
            .idle_since()
            .filter(|_| between && self.blocked.is_none());
        let since = self.awake.zip(idle).map(|(awake, idle)| awake.max(idle));
        since.is_some_and(|since| self.timer.poll(cx, since + REST).is_ready())
    }

    /// Reads, and looks at what has come. Afterwards there is something that passes, or the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.passes == 0 && self.input == Input::Open {
            if !self.buffer.is_empty() {
                self.look()?;
                if self.passes > 0 {
                    break;
                }
            }
            if self.scanner.place() == Place::Held {
                let raw = ready!(self.link.poll_released(cx));
                self.scanner.release(raw);
                continue;
            }
            let before = self.buffer.len();
            match poll_read_buf(&mut self.io, cx, &mut self.buffer) {
                Poll::Ready(read) => read?,
                Poll::Pending => return self.poll_patience(cx).map(Ok),
            }
            self.has_read(before, self.buffer.len());
        }
        Poll::Ready(Ok(()))
    }

    fn has_read(&mut self, before: usize, after: usize) {
        if before == after {
            self.input = Input::Ended;
        } else if before == 0 {
            // A head has to come whole in its time, however many reads that takes.
            self.since = None;
        }
    }

    /// Finds out how much of the buffer passes.
    fn look(&mut self) -> io::Result<()> {
        match self.scanner.look(&self.buffer) {
            Ok(passes) => {
                self.passes = passes;
                self.has_passed(passes);
            }
            Err(Wrong::Head(status)) => {
                self.link.refuse(status, self.scanner.heads());
                self.buffer = BytesMut::from(REFUSED);
                self.passes = REFUSED.len();
                self.input = Input::Refused;
            }
            Err(Wrong::Body) => {
                self.input = Input::Ended;
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(())
    }

    fn has_passed(&mut self, passes: usize) {
        if passes > 0 {
            self.since = None;
            self.fresh = false;
            self.link.set_head(self.scanner.head());
        }
        if self.scanner.place() == Place::Held {
            self.link.hold();
        }
    }

    /// Reads straight into the parser's buffer: mostly a head comes whole.
    fn poll_direct(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<bool>> {
        let before = out.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, out))?;
        let read = &out.filled()[before..];
        if read.is_empty() {
            self.input = Input::Ended;
            return Poll::Ready(Ok(true));
        }
        self.since = None;
        let passes = self.scanner.look(read).unwrap_or(0);
        if passes < read.len() {
            self.buffer.extend_from_slice(&read[passes..]);
            out.set_filled(before + passes);
        }
        self.has_passed(passes);
        Poll::Ready(Ok(passes > 0))
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let now = Instant::now();
        let (end, mut pause) = *self.linger.get_or_insert((now + LINGER.0, now + LINGER.1));
        let mut waste = [0; 1024];
        loop {
            let mut waste = ReadBuf::new(&mut waste);
            match Pin::new(&mut self.io).poll_read(cx, &mut waste) {
                Poll::Ready(Ok(())) if !waste.filled().is_empty() => {
                    pause = Instant::now() + LINGER.1;
                    self.linger = Some((end, pause));
                    if Instant::now() >= end {
                        return Poll::Ready(Ok(()));
                    }
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return self.timer.poll(cx, pause.min(end)).map(Ok),
            }
        }
    }

    /// A write that waits is over after a while.
    fn written<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if write.is_ready() {
            self.blocked = None;
            return write;
        }
        let since = *self.blocked.get_or_insert_with(Instant::now);
        ready!(self.timer.poll(cx, since + self.options.send_timeout));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

fn poll_read_buf<Io: AsyncRead + Unpin>(
    io: &mut Io,
    cx: &mut Context<'_>,
    buffer: &mut BytesMut,
) -> Poll<io::Result<()>> {
    let mut piece = [0; 4096];
    let mut piece = ReadBuf::new(&mut piece);
    ready!(Pin::new(io).poll_read(cx, &mut piece))?;
    buffer.extend_from_slice(piece.filled());
    Poll::Ready(Ok(()))
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guard<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let open = this.input == Input::Open && this.scanner.place() != Place::Held;
        if open && this.buffer.is_empty() {
            match this.poll_direct(cx, out) {
                Poll::Ready(Ok(false)) => {}
                Poll::Ready(Ok(true)) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return this.poll_patience(cx).map(Ok),
            }
        }
        ready!(this.poll_fill(cx))?;
        if this.passes == 0 && this.input == Input::Refused {
            return Poll::Pending;
        }
        let some = this.passes.min(out.remaining());
        out.put_slice(&this.buffer[..some]);
        this.buffer.advance(some);
        this.passes -= some;
        if this.buffer.is_empty() {
            // Its memory goes too.
            this.buffer = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.written(cx, write)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = poll_write_pieces(Pin::new(&mut self.io), cx, pieces);
        self.written(cx, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flush = Pin::new(&mut self.io).poll_flush(cx);
        self.written(cx, flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            let shutdown = Pin::new(&mut self.io).poll_shutdown(cx);
            ready!(self.written(cx, shutdown))?;
        }
        let unread = self.scanner.place() == Place::Body || !self.buffer.is_empty();
        if unread || self.input == Input::Refused {
            return self.poll_linger(cx);
        }
        Poll::Ready(Ok(()))
    }
}
