//! How fast an answer goes to its client (`limit-rate`, `limit-rate-after`).

use std::{
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use lb_route::settings::Limits;
use tokio::time::Instant;

use crate::timer::Timer;

/// What is sent of an answer in one piece lasts so long at its rate: an eighth of a second.
const PIECE: u64 = 8;

/// The rate of an answer: what may have been sent by a time is `after`, and the rate for each
/// second, of which the first is there from the beginning (`ngx_http_write_filter`). Unlike in
/// nginx it counts whether or not answers are buffered.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: u64,
    after: u64,
    sent: u64,
    begun: Instant,
    rest: Bytes,
    timer: Timer,
}

impl Pace {
    /// That of an answer which begins now, if there is one.
    pub(crate) fn new(limits: &Limits) -> Option<Self> {
        Some(Self {
            rate: limits.rate?.saturating_mul(1024),
            after: limits.rate_after.saturating_mul(1024),
            sent: 0,
            begun: Instant::now(),
            rest: Bytes::new(),
            timer: Timer::default(),
        })
    }

    /// Takes what is to be sent, after all that was taken before has been given.
    pub(crate) fn take(&mut self, bytes: Bytes) {
        self.rest = bytes;
    }

    /// Bytes that wait.
    pub(crate) fn waiting(&self) -> u64 {
        self.rest.len() as u64
    }

    /// What may be sent of those that wait; nothing if none does.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let waiting = self.waiting();
        if waiting == 0 {
            return Poll::Ready(None);
        }
        let piece = waiting.min((self.rate / PIECE).max(1));
        let beyond = (self.sent + piece).saturating_sub(self.after.saturating_add(self.rate));
        // Far below 2^52 bytes.
        let due = Duration::from_secs_f64(beyond as f64 / self.rate as f64);
        if self.begun.elapsed() < due {
            ready!(self.timer.poll(cx, self.begun + due));
        }
        self.sent += piece;
        // No more than waits.
        Poll::Ready(Some(self.rest.split_to(piece as usize)))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// Seconds until so many KiB are sent, in pieces of any size.
    async fn took(limits: &Limits, kilobytes: usize, taken: usize) -> f64 {
        let begun = Instant::now();
        let mut pace = Pace::new(limits).unwrap();
        let mut left = kilobytes * 1024;
        while left > 0 {
            let bytes = taken.min(left);
            left -= bytes;
            pace.take(vec![0; bytes].into());
            while poll_fn(|cx| pace.poll(cx)).await.is_some() {}
        }
        begun.elapsed().as_secs_f64()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_takes_its_time() {
        for (rate, rate_after, kilobytes, expected) in [
            (10, 0, 10, 0.0),
            (10, 0, 30, 2.0),
            (10, 100, 110, 0.0),
            (10, 100, 150, 4.0),
            (1, 0, 3, 2.0),
        ] {
            let limits = Limits {
                rate: Some(rate),
                rate_after,
                ..Limits::default()
            };
            for taken in [1000, 1 << 20] {
                let found = took(&limits, kilobytes, taken).await;
                let is_near = (found - expected).abs() < 0.05;
                assert!(is_near, "{rate} {rate_after} {kilobytes}: {found}");
            }
        }
        assert!(Pace::new(&Limits::default()).is_none());
    }
}
