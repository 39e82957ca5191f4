//! Which lines were just written. Pure: the time is the caller's.

use std::{collections::HashMap, time::Duration};

/// A line that is said again within this time is only counted.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// Lines that are known. One more makes the oldest forgotten with its count, and it is new again:
/// memory is bounded, whatever is said.
const LINES: usize = 256;
/// Bytes of a line that are kept to be told how often it was said.
const BYTES: usize = 1000;

/// The lines that were written within the window.
#[derive(Default, Debug)]
pub(super) struct Repeats(HashMap<u64, Known>);

#[derive(Debug)]
struct Known {
    since: Duration,
    /// How often it was said since.
    more: u64,
    /// How it was written last.
    text: String,
}

impl Known {
    /// The line with its count, if it was said more than once.
    fn told(&self) -> Option<String> {
        let line = self.text.trim_end();
        let (more, seconds) = (self.more, WINDOW.as_secs());
        (more > 0).then(|| match line.strip_suffix('}') {
            Some(object) if line.starts_with('{') => format!("{object},\"repeated\":{more}}}\n"),
            _ => format!("{line} (and {more} more within {seconds} s)\n"),
        })
    }
}

impl Repeats {
    /// Forgets what was written before the window; returns what was repeated in it, with
    /// counts.
    pub(super) fn over(&mut self, now: Duration) -> Vec<String> {
        let mut over: Vec<(Duration, String)> = Vec::new();
        self.0.retain(|_, known| {
            let stays = now.saturating_sub(known.since) < WINDOW;
            if !stays {
                over.extend(known.told().map(|text| (known.since, text)));
            }
            stays
        });
        over.sort_unstable();
        over.into_iter().map(|(_, text)| text).collect()
    }

    /// Whether a line is to be written; if not, it is counted.
    pub(super) fn is_new(&mut self, key: u64, text: &str, now: Duration) -> bool {
        let kept = match text.len() <= BYTES {
            true => text,
            // Half an object is none.
            false if text.starts_with('{') => "{\"message\":\"a long line\"}",
            false => &text[..text.floor_char_boundary(BYTES)],
        };
        if let Some(known) = self.0.get_mut(&key) {
            known.more += 1;
            kept.clone_into(&mut known.text);
            return false;
        }
        if self.0.len() >= LINES {
            let oldest = self.0.iter().min_by_key(|(_, known)| known.since);
            let oldest = oldest.map(|(key, _)| *key);
            oldest.and_then(|key| self.0.remove(&key));
        }
        let known = Known {
            since: now,
            more: 0,
            text: kept.to_owned(),
        };
        self.0.insert(key, known);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_line_is_written_once_in_a_window_and_then_its_count() {
        let mut repeats = Repeats::default();
        for (key, at, new) in [
            (1, 0, true),
            (2, 10, true),
            (1, 20, false),
            (1, 9_999, false),
            (2, 10_000, false),
        ] {
            let text = format!("{at} line {key}\n");
            assert_eq!(repeats.is_new(key, &text, AT(at)), new, "{key} at {at}");
        }
        assert!(repeats.over(AT(9_999)).is_empty());
        let told = repeats.over(AT(10_000));
        assert_eq!(told, ["9999 line 1 (and 2 more within 10 s)\n"]);
        assert!(repeats.is_new(1, "line 1\n", AT(10_001)), "another window");
        let told = repeats.over(AT(30_000));
        assert_eq!(told, ["10000 line 2 (and 1 more within 10 s)\n"]);
        assert!(repeats.0.is_empty(), "what was not repeated is not told");
    }

    #[test]
    fn objects_stay_objects() {
        let mut repeats = Repeats::default();
        let long = format!("{{\"x\":\"{}\"}}\n", "x".repeat(2 * BYTES));
        for (key, text) in [(1, "{\"a\":1}\n"), (2, &*long)] {
            repeats.is_new(key, text, AT(key));
            repeats.is_new(key, text, AT(key));
        }
        let expected = [
            "{\"a\":1,\"repeated\":1}\n",
            "{\"message\":\"a long line\",\"repeated\":1}\n",
        ];
        assert_eq!(repeats.over(AT(60_000)), expected);
    }

    #[test]
    fn memory_is_bounded() {
        let mut repeats = Repeats::default();
        let line = "ß".repeat(10 * BYTES);
        for key in 0..10_000 {
            assert!(repeats.is_new(key, &line, AT(key)));
        }
        assert_eq!(repeats.0.len(), LINES);
        assert!(repeats.0.values().all(|known| known.text.len() <= BYTES));
        assert!(
            !repeats.is_new(9_999, &line, AT(10_000)),
            "the last are known"
        );
        assert!(repeats.is_new(0, &line, AT(10_000)), "the first are not");
    }
}
