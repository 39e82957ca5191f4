//! Problems on the log: each is said when it appears and when it goes, and many
//! at once are said as a number, so that ten thousand bad objects do not make
//! ten thousand lines.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::change::{Notice, ObjectKey};

/// A problem of an object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Told {
    /// The object, or the part of it, as it is shown.
    pub object: String,
    /// The object.
    pub key: ObjectKey,
    /// The reason, a label of the metric.
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
}

impl Told {
    /// A problem of an object.
    pub fn new(object: String, key: ObjectKey, reason: &'static str, message: String) -> Self {
        Self {
            object,
            key,
            reason,
            message,
        }
    }
}

/// A problem that stands, for `bascule status`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Standing {
    /// The object.
    pub object: String,
    /// The reason.
    pub reason: String,
    /// The sentence.
    pub message: String,
}

/// Lines in each window.
const LINES: u64 = 20;
/// A window, in ticks of a second.
const WINDOW: u64 = 10;
/// Standing problems that are shown.
const SHOWN: usize = 100;

/// What was said.
#[derive(Default, Debug)]
pub struct Fold {
    standing: BTreeSet<Told>,
    window: u64,
    lines: u64,
    last_failure: String,
}

impl Fold {
    /// Says what is new among all problems that stand now, and what is gone. Returns
    /// the new ones that it said.
    pub fn tell(&mut self, now: Vec<Told>, tick: u64) -> Vec<Notice> {
        let now: BTreeSet<Told> = now.into_iter().collect();
        let left = self.room(tick);
        let new: Vec<&Told> = now.difference(&self.standing).collect();
        let gone = self.standing.difference(&now).count();
        let room = left.min(new.len() as u64) as usize;
        let (said, folded) = new.split_at(room);
        self.lines += room as u64;
        for t in said {
            tracing::warn!(object = %t.object, reason = t.reason, "{}", t.message);
        }
        if !folded.is_empty() {
            let mut by_reason: BTreeMap<&str, usize> = BTreeMap::new();
            folded
                .iter()
                .for_each(|t| *by_reason.entry(t.reason).or_default() += 1);
            let text: Vec<String> = by_reason.iter().map(|(r, n)| format!("{r}: {n}")).collect();
            tracing::warn!(
                "{} more problems ({}): see `bascule status`",
                folded.len(),
                text.join(", ")
            );
        }
        if gone > 0 {
            tracing::info!("{gone} problems are gone, {} stand", now.len());
        }
        let notices = said.iter().map(|t| Notice {
            object: t.key.clone(),
            reason: t.reason,
            message: t.message.clone(),
        });
        let notices = notices.collect();
        self.standing = now;
        notices
    }

    /// Says that a write failed, unless it says the same as the last one did.
    pub fn failure(&mut self, message: &str, tick: u64) {
        if self.room(tick) == 0 || self.last_failure == message {
            return;
        }
        self.lines += 1;
        self.last_failure = message.to_owned();
        tracing::error!("{message}; it is tried again");
    }

    /// Lines that the window has left.
    fn room(&mut self, tick: u64) -> u64 {
        if tick / WINDOW != self.window {
            self.window = tick / WINDOW;
            self.lines = 0;
            self.last_failure.clear();
        }
        LINES.saturating_sub(self.lines)
    }

    /// The problems that stand, the first of them.
    pub fn standing(&self) -> Vec<Standing> {
        let all = self.standing.iter().take(SHOWN);
        all.map(|t| Standing {
            object: t.object.clone(),
            reason: t.reason.into(),
            message: t.message.clone(),
        })
        .collect()
    }

    /// How many problems stand.
    pub fn count(&self) -> usize {
        self.standing.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Kind;

    fn problems(range: std::ops::Range<usize>) -> Vec<Told> {
        let told = |i: usize| {
            let key = ObjectKey {
                kind: Kind::Service,
                namespace: "default".into(),
                name: format!("s{i}").into(),
            };
            Told::new(key.to_string(), key, "Bad", "is bad".into())
        };
        range.map(told).collect()
    }

    #[test]
    fn lines_are_bounded_in_each_window() {
        let mut fold = Fold::default();
        let notices = fold.tell(problems(0..5), 1);
        assert_eq!((fold.lines, fold.count()), (5, 5));
        let names: Vec<&str> = notices.iter().map(|n| &*n.object.name).collect();
        assert_eq!(names, ["s0", "s1", "s2", "s3", "s4"]);
        // The same again says nothing.
        assert_eq!(fold.tell(problems(0..5), 2), []);
        assert_eq!(fold.lines, 5);
        fold.tell(problems(0..1000), 3);
        assert_eq!((fold.lines, fold.count()), (LINES, 1000));
        assert_eq!(fold.standing().len(), SHOWN);
        fold.tell(problems(0..1003), WINDOW);
        assert_eq!(fold.lines, 3);
        fold.tell(Vec::new(), WINDOW);
        assert_eq!((fold.lines, fold.count()), (3, 0));
    }

    #[test]
    fn a_failure_that_repeats_is_said_once_in_a_window() {
        let mut fold = Fold::default();
        for tick in [1, 1, 2, 3] {
            fold.failure("map full", tick);
        }
        assert_eq!(fold.lines, 1);
        fold.failure("map full", WINDOW);
        assert_eq!((fold.lines, fold.window), (1, 1));
    }
}
