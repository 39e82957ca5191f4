//! What the two halves of a connection tell each other: the one that reads its bytes
//! ([`super::guard::Guard`]), and the one that answers its requests.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::Instant;

/// What is known of a connection. With HTTP/1 both halves run in one task, and with HTTP/2 only
/// the requests are counted: the order of these needs no care.
#[derive(Debug)]
pub(crate) struct Link {
    /// Status of the request behind those that have passed; 0 if there is none.
    refused: AtomicU16,
    passed: AtomicU64,
    head: AtomicU64,
    /// Requests that are being answered.
    requests: AtomicU64,
    /// Since when none is, in nanoseconds since the beginning.
    idle: AtomicU64,
    leaving: AtomicBool,
    rests: AtomicBool,
    held: Mutex<Held>,
    beginning: Instant,
}

#[derive(Debug, Default)]
enum Held {
    #[default]
    No,
    Waits(Option<Waker>),
    Released {
        raw: bool,
    },
}

impl Link {
    /// Of a connection that has had no request since then.
    pub(crate) fn new(beginning: Instant) -> Self {
        Self {
            refused: AtomicU16::new(0),
            passed: AtomicU64::new(0),
            head: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            idle: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
            rests: AtomicBool::new(false),
            held: Mutex::default(),
            beginning,
        }
    }

    /// The request after `passed` others is refused.
    pub(super) fn refuse(&self, status: http::StatusCode, passed: u64) {
        self.passed.store(passed, Relaxed);
        self.refused.store(status.as_u16(), Relaxed);
    }

    /// With what a request is refused; `number` counts from 1.
    pub(crate) fn refused(&self, number: u64) -> Option<http::StatusCode> {
        let status = http::StatusCode::from_u16(self.refused.load(Relaxed)).ok()?;
        (number > self.passed.load(Relaxed)).then_some(status)
    }

    /// The length of the head that came last.
    pub(super) fn set_head(&self, bytes: usize) {
        self.head.store(bytes as u64, Relaxed);
    }

    /// The length of the head that came last.
    pub(crate) fn head(&self) -> u64 {
        self.head.load(Relaxed)
    }

    /// A request is being answered.
    pub(crate) fn begin(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// It has been, now.
    pub(crate) fn end(&self, now: Instant) {
        // 64 bits are 584 years.
        let now = now.duration_since(self.beginning).as_nanos() as u64;
        self.idle.store(now, Relaxed);
        self.requests.fetch_sub(1, Relaxed);
    }

    /// Since when no request is answered; `None` while one is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        if self.requests.load(Relaxed) > 0 {
            return None;
        }
        let since = Duration::from_nanos(self.idle.load(Relaxed));
        Some(self.beginning + since)
    }

    /// The proxy is to end.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Relaxed);
    }

    /// Whether the proxy is to end: the connection has no further request.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Relaxed)
    }

    /// Whether nothing has come for a while, and nothing is under way. When the proxy ends, it is
    /// waited for a last request.
    pub(super) fn rests(&self) -> bool {
        self.rests.load(Relaxed) && self.requests.load(Relaxed) == 0 && !self.is_leaving()
    }

    /// Nothing has come for a while.
    pub(super) fn rest(&self) {
        self.rests.store(true, Relaxed);
    }

    /// A request for another protocol has come: nothing more is read before it is answered.
    pub(super) fn hold(&self) {
        *self.lock() = Held::Waits(None);
    }

    /// Whether what follows such a request is another protocol, once that is known.
    pub(super) fn poll_released(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut held = self.lock();
        match &mut *held {
            Held::No => Poll::Ready(false),
            Held::Waits(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Held::Released { raw } => {
                let raw = *raw;
                *held = Held::No;
                Poll::Ready(raw)
            }
        }
    }

    /// Such a request is answered.
    pub(crate) fn release(&self, raw: bool) {
        let before = std::mem::replace(&mut *self.lock(), Held::Released { raw });
        if let Held::Waits(Some(waker)) = before {
            waker.wake();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
