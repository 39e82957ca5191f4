//! Connections of HTTP/1.

use std::{
    future::poll_fn,
    io,
    os::fd::RawFd,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Poll, Waker},
};

use bytes::BytesMut;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::watch,
    time::Instant,
};

use crate::{
    client::{Link, Peer, Phase, Visit, bounds, guard::Guard, handle, scan::Scanner},
    options::Options,
    proxy::Proxy,
    rest::{Resting, Serving, Socket, SocketOf},
    upstream::Connect,
};

/// What ends the wait for a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// It has ended.
    Ended,
    /// Nothing has come for a while.
    Rests,
    /// The proxy has ended.
    Over,
}

/// Serves a connection to its end, or until it rests: most connections wait most of the time, and
/// hyper's buffers and the place for an answer are large.
pub(super) async fn serve<C, Io>(
    visit: Arc<Visit<C>>,
    (io, socket): (Io, SocketOf<Io>),
    read: BytesMut,
    mut phase: watch::Receiver<Phase>,
) -> Option<Box<dyn Resting>>
where
    C: Connect,
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (line, head) = bounds(&visit.options);
    let scanner = Scanner::new(line, head, visit.requests.load(Relaxed));
    let owner = (visit.link.clone(), visit.options.clone());
    // A future has room for each place where a value has been: of this one it is a pointer.
    let guard = Box::new(Guard::new((io, socket), read, scanner, owner));
    let (mut guard, rest, end) = talk(&visit, guard, &mut phase).await;
    match end {
        End::Over => None,
        End::Rests if rest.is_empty() => {
            let until = guard.deadline()?;
            let asleep = Asleep::new(&visit, guard.into_parts().0, phase, (socket, until))?;
            Some(Box::new(asleep))
        }
        End::Ended | End::Rests => {
            finish(&visit, guard, &rest, phase).await;
            None
        }
    }
}

/// A connection that rests: what is known of its [`Visit`].
struct Asleep<C: Connect, Io> {
    io: Io,
    descriptor: RawFd,
    socket: SocketOf<Io>,
    since: Instant,
    until: Instant,
    phase: watch::Receiver<Phase>,
    proxy: Arc<Proxy<C>>,
    options: Arc<Options>,
    peer: Peer,
    number: u64,
    requests: u64,
}

impl<C, Io> Asleep<C, Io>
where
    C: Connect,
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    /// `None` where it cannot rest: it ends.
    fn new(
        visit: &Visit<C>,
        mut io: Io,
        phase: watch::Receiver<Phase>,
        (socket, until): (SocketOf<Io>, Instant),
    ) -> Option<Self> {
        Some(Self {
            descriptor: socket(&mut io)?.sleep().ok()?,
            io,
            socket,
            since: visit.link.idle_since()?,
            until,
            phase,
            proxy: visit.proxy.clone(),
            options: visit.options.clone(),
            peer: visit.peer.clone(),
            number: visit.number,
            requests: visit.requests.load(Relaxed),
        })
    }
}

impl<C, Io> Resting for Asleep<C, Io>
where
    C: Connect,
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    fn socket(&self) -> RawFd {
        self.descriptor
    }

    fn until(&self) -> Instant {
        self.until
    }

    fn wake(mut self: Box<Self>) -> Serving {
        let woken = (self.socket)(&mut self.io).map(Socket::wake);
        if !matches!(woken, Some(Ok(()))) {
            return Box::pin(async { None });
        }
        let visit = Arc::new(Visit {
            proxy: self.proxy,
            options: self.options,
            peer: self.peer,
            number: self.number,
            requests: AtomicU64::new(self.requests),
            link: Arc::new(Link::new(self.since)),
            tunnel: Mutex::new(None),
        });
        let client = (self.io, self.socket);
        Box::pin(serve(visit, client, BytesMut::new(), self.phase))
    }
}

/// Answers requests, until the connection ends or rests: with it comes what hyper has read of
/// another protocol.
async fn talk<C, Io>(
    visit: &Arc<Visit<C>>,
    guard: Box<Guard<Io>>,
    phase: &mut watch::Receiver<Phase>,
) -> (Box<Guard<Io>>, bytes::Bytes, End)
where
    C: Connect,
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(|request| handle(visit.clone(), request));
    // The guard has the timeouts, and knows the bounds of heads.
    let mut connection = http1::Builder::new()
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(guard), service);
    let end = until(&visit.link, phase, Pin::new(&mut connection)).await;
    let parts = connection.into_parts();
    // Nothing would keep all the memory that it is a piece of.
    let read = Some(parts.read_buf).filter(|read| !read.is_empty());
    (parts.io.into_inner(), read.unwrap_or_default(), end)
}

/// Waits until something ends, or it rests, or the proxy ends.
async fn until<F: Future>(
    link: &Link,
    phase: &mut watch::Receiver<Phase>,
    mut what: Pin<&mut F>,
) -> End {
    loop {
        let now = *phase.borrow_and_update();
        match now {
            Phase::Open => {}
            // Requests that are answered end the connection with their answers, and so does the
            // next one.
            Phase::Draining => link.leave(),
            Phase::Over => return End::Over,
        }
        if let Some(end) = in_phase(link, phase, what.as_mut()).await {
            return end;
        }
    }
}

/// What ends the wait, if it is not another phase. The phase is asked for only when it has changed,
/// or the task has another waker: that takes a lock that all connections share.
async fn in_phase<F: Future>(
    link: &Link,
    phase: &mut watch::Receiver<Phase>,
    mut what: Pin<&mut F>,
) -> Option<End> {
    let seen = phase.clone();
    let mut changed = pin!(phase.changed());
    let mut known: Option<Waker> = None;
    poll_fn(|cx| {
        if what.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(End::Ended));
        }
        if link.rests() {
            return Poll::Ready(Some(End::Rests));
        }
        let same = known
            .as_ref()
            .is_some_and(|known| known.will_wake(cx.waker()));
        if same && !seen.has_changed().unwrap_or(true) {
            return Poll::Pending;
        }
        known = Some(cx.waker().clone());
        // As long as there is a proxy, there is somebody to tell.
        changed.as_mut().poll(cx).map(|_| None)
    })
    .await
}

/// Ends a connection, or carries another protocol.
async fn finish<C, Io>(
    visit: &Visit<C>,
    mut guard: Box<Guard<Io>>,
    rest: &[u8],
    mut phase: watch::Receiver<Phase>,
) where
    C: Connect,
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let tunnel = visit
        .tunnel
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let Some(tunnel) = tunnel else {
        // Nobody is there to hear of an error.
        let _: io::Result<()> = guard.shutdown().await;
        return;
    };
    let (io, read) = guard.into_parts();
    let read = BytesMut::from_iter(rest.iter().chain(&read));
    // So that the tasks of other connections are small.
    let carried = Box::pin(tunnel.run(io, read));
    tokio::select! {
        () = carried => {}
        _ = phase.wait_for(|phase| *phase == Phase::Over) => {}
    }
}
