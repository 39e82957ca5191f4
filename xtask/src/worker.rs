//! Processes that do what lines on their standard input ask for, and answer each by a line.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A process that works. It ends with this.
pub(crate) struct Worker {
    name: String,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts it; errors will call it by this name.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(name: impl Into<String>, mut command: Command) -> Result<Self> {
        let name = name.into();
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Self::of(name, child)
    }

    /// A process whose input and output are piped.
    ///
    /// # Errors
    /// They are not.
    pub(crate) fn of(name: impl Into<String>, mut child: Child) -> Result<Self> {
        let (input, output) = (child.stdin.take(), child.stdout.take());
        Ok(Self {
            input: input.context("its input is piped")?,
            output: BufReader::new(output.context("its output is piped")?),
            name: name.into(),
            child,
        })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Asks for something; [`Self::answer`] waits until it is done.
    ///
    /// # Errors
    /// It has ended.
    pub(crate) fn ask(&mut self, request: &impl Serialize) -> Result<()> {
        let request = serde_json::to_string(request).context("cannot write JSON")?;
        writeln!(self.input, "{request}").with_context(|| format!("{} has ended", self.name))
    }

    /// What it says to the request before.
    ///
    /// # Errors
    /// It has ended, says that it failed (`error`, `failed`), or what is not understood.
    pub(crate) fn answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        let read = self.output.read_line(&mut line);
        if read.with_context(|| format!("{} does not answer", self.name))? == 0 {
            bail!("{} has ended", self.name);
        }
        let value: Value = serde_json::from_str(&line)
            .with_context(|| format!("{} wrote no JSON: {line:?}", self.name))?;
        for word in ["error", "failed"] {
            if let Some(error) = value.get(word).and_then(Value::as_str) {
                bail!("{}: {error}", self.name);
            }
        }
        serde_json::from_value(value)
            .with_context(|| format!("cannot understand {line:?} of {}", self.name))
    }

    /// Both.
    ///
    /// # Errors
    /// See there.
    pub(crate) fn call<T: DeserializeOwned>(&mut self, request: &impl Serialize) -> Result<T> {
        self.ask(request)?;
        self.answer()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_fails_or_has_ended_is_told_by_its_name() {
        let mut cat = Worker::start("an echo", Command::new("cat")).unwrap();
        assert_eq!(cat.call::<u32>(&7).unwrap(), 7);
        let error = format!("{:#}", cat.call::<u32>(&"x").unwrap_err());
        assert!(error.contains("of an echo"), "{error}");
        let failed = serde_json::json!({"failed": "no room"});
        let error = cat.call::<u32>(&failed).unwrap_err().to_string();
        assert_eq!(error, "an echo: no room");
        let mut none = Worker::start("nobody", Command::new("true")).unwrap();
        let error = none.call::<u32>(&1).unwrap_err().to_string();
        assert!(error.starts_with("nobody "), "{error}");
    }
}
