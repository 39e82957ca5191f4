//! Connections of HTTP/2.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
};

use bytes::BytesMut;
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::Instant,
};

use crate::{
    client::{Phase, Visit, bounds, guard::Guard, handle, scan::Scanner},
    timer::Timer,
    upstream::Connect,
};

/// Serves a connection to its end.
pub(super) async fn serve<C, Io>(
    visit: Arc<Visit<C>>,
    io: Io,
    read: BytesMut,
    mut phase: watch::Receiver<Phase>,
) where
    C: Connect,
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let options = visit.options.clone();
    let owner = (visit.link.clone(), options.clone());
    let guard = Guard::new((io, |_| None), read, Scanner::raw(), owner);
    let service = service_fn(|request| handle(visit.clone(), request));
    let (_, heads) = bounds(&options);
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.client.http2_streams)
        .max_header_list_size(u32::try_from(heads).unwrap_or(u32::MAX))
        .serve_connection(TokioIo::new(guard), service);
    let mut connection = pin!(connection);
    let mut idle = pin!(idle(&visit));
    let mut leaving = false;
    loop {
        let now = *phase.borrow_and_update();
        match now {
            Phase::Over => return,
            Phase::Draining if !leaving => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
            Phase::Open | Phase::Draining => {}
        }
        tokio::select! {
            biased;
            _ = connection.as_mut() => return,
            _ = phase.changed() => {}
            () = idle.as_mut(), if !leaving => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Until a connection of HTTP/2 has had no request for long enough, or has had enough of them.
async fn idle<C: Connect>(visit: &Visit<C>) {
    let options = &visit.options.client;
    let mut timer = Timer::default();
    // This is polled whenever something happens on the connection.
    poll_fn(|cx| {
        if visit.requests.load(Relaxed) >= options.keep_alive_requests.into() {
            return Poll::Ready(());
        }
        let since = visit.link.idle_since().unwrap_or_else(Instant::now);
        timer.poll(cx, since + options.keep_alive)
    })
    .await;
}
