//! Connections of HTTP/1.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::{Arc, PoisonError},
    task::{Poll, Waker},
};

use bytes::BytesMut;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::watch,
};

use crate::{
    client::{Phase, Visit, bounds, guard::Guard, handle, scan::Scanner},
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

/// Serves a connection to its end. While nothing comes, nothing is kept of it but itself: most
/// connections wait most of the time, and hyper's buffers and the place for an answer are large.
pub(super) fn serve<C, Io>(
    visit: Arc<Visit<C>>,
    io: Io,
    read: BytesMut,
    phase: watch::Receiver<Phase>,
) -> impl Future<Output = ()> + Send
where
    C: Connect,
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (line, head) = bounds(&visit.options);
    let scanner = Scanner::new(line, head);
    let owner = (visit.link.clone(), visit.options.clone());
    // A future has room for each place where a value has been: of this one it is a pointer.
    let guard = Box::new(Guard::new(io, read, scanner, owner));
    to_the_end(visit, guard, phase)
}

async fn to_the_end<C, Io>(
    visit: Arc<Visit<C>>,
    mut guard: Box<Guard<Io>>,
    mut phase: watch::Receiver<Phase>,
) where
    C: Connect,
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    loop {
        // What rests is not to hold the place for it.
        let (back, rest, end) = Box::pin(talk(&visit, guard, &mut phase)).await;
        guard = back;
        match end {
            End::Over => return,
            End::Rests if rest.is_empty() => {
                let comes = poll_fn(|cx| guard.poll_comes(cx));
                if until(&visit, &mut phase, pin!(comes), || false).await != End::Ended {
                    return;
                }
            }
            End::Ended | End::Rests => {
                return Box::pin(finish(&visit, guard, &rest, phase)).await;
            }
        }
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
    visit.link.set_rests(false);
    let service = service_fn(|request| handle(visit.clone(), request));
    // The guard has the timeouts, and knows the bounds of heads.
    let mut connection = http1::Builder::new()
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(guard), service);
    let end = until(visit, phase, Pin::new(&mut connection), || {
        visit.link.rests()
    })
    .await;
    let parts = connection.into_parts();
    // Nothing would keep all the memory that it is a piece of.
    let read = Some(parts.read_buf).filter(|read| !read.is_empty());
    (parts.io.into_inner(), read.unwrap_or_default(), end)
}

/// Waits until something ends, or it rests, or the proxy ends.
async fn until<C: Connect, F: Future>(
    visit: &Visit<C>,
    phase: &mut watch::Receiver<Phase>,
    mut what: Pin<&mut F>,
    rests: impl Fn() -> bool,
) -> End {
    loop {
        let now = *phase.borrow_and_update();
        match now {
            Phase::Open => {}
            // Requests that are answered end the connection with their answers, and so does the
            // next one.
            Phase::Draining => visit.link.leave(),
            Phase::Over => return End::Over,
        }
        if let Some(end) = in_phase(phase, what.as_mut(), &rests).await {
            return end;
        }
    }
}

/// What ends the wait, if it is not another phase. The phase is asked for only when it has changed,
/// or the task has another waker: that takes a lock that all connections share.
async fn in_phase<F: Future>(
    phase: &mut watch::Receiver<Phase>,
    mut what: Pin<&mut F>,
    rests: &impl Fn() -> bool,
) -> Option<End> {
    let seen = phase.clone();
    let mut changed = pin!(phase.changed());
    let mut known: Option<Waker> = None;
    poll_fn(|cx| {
        if what.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(End::Ended));
        }
        if rests() {
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
