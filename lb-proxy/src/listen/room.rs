//! Where connections rest.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll, ready},
    time::Duration,
};

use mio::{Events, Interest, Token, unix::SourceFd};
use slab::Slab;
use tokio::{io::unix::AsyncFd, time::Instant};

use super::Counted;
use crate::{rest::Resting, timer::Timer};

/// Events that are taken from the kernel at once.
const EVENTS: usize = 256;
/// Whose time is over is looked for so seldom, as all are looked at.
const SWEEP: Duration = Duration::from_millis(250);

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
    /// Each with the end of its time.
    seats: Slab<(Seat, Instant)>,
    /// Those that have to leave.
    called: Vec<usize>,
    /// When the time of the first is over, or later by [`SWEEP`] at most.
    sweep: Option<Instant>,
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
            seats: Slab::new(),
            called: Vec::new(),
            sweep: None,
            timer: Timer::default(),
        })
    }

    /// Takes a connection in. What has come to it meanwhile is not missed: the kernel tells of it
    /// when it is asked to.
    ///
    /// # Errors
    /// The kernel has no more memory to look after it: it ends.
    pub(super) fn take(&mut self, seat: Seat) -> io::Result<()> {
        let place = self.seats.vacant_entry();
        self.poll.get_ref().registry().register(
            &mut SourceFd(&seat.resting.socket()),
            Token(place.key()),
            Interest::READABLE,
        )?;
        let until = seat.resting.until();
        self.sweep = Some(self.sweep.map_or(until, |sweep| sweep.min(until)));
        place.insert((seat, until));
        Ok(())
    }

    /// Waits for one to which something has come, or whose time is over.
    pub(super) async fn leaves(&mut self) -> Seat {
        poll_fn(|cx| self.poll_leaves(cx)).await
    }

    fn poll_leaves(&mut self, cx: &mut Context<'_>) -> Poll<Seat> {
        loop {
            while let Some(place) = self.called.pop() {
                if let Some(seat) = self.remove(place) {
                    return Poll::Ready(seat);
                }
            }
            if let Some(sweep) = self.sweep
                && self.timer.poll(cx, sweep).is_ready()
            {
                self.call_those_whose_time_is_over();
                continue;
            }
            let Ok(mut ready) = ready!(self.poll.poll_read_ready_mut(cx)) else {
                // The runtime ends.
                return Poll::Pending;
            };
            let events = &mut self.events;
            let polled = ready.get_inner_mut().poll(events, Some(Duration::ZERO));
            if polled.is_err() || events.is_empty() {
                ready.clear_ready();
            }
            self.called
                .extend(events.iter().map(|event| event.token().0));
        }
    }

    fn call_those_whose_time_is_over(&mut self) {
        let now = Instant::now();
        self.sweep = None;
        for (place, (_, until)) in &self.seats {
            if *until <= now {
                self.called.push(place);
            } else {
                let next = self.sweep.map_or(*until, |sweep| sweep.min(*until));
                self.sweep = Some(next.max(now + SWEEP));
            }
        }
    }

    /// Some of those that have rested for longest end, so that others have their places: as many as
    /// nginx takes at once (`ngx_drain_connections`).
    pub(super) fn make_places(&mut self) {
        let ends = self.seats.iter().map(|(place, (_, until))| (*until, place));
        let mut ends: Vec<(Instant, usize)> = ends.collect();
        let some = (ends.len() / 8).clamp(1, 32).min(ends.len());
        if some < ends.len() {
            ends.select_nth_unstable(some);
        }
        for (_, place) in ends.drain(..some) {
            self.remove(place);
        }
    }

    /// Nobody rests any more.
    pub(super) fn empty(&mut self) -> Vec<Seat> {
        let places: Vec<usize> = self.seats.iter().map(|(place, _)| place).collect();
        places
            .into_iter()
            .filter_map(|place| self.remove(place))
            .collect()
    }

    /// One that has left already may have been called once more, and another be in its place:
    /// that one leaves for nothing, and comes back.
    fn remove(&mut self, place: usize) -> Option<Seat> {
        let (seat, _) = self.seats.try_remove(place)?;
        let registry = self.poll.get_ref().registry();
        // It is known, as its descriptor is open.
        let _ = registry.deregister(&mut SourceFd(&seat.resting.socket()));
        Some(seat)
    }
}
