//! Where connections rest.

use std::{
    collections::{BTreeSet, HashMap},
    future::poll_fn,
    io,
    os::fd::RawFd,
    task::{Context, Poll, ready},
    time::Duration,
};

use mio::{Events, Interest, Token, unix::SourceFd};
use tokio::{io::unix::AsyncFd, time::Instant};

use super::Counted;
use crate::{rest::Resting, timer::Timer};

/// Events that are taken from the kernel at once.
const EVENTS: usize = 256;

/// A connection that rests.
pub(super) struct Seat {
    pub(super) resting: Box<dyn Resting>,
    pub(super) counted: Counted,
}

/// Connections that rest, each until something comes from its client, or its time is over. They
/// have an epoll of their own, which is one descriptor to the runtime.
pub(super) struct Room {
    poll: AsyncFd<mio::Poll>,
    events: Events,
    seats: HashMap<RawFd, Seat>,
    ends: BTreeSet<(Instant, RawFd)>,
    /// Those to which something has come.
    called: Vec<RawFd>,
    timer: Timer,
}

impl Room {
    /// An empty one.
    ///
    /// # Errors
    /// The process has no more files.
    pub(super) fn new() -> io::Result<Self> {
        let poll = mio::Poll::new()?;
        // SAFETY: the descriptor is open, and it is the poll's own as long as that lives.
        let poll = unsafe { AsyncFd::register_with_interest(poll, tokio::io::Interest::READABLE) };
        Ok(Self {
            poll: poll?,
            events: Events::with_capacity(EVENTS),
            seats: HashMap::new(),
            ends: BTreeSet::new(),
            called: Vec::new(),
            timer: Timer::default(),
        })
    }

    /// Takes a connection in. What has come to it meanwhile is not missed: the kernel tells of it
    /// when it is asked to.
    ///
    /// # Errors
    /// The kernel has no more memory to look after it: it ends.
    pub(super) fn take(&mut self, seat: Seat) -> io::Result<()> {
        let socket = seat.resting.socket();
        let token = Token(usize::try_from(socket).map_err(io::Error::other)?);
        let registry = self.poll.get_ref().registry();
        registry.register(&mut SourceFd(&socket), token, Interest::READABLE)?;
        self.ends.insert((seat.resting.until(), socket));
        self.seats.insert(socket, seat);
        Ok(())
    }

    /// Waits for one to which something has come, or whose time is over.
    pub(super) async fn leaves(&mut self) -> Seat {
        poll_fn(|cx| self.poll_leaves(cx)).await
    }

    fn poll_leaves(&mut self, cx: &mut Context<'_>) -> Poll<Seat> {
        loop {
            while let Some(socket) = self.called.pop() {
                if let Some(seat) = self.remove(socket) {
                    return Poll::Ready(seat);
                }
            }
            if let Some(&(end, socket)) = self.ends.first()
                && self.timer.poll(cx, end).is_ready()
            {
                self.called.push(socket);
                continue;
            }
            // It is there as long as its descriptor.
            let Ok(mut ready) = ready!(self.poll.poll_read_ready_mut(cx)) else {
                return Poll::Pending;
            };
            let polled = ready
                .get_inner_mut()
                .poll(&mut self.events, Some(Duration::ZERO));
            if polled.is_err() || self.events.is_empty() {
                ready.clear_ready();
            }
            let sockets = self.events.iter().map(|event| event.token().0);
            self.called
                .extend(sockets.filter_map(|socket| RawFd::try_from(socket).ok()));
        }
    }

    /// Nobody rests any more.
    pub(super) fn empty(&mut self) -> Vec<Seat> {
        let sockets: Vec<RawFd> = self.seats.keys().copied().collect();
        sockets
            .into_iter()
            .filter_map(|socket| self.remove(socket))
            .collect()
    }

    fn remove(&mut self, socket: RawFd) -> Option<Seat> {
        let seat = self.seats.remove(&socket)?;
        self.ends.remove(&(seat.resting.until(), socket));
        // It is known, as its descriptor is open.
        let _ = self
            .poll
            .get_ref()
            .registry()
            .deregister(&mut SourceFd(&socket));
        Some(seat)
    }
}
