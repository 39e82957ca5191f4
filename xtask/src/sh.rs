//! Running commands: echoed, and with errors that show the command and how its output ended.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::ui;

/// Lines of output that an error shows.
const TAIL: usize = 25;

/// A command to run. Its standard input is empty: nothing here asks questions.
pub(crate) struct Sh(Command);

impl Sh {
    /// `program` without arguments.
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        Self(command)
    }

    /// Adds one argument.
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.0.arg(arg);
        self
    }

    /// Adds arguments.
    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.0.args(args);
        self
    }

    /// Sets a variable of the environment.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    /// Removes a variable from the environment.
    pub(crate) fn env_remove(mut self, name: &str) -> Self {
        self.0.env_remove(name);
        self
    }

    /// Sets the directory that the command runs in.
    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.0.current_dir(dir);
        self
    }

    /// Echoes the command and runs it on the user's terminal.
    ///
    /// # Errors
    /// The command cannot be started or fails.
    pub(crate) fn run(mut self) -> Result<()> {
        ui::echo(&self.line());
        let line = self.line();
        let status = self.0.status().with_context(|| start_error(&line))?;
        check(&line, status, &VecDeque::new())
    }

    /// Runs the command without its output on the screen: `what` is shown with its progress.
    ///
    /// # Errors
    /// The command cannot be started or fails; the error carries the last lines of its output.
    pub(crate) fn run_quietly(self, what: &str) -> Result<()> {
        let line = self.line();
        let mut progress = ui::Progress::start(what);
        let mut tail = VecDeque::new();
        let outcome = self.each_line(|event| match event {
            Some(l) => {
                if tail.len() == TAIL {
                    tail.pop_front();
                }
                tail.push_back(l.to_owned());
                progress.tick(l);
            }
            None => progress.tick(""),
        });
        progress.end(matches!(&outcome, Ok(s) if s.success()));
        check(&line, outcome?, &tail)
    }

    /// Runs the command and hands over each line of its output (both streams) as it comes;
    /// `None` about five times a second while nothing comes.
    ///
    /// # Errors
    /// The command cannot be started or its output cannot be read.
    pub(crate) fn each_line(mut self, mut on_line: impl FnMut(Option<&str>)) -> Result<ExitStatus> {
        let line = self.line();
        let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
        self.0
            .stdout(writer.try_clone().context("cannot duplicate a pipe")?)
            .stderr(writer);
        let mut child = self.0.spawn().with_context(|| start_error(&line))?;
        // The command holds the pipe's writing ends; without this the reader never sees the end.
        drop(self);
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || send_lines(reader, &sender));
        loop {
            match receiver.recv_timeout(Duration::from_millis(200)) {
                Ok(l) => on_line(Some(&l)),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    on_line(None);
                    // A daemon that the command left behind may keep the pipe open.
                    if child
                        .try_wait()
                        .with_context(|| format!("cannot wait for `{line}`"))?
                        .is_some()
                    {
                        break;
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        child
            .wait()
            .with_context(|| format!("cannot wait for `{line}`"))
    }

    /// Runs the command and returns its standard output, trimmed at the end.
    ///
    /// # Errors
    /// The command cannot be started or fails; the error carries its standard error.
    pub(crate) fn read(mut self) -> Result<String> {
        let line = self.line();
        let out = self.0.output().with_context(|| start_error(&line))?;
        let tail = String::from_utf8_lossy(&out.stderr)
            .lines()
            .map(str::to_owned)
            .collect();
        check(&line, out.status, &tail)?;
        Ok(String::from_utf8_lossy(&out.stdout).trim_end().to_owned())
    }

    /// Echoes the command, leaves its standard error on the user's terminal, and returns its
    /// standard output.
    ///
    /// # Errors
    /// The command cannot be started or fails.
    pub(crate) fn run_and_read(mut self) -> Result<String> {
        let line = self.line();
        ui::echo(&line);
        let out = self
            .0
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| start_error(&line))?;
        check(&line, out.status, &VecDeque::new())?;
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// The command as a user could type it.
    pub(crate) fn line(&self) -> String {
        let mut words = vec![quote(self.0.get_program())];
        words.extend(self.0.get_args().map(quote));
        words.join(" ")
    }
}

fn send_lines(reader: impl Read, sender: &mpsc::Sender<String>) {
    for bytes in BufReader::new(reader).split(b'\n') {
        let Ok(bytes) = bytes else { return };
        let text = String::from_utf8_lossy(&bytes)
            .trim_end_matches('\r')
            .to_owned();
        if sender.send(text).is_err() {
            return;
        }
    }
}

fn start_error(line: &str) -> String {
    format!("cannot start `{line}`")
}

fn check(line: &str, status: ExitStatus, tail: &VecDeque<String>) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    let mut text = format!("`{line}` failed ({status})");
    for l in tail.iter().skip(tail.len().saturating_sub(TAIL)) {
        text.push_str("\n  | ");
        text.push_str(l);
    }
    bail!("{text}")
}

fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./:,@%^".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Where `program` is on the PATH, if it is.
pub(crate) fn which(program: &str) -> Option<std::path::PathBuf> {
    // An unprivileged user's PATH often lacks these, and the tools are there all the same.
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(Into::into))
        .map(|dir| dir.join(program))
        .find(|p| p.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_pasted() {
        let sh = Sh::new("sh").args(["-c", "echo it's", "", "a b"]);
        assert_eq!(sh.line(), r"sh -c 'echo it'\''s' '' 'a b'");
    }

    #[test]
    fn a_failure_shows_the_command_and_the_end_of_its_output() {
        let script = "seq 1 100; echo broken >&2; exit 3";
        let error = Sh::new("sh")
            .args(["-c", script])
            .run_quietly("a step made to fail")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`sh -c 'seq 1 100; echo broken >&2; exit 3'` failed (exit status: 3)"),
            "{error}"
        );
        assert!(
            error.contains("| 100") && error.contains("| broken") && !error.contains("| 50"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Sh::new("no-such-program-here")
            .read()
            .unwrap_err()
            .to_string();
        assert_eq!(error, "cannot start `no-such-program-here`");
    }

    #[test]
    fn read_returns_standard_output_only() {
        let out = Sh::new("sh")
            .args(["-c", "echo out; echo err >&2"])
            .read()
            .unwrap();
        assert_eq!(out, "out");
    }
}
