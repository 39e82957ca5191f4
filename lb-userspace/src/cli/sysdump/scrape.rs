//! One request to a server of the agent.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, ensure};

/// How long the agent may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most bytes of an answer.
const MOST: u64 = 256 << 20;

/// The body of the answer to a GET.
///
/// # Errors
/// Nobody answers, or not with status 200.
pub(super) fn get(address: SocketAddr, path: &str) -> anyhow::Result<Vec<u8>> {
    let asked = || format!("http://{address}{path}");
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).with_context(asked)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // A client of HTTP/1.0 gets the body in one piece, and then the end of the connection.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).with_context(asked)?;
    let mut answer = Vec::new();
    stream
        .take(MOST)
        .read_to_end(&mut answer)
        .with_context(asked)?;
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let end = end.with_context(|| format!("{}: no answer of HTTP", asked()))?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.contains(" 200 "), "{}: {status}", asked());
    Ok(answer.split_off(end + 4))
}
