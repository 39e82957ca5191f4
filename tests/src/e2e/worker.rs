//! The process behind [`super::peer::Peer`].

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use super::load::Running;
use super::ping;
use super::proto::{How, LARGE, Outcome, Request};
use super::server::{self, Answer};

/// How long a kept socket waits for an answer.
const PATIENCE: Duration = Duration::from_millis(2500);

/// Answers requests until the standard input ends.
///
/// # Errors
/// A request is no JSON, or nobody reads the answers.
pub fn work() -> io::Result<()> {
    let mut worker = Worker::default();
    for line in io::stdin().lock().lines() {
        let outcome = worker.answer(serde_json::from_str(&line?)?);
        let mut out = io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&outcome)?)?;
        out.flush()?;
    }
    Ok(())
}

/// Serves under a name, on TCP and UDP, for ever.
///
/// # Errors
/// The port is taken.
pub fn serve(name: &str, port: u16) -> io::Result<()> {
    server::serve(name, port)?;
    loop {
        std::thread::park();
    }
}

#[derive(Default)]
struct Worker {
    kept: HashMap<u32, Socket>,
    load: Option<Running>,
}

impl Worker {
    fn answer(&mut self, request: Request) -> Outcome {
        let mut outcome = Outcome::default();
        match request {
            Request::Serve { name, port } => {
                if let Err(error) = server::serve(&name, port) {
                    outcome.error(&error);
                }
            }
            Request::Dial {
                target,
                how,
                times,
                timeout_ms,
            } => {
                for _ in 0..times {
                    let socket = Socket::open(target, how, Duration::from_millis(timeout_ms));
                    outcome.count(socket.and_then(|mut s| s.ask()));
                }
            }
            Request::Ping { target, timeout_ms } => {
                match ping::ping(target, Duration::from_millis(timeout_ms)) {
                    Ok(()) => *outcome.answers.entry("pong".to_owned()).or_default() += 1,
                    Err(error) => outcome.error(&error),
                }
            }
            Request::Open { target, how, id } => match Socket::open(target, how, PATIENCE) {
                Ok(mut socket) => {
                    outcome.count(socket.ask());
                    self.kept.insert(id, socket);
                }
                Err(error) => outcome.error(&error),
            },
            Request::Again { id } => match self.kept.get_mut(&id) {
                Some(socket) => outcome.count(socket.ask()),
                None => outcome.error(&ErrorKind::NotFound.into()),
            },
            Request::Bulk { target, bytes } => outcome.count(bulk(target, bytes)),
            Request::Load(load) => self.load = Some(Running::start(load)),
            Request::Rest => return self.load.take().map(Running::stop).unwrap_or_default(),
        }
        outcome
    }
}

/// An open socket, whoever is at its other end.
pub(super) enum Socket {
    /// TCP, with what was read beyond a line.
    Tcp(BufReader<TcpStream>),
    /// Connected UDP, and how many bytes a question has.
    Udp(UdpSocket, usize),
    /// UDP, and whom to send to.
    Unconnected(UdpSocket, SocketAddr),
}

impl Socket {
    pub(super) fn open(target: SocketAddr, how: How, timeout: Duration) -> io::Result<Self> {
        if how == How::Tcp {
            let stream = TcpStream::connect_timeout(&target, timeout)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            return Ok(Self::Tcp(BufReader::new(stream)));
        }
        let any: IpAddr = match target {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_read_timeout(Some(timeout))?;
        if how == How::UdpUnconnected {
            return Ok(Self::Unconnected(socket, target));
        }
        socket.connect(target)?;
        let bytes = if how == How::UdpLarge { LARGE } else { 4 };
        Ok(Self::Udp(socket, bytes))
    }

    /// Asks for a name: who answers, and who the peer is said to be.
    pub(super) fn ask(&mut self) -> io::Result<(Answer, SocketAddr)> {
        let mut text = String::new();
        let mut buffer = [0; 2 * LARGE];
        let peer = match self {
            Self::Tcp(stream) => {
                stream.get_mut().write_all(b"who\n")?;
                if stream.read_line(&mut text)? == 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                stream.get_ref().peer_addr()?
            }
            Self::Udp(socket, bytes) => {
                let mut question = b"who\n".to_vec();
                question.resize(*bytes, b' ');
                socket.send(&question)?;
                let read = socket.recv(&mut buffer)?;
                if read < *bytes {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                text.push_str(&String::from_utf8_lossy(&buffer[..read]));
                socket.peer_addr()?
            }
            Self::Unconnected(socket, target) => {
                socket.send_to(b"who\n", *target)?;
                let (read, from) = socket.recv_from(&mut buffer)?;
                text.push_str(&String::from_utf8_lossy(&buffer[..read]));
                from
            }
        };
        Ok((serde_json::from_str(&text)?, peer))
    }
}

/// Sends bytes that differ everywhere, and compares the hash that comes back.
fn bulk(target: SocketAddr, bytes: u64) -> io::Result<(Answer, SocketAddr)> {
    let timeout = Duration::from_secs(60);
    let stream = TcpStream::connect_timeout(&target, Duration::from_secs(3))?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let mut stream = BufReader::new(stream);
    writeln!(stream.get_mut(), "bulk {bytes}")?;
    let mut hasher = DefaultHasher::new();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut chunk = vec![0; 1 << 16];
    let mut left = bytes;
    while left > 0 {
        for word in chunk.chunks_exact_mut(8) {
            // xorshift64: Marsaglia, Xorshift RNGs, 2003.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let now = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        hasher.write(&chunk[..now]);
        stream.get_mut().write_all(&chunk[..now])?;
        left -= now as u64;
    }
    let mut text = String::new();
    stream.read_line(&mut text)?;
    let answer: Answer = serde_json::from_str(&text)?;
    if answer.hash != hasher.finish() {
        return Err(io::Error::other("the bytes arrived changed"));
    }
    Ok((answer, stream.get_ref().peer_addr()?))
}

impl Outcome {
    pub(super) fn count(&mut self, result: io::Result<(Answer, SocketAddr)>) {
        match result {
            Ok((answer, peer)) => {
                *self.answers.entry(answer.pod).or_default() += 1;
                self.clients.insert(answer.client.ip());
                self.peers.insert(peer);
            }
            Err(error) => self.error(&error),
        }
    }

    pub(super) fn error(&mut self, error: &io::Error) {
        *self.errors.entry(kind(error)).or_default() += 1;
    }
}

/// The name of an error.
pub(super) fn kind(error: &io::Error) -> String {
    let known = [
        (libc::ECONNREFUSED, "ECONNREFUSED"),
        (libc::ECONNRESET, "ECONNRESET"),
        (libc::ECONNABORTED, "ECONNABORTED"),
        (libc::EHOSTUNREACH, "EHOSTUNREACH"),
        (libc::ENETUNREACH, "ENETUNREACH"),
        (libc::EADDRNOTAVAIL, "EADDRNOTAVAIL"),
        (libc::EPERM, "EPERM"),
        (libc::EPIPE, "EPIPE"),
        (libc::ENOTCONN, "ENOTCONN"),
        (libc::EDESTADDRREQ, "EDESTADDRREQ"),
    ];
    if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) {
        return "timeout".to_owned();
    }
    let name = known
        .iter()
        .find(|(errno, _)| error.raw_os_error() == Some(*errno));
    name.map_or_else(|| error.to_string(), |(_, name)| (*name).to_owned())
}
