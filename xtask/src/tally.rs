//! Counting tests by what the test harness prints.

use std::fmt;

/// What one test program said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    passed: u32,
    failed: u32,
    ignored: u32,
    failures: Vec<String>,
}

impl Outcome {
    /// Takes in one line of output.
    pub(crate) fn read(&mut self, line: &str) {
        if let Some(test) = line
            .strip_prefix("test ")
            .and_then(|l| l.strip_suffix(" ... FAILED"))
        {
            self.failures.push(test.to_owned());
        }
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        // `ok. 27 passed; 0 failed; 0 ignored; 0 measured; …`
        let Some((_, counts)) = result.split_once(". ") else {
            return;
        };
        for count in counts.split("; ") {
            let Some((number, what)) = count.split_once(' ') else {
                continue;
            };
            let number = number.parse().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

/// The sum over all test programs; displayed as the last line of a run.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Tests that passed.
    pub(crate) passed: u32,
    /// Tests that failed, and programs that ended badly without naming one.
    pub(crate) failed: u32,
    ignored: u32,
    /// Program and test of each failure.
    pub(crate) failures: Vec<String>,
}

impl Tally {
    /// Adds a program. One that failed without a failed test crashed: it counts as a failure.
    pub(crate) fn add(&mut self, program: &str, outcome: Outcome, success: bool) {
        self.passed += outcome.passed;
        self.failed += outcome.failed;
        self.ignored += outcome.ignored;
        self.failures.extend(
            outcome
                .failures
                .iter()
                .map(|test| format!("{program}: {test}")),
        );
        if !success && outcome.failed == 0 {
            self.failed += 1;
            self.failures
                .push(format!("{program}: ended without a result"));
        }
    }

    /// Whether something ran and all of it passed: an ignored test is a broken promise.
    pub(crate) const fn is_good(&self) -> bool {
        self.passed > 0 && self.failed == 0 && self.ignored == 0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.ignored > 0 {
            write!(f, ", {} ignored", self.ignored)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "test result: ok. 27 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out; finished in 0.00s";
    const BAD: &str = "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s";

    fn outcome(lines: &[&str]) -> Outcome {
        let mut outcome = Outcome::default();
        lines.iter().for_each(|l| outcome.read(l));
        outcome
    }

    #[test]
    fn results_add_up() {
        let mut tally = Tally::default();
        tally.add("one", outcome(&["running 27 tests", GOOD]), true);
        tally.add(
            "two",
            outcome(&["test a::b ... FAILED", "test a::c ... ok", BAD]),
            false,
        );
        assert_eq!(tally.to_string(), "29 passed, 1 failed");
        assert_eq!(tally.failures, ["two: a::b"]);
        assert!(!tally.is_good());
    }

    #[test]
    fn a_crash_is_a_failure() {
        let mut tally = Tally::default();
        tally.add("one", outcome(&["running 3 tests", "test a ... ok"]), false);
        assert_eq!(tally.to_string(), "0 passed, 1 failed");
        assert_eq!(tally.failures, ["one: ended without a result"]);
    }

    #[test]
    fn ignored_tests_are_not_good() {
        let mut tally = Tally::default();
        tally.add(
            "one",
            outcome(&[
                "test result: ok. 1 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out",
            ]),
            true,
        );
        assert_eq!(tally.to_string(), "1 passed, 0 failed, 2 ignored");
        assert!(!tally.is_good());
    }

    #[test]
    fn nothing_run_is_not_good() {
        assert!(!Tally::default().is_good());
        let mut tally = Tally::default();
        tally.add("one", outcome(&[GOOD]), true);
        assert!(tally.is_good());
    }
}
