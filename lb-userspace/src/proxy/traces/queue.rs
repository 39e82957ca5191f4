//! Spans that wait to be sent: whoever has some never waits.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use lb_route::globals::Collector;
use tokio::sync::Notify;

use super::messages::Span;

/// Spans that wait, and what became of others.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Vec<Span>>,
    ready: Notify,
    /// By [`Fate`].
    counts: [AtomicU64; FATES.len()],
}

/// What becomes of a span.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// The collector has it.
    Sent,
    /// Too many waited, or the proxy ended before the collector took it.
    Lost,
    /// The collector does not want it.
    Rejected,
}

/// All, with their names in metrics.
pub(super) const FATES: [(&str, Fate); 3] = [
    ("sent", Fate::Sent),
    ("lost", Fate::Lost),
    ("rejected", Fate::Rejected),
];

impl Queue {
    /// Takes spans, as far as there is room.
    pub(super) fn put(&self, mut spans: Vec<Span>, settings: &Collector) {
        let mut waiting = self.waiting();
        let room = settings.queue.saturating_sub(waiting.len());
        let lost = spans.len().saturating_sub(room);
        spans.truncate(room);
        waiting.append(&mut spans);
        let is_ready = waiting.len() >= settings.batch;
        drop(waiting);
        if lost > 0 {
            self.count(Fate::Lost, lost as u64);
        }
        if is_ready {
            self.ready.notify_one();
        }
    }

    /// The spans that have waited longest: so many at most.
    pub(super) fn take(&self, most: usize) -> Vec<Span> {
        let mut waiting = self.waiting();
        let most = most.min(waiting.len());
        let rest = waiting.split_off(most);
        std::mem::replace(&mut waiting, rest)
    }

    /// Waits until there are as many as are sent together.
    pub(super) async fn is_ready(&self) {
        self.ready.notified().await;
    }

    /// This became of so many.
    pub(super) fn count(&self, fate: Fate, spans: u64) {
        self.counts[fate as usize].fetch_add(spans, Relaxed);
    }

    /// Of how many this became.
    pub(super) fn counted(&self, fate: Fate) -> u64 {
        self.counts[fate as usize].load(Relaxed)
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Span>> {
        // A panic under the lock would leave out a span, and nothing wrong.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn spans(names: &[&str]) -> Vec<Span> {
        let span = |name: &&str| Span {
            name: (*name).to_owned(),
            ..Span::default()
        };
        names.iter().map(span).collect()
    }

    #[tokio::test]
    async fn what_comes_beyond_is_lost() {
        let settings = Collector {
            queue: 3,
            batch: 3,
            ..lb_route::globals::Globals::default().collector
        };
        let queue = Queue::default();
        let names = |most| {
            let spans = queue.take(most).into_iter();
            spans.map(|span| span.name).collect::<Vec<_>>()
        };
        queue.put(spans(&["a", "b"]), &settings);
        let soon = Duration::from_millis(20);
        let ready = tokio::time::timeout(soon, queue.is_ready()).await;
        assert!(ready.is_err(), "two are not three");
        queue.put(spans(&["c", "d"]), &settings);
        queue.is_ready().await;
        assert_eq!(queue.counted(Fate::Lost), 1);
        assert_eq!(names(2), ["a", "b"]);
        queue.put(spans(&["e", "f", "g"]), &settings);
        assert_eq!(names(9), ["c", "e", "f"]);
        assert_eq!(queue.counted(Fate::Lost), 2);
        assert_eq!(names(9), [""; 0]);
    }
}
