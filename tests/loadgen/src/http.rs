//! HTTP/1.1: one GET, and where its answer ends.

use std::io::{self, Read as _, Write as _};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustix::io::Errno;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use super::sockets::{put, take};
use super::tls;

/// Bytes that are read at once.
const BUFFER: usize = 1 << 14;
/// Longest head of an answer.
const HEAD: usize = 1 << 14;

/// What is asked on every connection.
pub(crate) struct Asks {
    request: Vec<u8>,
    tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
}

impl Asks {
    /// A GET of a host's path; after a handshake of TLS, if that is wanted.
    ///
    /// # Errors
    /// The host is no name.
    pub(crate) fn new(host: &str, path: &str, with_tls: bool) -> Result<Self> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
        let tls = match with_tls {
            true => {
                let name = ServerName::try_from(host.to_owned());
                let name = name.with_context(|| format!("{host:?} is no name of a host"))?;
                Some((Arc::new(tls::config()?), name))
            }
            false => None,
        };
        Ok(Self { request, tls })
    }
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The system says so.
    System(Errno),
    /// What came is none.
    Answer(&'static str),
}

impl From<Errno> for Broken {
    fn from(error: Errno) -> Self {
        Self::System(error)
    }
}

/// An answer, as far as it has come.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    head: Vec<u8>,
    /// Bytes of the body that are missing.
    left: Option<u64>,
    /// First digit of the status.
    status: u8,
    /// The server keeps the connection no longer.
    pub(crate) closes: bool,
}

impl Answer {
    /// Takes more bytes; the first digit of the status once all have come.
    ///
    /// # Errors
    /// It is no answer with a length.
    pub(crate) fn add(&mut self, mut bytes: &[u8]) -> Result<Option<u8>, Broken> {
        if self.left.is_none() {
            let before = self.head.len();
            self.head.extend_from_slice(bytes);
            let from = before.saturating_sub(3);
            let end = self.head[from..].windows(4).position(|w| w == b"\r\n\r\n");
            let Some(end) = end.map(|end| from + end + 4) else {
                return match self.head.len() > HEAD {
                    true => Err(Broken::Answer("its head has no end")),
                    false => Ok(None),
                };
            };
            bytes = &bytes[end - before..];
            self.parse(end)?;
        }
        let left = self
            .left
            .unwrap_or_default()
            .checked_sub(bytes.len() as u64);
        self.left = Some(left.ok_or(Broken::Answer("more bytes than its length"))?);
        Ok((left == Some(0)).then_some(self.status))
    }

    fn parse(&mut self, end: usize) -> Result<(), Broken> {
        let head = str::from_utf8(&self.head[..end]);
        let head = head.map_err(|_| Broken::Answer("its head is no text"))?;
        let mut lines = head.split("\r\n");
        let line = lines.next().unwrap_or_default();
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|s| s.bytes().next());
        self.status = status.ok_or(Broken::Answer("it is none of HTTP/1.1"))?;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                self.left = value.trim().parse().ok();
            } else if name.eq_ignore_ascii_case("connection") {
                self.closes = value.trim().eq_ignore_ascii_case("close");
            }
        }
        match self.left {
            Some(_) => Ok(()),
            None => Err(Broken::Answer("it has no length")),
        }
    }
}

/// A question on a connection, and its answer.
pub(crate) struct Exchange {
    asks: Arc<Asks>,
    tls: Option<Box<ClientConnection>>,
    sent: usize,
    pub(crate) answer: Answer,
}

impl Exchange {
    pub(crate) fn new(asks: Arc<Asks>) -> Self {
        Self {
            asks,
            tls: None,
            sent: 0,
            answer: Answer::default(),
        }
    }

    /// There is a fresh connection.
    pub(crate) fn open(&mut self) -> Result<(), Broken> {
        if let Some((config, name)) = &self.asks.tls {
            let client = ClientConnection::new(config.clone(), name.clone());
            let mut client = client.map_err(|_| Broken::Answer("TLS cannot be begun"))?;
            // It goes out when the handshake is done.
            let asked = client.writer().write_all(&self.asks.request);
            asked.map_err(|_| Broken::Answer("TLS takes no question"))?;
            self.tls = Some(Box::new(client));
        }
        Ok(())
    }

