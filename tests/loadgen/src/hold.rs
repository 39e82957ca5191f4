//! Connections that have had one answer and wait.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::http::Answer;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes connections, each with one GET.
///
/// # Errors
/// One cannot be made, or is not answered.
pub(crate) fn open(target: SocketAddr, host: &str, count: usize) -> Result<Vec<TcpStream>> {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: most,
            maximum: most,
        },
    )
    .context("the limit of open files cannot be raised")?;
    (0..count).map(|_| one(target, host)).collect()
}

fn one(target: SocketAddr, host: &str) -> Result<TcpStream> {
    let failed = || format!("{target} gave no answer");
    let mut stream = TcpStream::connect(target).with_context(failed)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).with_context(failed)?;
    let mut answer = Answer::default();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).with_context(failed)?;
        match answer.add(&buffer[..read]) {
            Ok(Some(_)) => return Ok(stream),
            Ok(None) if read > 0 => {}
            other => bail!("{target} gave no answer: {other:?}"),
        }
    }
}
