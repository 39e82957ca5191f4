//! Connections whose protocol was changed (RFC 9110, section 7.8): bytes go both ways.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional_with_sizes},
    time::Instant,
};

use crate::{
    record::Entry,
    upstream::{Connect, Parts},
};

/// Bytes that are on their way in a direction.
const BUFFER: usize = 8 * 1024;

/// The other end of a connection whose protocol was changed.
pub(crate) struct Tunnel<C: Connect> {
    /// The endpoint.
    pub(crate) upstream: Parts<C::Io>,
    /// How long neither of both may be silent: `proxy_read_timeout` counts for these too.
    pub(crate) patience: Duration,
    /// Ends with the tunnel.
    pub(crate) entry: Box<Entry>,
}

impl<C: Connect> Tunnel<C> {
    /// Carries bytes until both ends have closed, or one broke, or nothing came for too long.
    pub(super) async fn run<Io>(mut self, client: Io, read: BytesMut)
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        let clock = Arc::new(Clock {
            beginning: Instant::now(),
            last: AtomicU64::new(0),
        });
        let mut client = Watched {
            io: client,
            clock: clock.clone(),
            read: 0,
        };
        let mut upstream = Watched {
            io: self.upstream.io,
            clock: clock.clone(),
            read: self.upstream.read.len() as u64,
        };
        let carried = async {
            upstream.write_all(&read).await?;
            client.write_all(&self.upstream.read).await?;
            copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER, BUFFER).await
        };
        tokio::select! {
            // An end that broke is an end.
            _ = carried => {}
            () = clock.silence(self.patience) => {}
        }
        self.entry.sends(upstream.read);
        self.entry.record.request_length += client.read + read.len() as u64;
    }
}

struct Clock {
    beginning: Instant,
    last: AtomicU64,
}

impl Clock {
    /// Until nothing has been read for so long.
    async fn silence(&self, patience: Duration) {
        loop {
            let last = Duration::from_millis(self.last.load(Relaxed));
            let end = self.beginning + last + patience;
            if Instant::now() >= end {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

/// A connection whose reads are noted.
struct Watched<Io> {
    io: Io,
    clock: Arc<Clock>,
    read: u64,
}

impl<Io: AsyncRead + Unpin> AsyncRead for Watched<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, out))?;
        self.read += (out.filled().len() - before) as u64;
        // 64 bits are enough for milliseconds.
        let now = self.clock.beginning.elapsed().as_millis() as u64;
        self.clock.last.store(now, Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Watched<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
