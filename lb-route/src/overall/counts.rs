//! What is counted of one key, and what follows from it.

/// What one proxy has let in of a key: in a window, and in the one before it.
///
/// Of two that one proxy has told, [`Counts::merge`] makes what it has told last: in whichever
/// order they come, and however often.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Counts {
    /// Number of the window: time since 1970, divided by its length.
    pub window: u64,
    /// Requests in it.
    pub now: u32,
    /// Requests in the one before.
    pub before: u32,
}

impl Counts {
    /// As they are seen from a window: requests in it, and in the one before.
    pub(super) fn seen_from(self, window: u64) -> (u32, u32) {
        match self.window.checked_sub(window) {
            Some(0) => (self.now, self.before),
            // Its clock is ahead.
            Some(1) => (self.before, 0),
            Some(_) => (0, 0),
            None if self.window + 1 == window => (0, self.now),
            None => (0, 0),
        }
    }

    /// Takes in what was told by the same proxy.
    pub(super) fn merge(&mut self, told: Self) {
        let window = self.window.max(told.window);
        let (one, other) = (self.seen_from(window), told.seen_from(window));
        *self = Self {
            window,
            now: one.0.max(other.0),
            before: one.1.max(other.1),
        };
    }

    /// Counts a request in a window.
    pub(super) fn add(&mut self, window: u64) {
        // A clock that was set back by more than a window begins anew.
        if self.window > window + 1 {
            *self = Self::default();
        }
        self.merge(Self {
            window,
            ..Self::default()
        });
        let count = match self.window == window {
            true => &mut self.now,
            false => &mut self.before,
        };
        *count = count.saturating_add(1);
    }

    /// Whether they matter in a window still, or will in the next.
    pub(super) fn is_in_force(self, window: u64) -> bool {
        self.window > window || self.seen_from(window) != (0, 0)
    }
}

/// Whether one request more is within a limit: `process_sample` of lua-resty-global-throttle 0.2
/// (lib/resty/global_throttle/sliding_window.lua). The window before counts by as much of it as is
/// within one window's length from now, and no more than the limit.
pub(super) fn is_within(limit: u32, (now, before): (u64, u64), passed: u64, length: u64) -> bool {
    let limit = u128::from(limit);
    let of_before = u128::from(before).min(limit) * u128::from(length.saturating_sub(passed));
    of_before + u128::from(now) * u128::from(length) < limit * u128::from(length)
}