    /// Asks; an answer can follow.
    pub(crate) fn ask(&mut self) {
        self.sent = 0;
        self.answer = Answer::default();
    }

    /// Sends and reads what there is to send and to read. The status's first digit once the answer
    /// is there.
    pub(crate) fn go_on(&mut self, socket: BorrowedFd<'_>) -> Result<Option<u8>, Broken> {
        match &mut self.tls {
            Some(tls) => secret(tls, socket, &mut self.answer),
            None => self.plain(socket),
        }
    }

    fn plain(&mut self, socket: BorrowedFd<'_>) -> Result<Option<u8>, Broken> {
        while self.sent < self.asks.request.len() {
            match put(socket, &self.asks.request[self.sent..]) {
                Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
                sent => self.sent += sent?,
            }
        }
        let mut buffer = [0; BUFFER];
        loop {
            match take(socket, &mut buffer) {
                Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
                Ok(0) => return Err(Broken::Answer("closed by the server")),
                read => {
                    if let Some(status) = self.answer.add(&buffer[..read?])? {
                        return Ok(Some(status));
                    }
                }
            }
        }
    }
}

/// The same through TLS.
fn secret(
    tls: &mut ClientConnection,
    socket: BorrowedFd<'_>,
    answer: &mut Answer,
) -> Result<Option<u8>, Broken> {
    let mut wire = Wire(socket);
    loop {
        while tls.wants_write() {
            if again(tls.write_tls(&mut wire))?.is_none() {
                return Ok(None);
            }
        }
        match again(tls.read_tls(&mut wire))? {
            None => return Ok(None),
            Some(0) => return Err(Broken::Answer("closed by the server")),
            Some(_) => {}
        }
        let state = tls.process_new_packets();
        let there = state.map_err(|_| Broken::Answer("TLS is broken"))?;
        let mut text = vec![0; there.plaintext_bytes_to_read()];
        let read = tls.reader().read_exact(&mut text);
        read.map_err(|_| Broken::Answer("TLS is broken"))?;
        if !text.is_empty()
            && let Some(status) = answer.add(&text)?
        {
            return Ok(Some(status));
        }
    }
}

/// `None` where it has to be tried again.
fn again(done: io::Result<usize>) -> Result<Option<usize>, Broken> {
    use io::ErrorKind::{Interrupted, WouldBlock};
    match done {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if matches!(e.kind(), WouldBlock | Interrupted) => Ok(None),
        Err(e) => {
            Err(Errno::from_io_error(&e).map_or(Broken::Answer("TLS is broken"), Broken::System))
        }
    }
}

/// A socket, as TLS has it.
struct Wire<'s>(BorrowedFd<'s>);

impl io::Read for Wire<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        Ok(take(self.0, bytes)?)
    }
}

impl io::Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(put(self.0, bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_with_its_length_however_it_comes() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 3\r\nX: y\r\n\r\nabc";
        for cut in 0..=whole.len() {
            let mut answer = Answer::default();
            let (first, second) = whole.split_at(cut);
            let early = answer.add(first).unwrap();
            assert_eq!(early, (cut == whole.len()).then_some(b'2'), "{cut}");
            if early.is_none() {
                assert_eq!(answer.add(second), Ok(Some(b'2')), "{cut}");
            }
            assert!(!answer.closes);
        }
    }

    #[test]
    fn what_is_no_answer_is_told() {
        let long = "a".repeat(HEAD + 1);
        let cases = [
            (
                "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
                Ok(Some(b'4')),
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", Err("it has no length")),
            ("SSH-2.0\r\n\r\n", Err("it is none of HTTP/1.1")),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
                Err("more bytes than its length"),
            ),
            (&long, Err("its head has no end")),
        ];
        for (bytes, expected) in cases {
            let added = Answer::default().add(bytes.as_bytes());
            assert_eq!(added, expected.map_err(Broken::Answer));
        }
    }

    #[test]
    fn a_server_may_keep_the_connection_no_longer() {
        let mut answer = Answer::default();
        let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(answer.add(head), Ok(Some(b'2')));
        assert!(answer.closes);
    }
}
