//! What xtask says to its user: status lines, colours and progress.
//!
//! Everything goes to standard error, so that standard output carries results only
//! (`cargo xtask run --json | jq` works). Colours are used on a terminal, and never when
//! the variable `NO_COLOR` is set to something (<https://no-color.org>).

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// How often a step without a terminal says that it is still at work.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How often the progress line on a terminal is drawn again.
const REDRAW: Duration = Duration::from_millis(200);
/// Width that the progress line is cut to: it must not wrap on a small terminal.
const WIDTH: usize = 78;

/// A colour of a status line.
#[derive(Clone, Copy)]
pub(crate) enum Colour {
    /// Present, passed.
    Green,
    /// Works, but not as it could.
    Yellow,
    /// Missing, failed.
    Red,
    /// Commands and remarks.
    Dim,
}

impl Colour {
    const fn code(self) -> &'static str {
        match self {
            Self::Green => "\x1b[32m",
            Self::Yellow => "\x1b[33m",
            Self::Red => "\x1b[31m",
            Self::Dim => "\x1b[2m",
        }
    }
}

/// Whether status lines may carry colours.
pub(crate) fn colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
        && std::io::stderr().is_terminal()
}

/// `text` in `colour`, or as it is where colours are off.
pub(crate) fn paint(colour: Colour, text: &str) -> String {
    if colours() {
        format!("{}{text}\x1b[0m", colour.code())
    } else {
        text.to_owned()
    }
}

/// One line of status.
pub(crate) fn say(text: impl Display) {
    // A closed standard error must not end a build.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The echo of a command.
pub(crate) fn echo(command: &str) {
    say(paint(Colour::Dim, &format!("$ {command}")));
}

/// A remark that the user should see, though all goes on.
pub(crate) fn warn(text: impl Display) {
    say(format!("{} {text}", paint(Colour::Yellow, "note:")));
}

/// The error that ends the run.
pub(crate) fn error(text: impl Display) {
    say(format!("{} {text}", paint(Colour::Red, "error:")));
}

/// `4.2 s`, `3 min 20 s`.
pub(crate) fn duration(d: Duration) -> String {
    let s = d.as_secs();
    if s >= 60 {
        format!("{} min {:02} s", s / 60, s % 60)
    } else {
        format!("{:.1} s", d.as_secs_f64())
    }
}

/// A long step: one line drawn in place on a terminal, else a line at the start, one every
/// [`HEARTBEAT`], and one at the end.
pub(crate) struct Progress {
    what: String,
    start: Instant,
    last: Instant,
    terminal: bool,
}

impl Progress {
    /// Announces the step.
    pub(crate) fn start(what: &str) -> Self {
        let terminal =
            std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
        let now = Instant::now();
        if !terminal {
            say(format!("{what} …"));
        }
        Self {
            what: what.to_owned(),
            start: now,
            last: now,
            terminal,
        }
    }

    /// Shows that the step is alive; `detail` is the last line of its output.
    pub(crate) fn tick(&mut self, detail: &str) {
        let every = if self.terminal { REDRAW } else { HEARTBEAT };
        if self.last.elapsed() < every {
            return;
        }
        self.last = Instant::now();
        let line = format!(
            "{} ({}) {}",
            self.what,
            duration(self.start.elapsed()),
            detail.trim()
        );
        if self.terminal {
            let cut: String = line
                .chars()
                .filter(|c| !c.is_control())
                .take(WIDTH)
                .collect();
            let _ = write!(std::io::stderr(), "\r\x1b[K{cut}");
            let _ = std::io::stderr().flush();
        } else {
            say(line);
        }
    }

    /// Ends the step, and says how long it took.
    pub(crate) fn end(self, ok: bool) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
        let mark = if ok {
            paint(Colour::Green, "done")
        } else {
            paint(Colour::Red, "FAILED")
        };
        say(format!(
            "{}: {mark} in {}",
            self.what,
            duration(self.start.elapsed())
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        assert_eq!(duration(Duration::from_millis(4230)), "4.2 s");
        assert_eq!(duration(Duration::from_secs(59)), "59.0 s");
        assert_eq!(duration(Duration::from_secs(200)), "3 min 20 s");
        assert_eq!(duration(Duration::from_secs(61)), "1 min 01 s");
    }
}
