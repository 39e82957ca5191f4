//! A client that says what it is told, and no more.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};
use socket2::{Domain, Socket, Type};

use super::{backend::Seen, certificates::Certificates};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Headers in their order, their names in small letters.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: String,
    /// Name of the certificate that the server has shown.
    pub certificate: Option<&'static str>,
}

impl Answer {
    /// Values of a header.
    pub fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let all = self.headers.iter().filter(move |(key, _)| key == name);
        all.map(|(_, value)| value.as_str())
    }

    /// What the backend saw, if it was one that answered.
    #[must_use]
    pub fn seen(&self) -> Option<Seen> {
        serde_json::from_str(&self.body).ok()
    }
}

/// A way to the server.
#[derive(Clone, Debug)]
pub struct Way {
    /// Its address.
    pub to: SocketAddr,
    /// The client's; `None` for any.
    pub from: Option<IpAddr>,
    /// What is said before everything, such as the header of the PROXY protocol.
    pub before: String,
    /// TLS, and the name that is asked for.
    pub tls: Option<(Arc<ClientConfig>, String)>,
}

impl Way {
    /// Without anything.
    #[must_use]
    pub const fn plain(to: SocketAddr) -> Self {
        Self {
            to,
            from: None,
            before: String::new(),
            tls: None,
        }
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(self.to), Type::STREAM, None)?;
        if let Some(from) = self.from {
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        socket.connect_timeout(&self.to.into(), PATIENCE)?;
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        stream.write_all(self.before.as_bytes())?;
        Ok(stream)
    }

    /// Sends a request by HTTP/1.1 on a connection of its own, and reads the answer.
    ///
    /// # Errors
    /// The connection breaks, or what comes is no answer.
    pub fn ask(&self, head: &str, body: &str, known: &Certificates) -> io::Result<Answer> {
        let stream = self.connect()?;
        let Some((config, name)) = &self.tls else {
            return exchange(stream, head, body);
        };
        let name = ServerName::try_from(name.clone()).map_err(io::Error::other)?;
        let connection = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, stream);
        let mut answer = exchange(&mut stream, head, body)?;
        let shown = stream.conn.peer_certificates();
        answer.certificate = shown
            .and_then(|chain| chain.first())
            .map(|one| known.name(one));
        Ok(answer)
    }
}

/// Sends a request by HTTP/1.1 on a connection of its own, and reads the answer.
///
/// # Errors
/// The connection breaks, or what comes is no answer.
pub fn ask(to: SocketAddr, head: &str, body: &str) -> io::Result<Answer> {
    exchange(Way::plain(to).connect()?, head, body)
}

fn exchange(mut stream: impl Read + Write, head: &str, body: &str) -> io::Result<Answer> {
    // The answer may come before the body is read.
    let sent = stream.write_all(format!("{head}\r\n{body}").as_bytes());
    let is_head = head.starts_with("HEAD ");
    let answer = read(&mut BufReader::new(stream), is_head);
    match (answer, sent) {
        (Err(_), Err(error)) => Err(error),
        (answer, _) => answer,
    }
}
fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn read(input: &mut impl BufRead, is_head: bool) -> io::Result<Answer> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| malformed(&format!("no status line: {line:?}")))?;
    let mut answer = Answer {
        status,
        ..Answer::default()
    };
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        let Some((key, value)) = line.trim_end().split_once(':') else {
            break;
        };
        answer
            .headers
            .push((key.to_ascii_lowercase(), value.trim().to_owned()));
    }
    if is_head || [101, 204, 304].contains(&status) {
        return Ok(answer);
    }
    let length = answer.header("content-length").next().map(str::to_owned);
    let mut body = Vec::new();
    if let Some(length) = length {
        let length: usize = length.parse().map_err(|_| malformed("a length"))?;
        input.take(length as u64).read_to_end(&mut body)?;
        if body.len() < length {
            return Err(malformed("the answer broke off"));
        }
    } else if answer
        .header("transfer-encoding")
        .any(|coding| coding == "chunked")
    {
        chunks(input, &mut body)?;
    } else {
        input.read_to_end(&mut body)?;
    }
    let coding = answer.header("content-encoding").next();
    if let Some(program) = coding.and_then(program_of) {
        body = unpack(program, &body)?;
    }
    answer.body = String::from_utf8_lossy(&body).into_owned();
    Ok(answer)
}

/// What reads a coding, and is no part of the proxy.
fn program_of(coding: &str) -> Option<&'static str> {
    match coding {
        "br" => Some("brotli"),
        "gzip" => Some("gzip"),
        _ => None,
    }
}

fn unpack(program: &str, packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut child = Command::new(program)
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().ok_or_else(|| malformed("no input"))?;
    let output = thread::scope(|scope| {
        scope.spawn(move || input.write_all(packed));
        child.wait_with_output()
    })?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(malformed("what is not compressed as it says")),
    }
}

fn chunks(input: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let len = u64::from_str_radix(size, 16).map_err(|_| malformed("a chunk"))?;
        input.take(len).read_to_end(body)?;
        input.read_line(&mut line)?;
        if len == 0 {
            return Ok(());
        }
    }
}
