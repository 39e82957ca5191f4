//! Connections that rest: most have no request most of the time, and a task of the runtime, with
//! what it knows of a socket, is larger than what has to be kept of one.

use std::{
    io::{self, ErrorKind, IoSlice},
    os::fd::{AsRawFd as _, RawFd},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};

/// Serves a connection until it ends, or rests.
pub type Serving = Pin<Box<dyn Future<Output = Option<Box<dyn Resting>>> + Send>>;

/// A connection without a request, and without a task.
pub trait Resting: Send {
    /// Its socket, which the runtime does not know: something may come there.
    fn socket(&self) -> RawFd;
    /// When it has rested for long enough, and ends.
    fn until(&self) -> Instant;
    /// Serves it again.
    fn wake(self: Box<Self>) -> Serving;
}

/// The socket of a client's connection, if that may rest.
pub type SocketOf<Io> = fn(&mut Io) -> Option<&mut Socket>;

/// A client's socket: the runtime's, unless its connection rests.
#[derive(Debug)]
pub struct Socket(State);

#[derive(Debug)]
enum State {
    /// In a box: there are more that are asleep.
    Awake(Box<TcpStream>),
    Asleep(std::net::TcpStream),
    /// It could be made neither of both.
    Lost,
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self(State::Awake(Box::new(stream)))
    }
}

impl Socket {
    /// Takes it from the runtime. Returns its descriptor.
    ///
    /// # Errors
    /// The runtime does not let go of it: the connection has ended.
    pub(crate) fn sleep(&mut self) -> io::Result<RawFd> {
        let stream = match std::mem::replace(&mut self.0, State::Lost) {
            State::Awake(stream) => stream.into_std()?,
            State::Asleep(stream) => stream,
            State::Lost => return Err(ErrorKind::NotConnected.into()),
        };
        let descriptor = stream.as_raw_fd();
        self.0 = State::Asleep(stream);
        Ok(descriptor)
    }

    /// Gives it back to the runtime.
    ///
    /// # Errors
    /// The runtime does not take it: the connection has ended.
    pub(crate) fn wake(&mut self) -> io::Result<()> {
        let stream = match std::mem::replace(&mut self.0, State::Lost) {
            State::Awake(stream) => stream,
            State::Asleep(stream) => Box::new(TcpStream::from_std(stream)?),
            State::Lost => return Err(ErrorKind::NotConnected.into()),
        };
        self.0 = State::Awake(stream);
        Ok(())
    }

    fn awake(self: Pin<&mut Self>) -> io::Result<Pin<&mut TcpStream>> {
        match &mut self.get_mut().0 {
            State::Awake(stream) => Ok(Pin::new(&mut **stream)),
            State::Asleep(_) | State::Lost => Err(ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.awake()?.poll_read(cx, out)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.awake()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.awake()?.poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.awake()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.awake()?.poll_shutdown(cx)
    }
}
