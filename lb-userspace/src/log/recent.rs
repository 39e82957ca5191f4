//! The last lines of this process' log, for `bascule status` and `bascule sysdump`: a log on
//! standard error is somewhere else on every node, and is not there in its pod.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

/// A line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Line {
    /// When it was said.
    pub at: String,
    /// `ERROR`, `WARN`, `INFO`, `DEBUG` or `TRACE`.
    pub level: String,
    /// The module that said it.
    pub target: String,
    /// What it said, and its fields.
    pub message: String,
}

impl Line {
    /// Whether it tells of something that went wrong.
    pub fn is_bad(&self) -> bool {
        matches!(self.level.as_str(), "ERROR" | "WARN")
    }
}

/// Lines that are remembered.
const LINES: usize = 200;
/// Of these the last so many that tell of something wrong stay longer than others.
const BAD: usize = 50;
/// Bytes of a message; what is longer is cut.
const BYTES: usize = 1000;

struct Ring {
    lines: VecDeque<Line>,
    count: u64,
}

static RING: Mutex<Ring> = Mutex::new(Ring {
    lines: VecDeque::new(),
    count: 0,
});

fn ring() -> MutexGuard<'static, Ring> {
    // Lines are whole, whoever panicked.
    RING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Remembers a line.
pub(super) fn push(line: Line) {
    ring().push(line);
}

/// The lines, the oldest first.
pub fn lines() -> Vec<Line> {
    ring().lines.iter().cloned().collect()
}

/// How many there were.
pub fn count() -> u64 {
    ring().count
}

impl Ring {
    fn push(&mut self, mut line: Line) {
        let end = line.message.floor_char_boundary(BYTES);
        line.message.truncate(end);
        self.count += 1;
        self.lines.push_back(line);
        if self.lines.len() <= LINES {
            return;
        }
        let bad = self.lines.iter().filter(|line| line.is_bad()).count();
        let oldest = self
            .lines
            .iter()
            .position(|line| bad > BAD || !line.is_bad());
        self.lines.remove(oldest.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: &str, message: &str) -> Line {
        Line {
            at: String::new(),
            level: level.into(),
            target: "test".into(),
            message: message.into(),
        }
    }

    #[test]
    fn what_went_wrong_outlives_what_went_well() {
        let mut ring = Ring {
            lines: VecDeque::new(),
            count: 0,
        };
        ring.push(line("ERROR", "first"));
        for n in 0..1000 {
            ring.push(line("INFO", &n.to_string()));
        }
        assert_eq!((ring.lines.len(), ring.count), (LINES, 1001));
        assert_eq!(ring.lines[0].message, "first");
        assert_eq!(ring.lines[1].message, "801");
        for n in 0..1000 {
            ring.push(line("WARN", &n.to_string()));
        }
        // However much of it there is, room is left for the others: the oldest goes.
        assert_eq!(ring.lines.len(), LINES);
        assert_eq!(ring.lines[LINES - 1].message, "999");
        assert!(ring.lines.iter().all(|l| l.message != "first"));
    }

    #[test]
    fn long_messages_are_cut_between_letters() {
        let mut ring = Ring {
            lines: VecDeque::new(),
            count: 0,
        };
        ring.push(line("INFO", &format!("x{}", "ß".repeat(BYTES))));
        // The 1,000th byte is the first half of a letter.
        assert_eq!(ring.lines[0].message.len(), 999);
    }
}
