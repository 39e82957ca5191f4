//! The terminal: its size, colours, and a frame that is drawn in place.

use std::io::{self, IsTerminal as _, Write as _};

/// A part of the table that has a colour of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ink {
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
    /// Names of columns, remarks.
    Faint,
    /// Names of services.
    Strong,
    /// Bars.
    Bar,
}

/// Paints text, or leaves it as it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint(pub bool);

impl Paint {
    /// Colours on a terminal, unless the user's environment says no.
    pub(crate) fn for_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        Self(io::stdout().is_terminal() && !unwanted && !dumb)
    }

    /// `text` in `ink`.
    pub(crate) fn ink(self, ink: Ink, text: &str) -> String {
        let code = match ink {
            Ink::Good => "32",
            Ink::Bad => "31",
            Ink::Faint => "2",
            Ink::Strong => "1",
            Ink::Bar => "36",
        };
        if self.0 && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Whether frames can be drawn in place.
pub(crate) fn interactive() -> bool {
    io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// Lines and columns of the terminal.
fn size() -> (usize, usize) {
    // SAFETY: an all-zero winsize is a valid value.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: TIOCGWINSZ writes a winsize to the pointer, which is valid for the call.
    let done = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) } == 0;
    let or = |n: u16, default| if done && n > 0 { n.into() } else { default };
    (or(size.ws_row, 24), or(size.ws_col, 80))
}

/// The part of `line` that fits into `width` columns; colours take none. A line that wrapped
/// would be two, and the frame would creep down the screen.
fn fit(line: &str, width: usize) -> String {
    let (mut text, mut used, mut colour) = (String::new(), 0, false);
    for c in line.chars() {
        if c == '\x1b' {
            colour = true;
        } else if !colour {
            used += 1;
        }
        if used > width {
            return text + "\x1b[0m";
        }
        colour &= c != 'm';
        text.push(c);
    }
    text
}

/// A block of lines at the end of the screen, redrawn in place.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    drawn: usize,
}

impl Frame {
    /// Replaces the block. Lines that do not fit are shown in turns: `turn` says which page.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(crate) fn draw(&mut self, lines: &[String], turn: usize) -> io::Result<()> {
        let (height, width) = size();
        let page = page(lines, height.saturating_sub(1), turn);
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A", self.drawn));
        }
        for line in page.iter().map(|line| fit(line, width)) {
            // Each line is cleared to its end, so that nothing flickers.
            text.push_str(&format!("\r{line}\x1b[K\n"));
        }
        text.push_str("\x1b[J");
        self.drawn = page.len();
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush())
    }

    /// Leaves the block where it is; the next one is drawn below it.
    pub(crate) fn keep(&mut self) {
        self.drawn = 0;
    }
}

/// The part of `lines` that fits: its first two lines (the heading) always, the rest by pages.
fn page(lines: &[String], height: usize, turn: usize) -> Vec<String> {
    const HEADING: usize = 2;
    if lines.len() <= height || height <= HEADING + 2 {
        return lines.iter().take(height.max(1)).cloned().collect();
    }
    let (heading, rest) = lines.split_at(HEADING);
    let room = height - HEADING - 1;
    let pages = rest.len().div_ceil(room);
    let at = turn % pages;
    let mut shown = heading.to_vec();
    shown.extend(rest.iter().skip(at * room).take(room).cloned());
    shown.push(format!(
        "page {} of {pages}; a taller terminal shows more",
        at + 1
    ));
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(n: usize) -> Vec<String> {
        (0..n).map(|i| i.to_string()).collect()
    }

    #[test]
    fn what_fits_is_shown_whole() {
        assert_eq!(page(&lines(10), 10, 3), lines(10));
    }

    #[test]
    fn long_lines_are_cut_and_colours_take_no_room() {
        assert_eq!(fit("abc", 3), "abc");
        assert_eq!(fit("abcd", 3), "abc\x1b[0m");
        assert_eq!(fit("\x1b[31mabc\x1b[0m", 3), "\x1b[31mabc\x1b[0m");
        assert_eq!(fit("a\x1b[31mbcd\x1b[0m", 2), "a\x1b[31mb\x1b[0m");
    }

    #[test]
    fn pages_keep_the_heading_and_show_every_line_once() {
        let mut seen = Vec::new();
        for turn in 0..3 {
            let shown = page(&lines(20), 10, turn);
            assert!(shown.len() <= 10, "{shown:?}");
            assert_eq!(shown[..2], lines(2));
            seen.extend(shown[2..shown.len() - 1].to_vec());
        }
        assert_eq!(seen, lines(20)[2..]);
        assert_eq!(page(&lines(20), 10, 3), page(&lines(20), 10, 0));
    }

    #[test]
    fn paint_is_nothing_where_colours_are_off() {
        assert_eq!(Paint(false).ink(Ink::Bad, "x"), "x");
        assert_eq!(Paint(true).ink(Ink::Bad, "x"), "\x1b[31mx\x1b[0m");
    }
}
