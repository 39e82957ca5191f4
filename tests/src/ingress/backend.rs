//! Backends that answer with what they were asked, each in its way.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

/// A request as the backend saw it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// The backend's name.
    pub backend: String,
    /// Method.
    pub method: String,
    /// Target.
    pub target: String,
    /// Version of HTTP.
    pub version: String,
    /// Headers by their names in small letters; of several the values are joined by `, `. `:sni`
    /// is the name that TLS asked for, `:certificate` whether the client has shown one.
    pub headers: BTreeMap<String, String>,
    /// Body.
    pub body: String,
}

/// The header by which a request says how it is to be answered: a status, and headers behind it,
/// with `|` before each, or one of `!wait MS` (before the answer), `!bytes N` (that many of body),
/// `!slow MS` (between the head and the body), `!late` (before the body is read), `!reset` (no
/// answer) and `!garbage` (what is no answer).
pub const ANSWER: &str = "x-answer";

/// How a backend answers.
#[derive(Clone, Debug)]
pub enum Kind {
    /// As [`ANSWER`] says, else 200, with a [`Seen`].
    Echo,
    /// The same, over TLS.
    Tls(Arc<ServerConfig>),
    /// Errors in the place of others: by `X-Code`, else 404, with a [`Seen`].
    Errors,
    /// Whether a request may pass, by the path: `/STATUS/NAME:VALUE/…`. What it saw is in headers
    /// `saw-…` of its answer.
    Auth,
    /// In any case as [`ANSWER`] would.
    Always(&'static str),
    /// A request that has `/last` in its path, with the [`Seen`] of the last one before that has
    /// not.
    Last(Arc<Mutex<Option<Seen>>>),
    /// Never: nobody takes the connection.
    Full,
}

/// Serves an address in the calling thread's namespace, until the process ends.
///
/// # Panics
/// The address cannot be bound.
pub fn serve(name: &str, address: SocketAddr, kind: Kind) {
    if matches!(kind, Kind::Full) {
        return fill(address);
    }
    let listener = TcpListener::bind(address).unwrap_or_else(|e| panic!("{address}: {e}"));
    let name: Arc<str> = name.into();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Heads and bodies are written one after the other.
            let _ = stream.set_nodelay(true);
            let (name, kind) = (name.clone(), kind.clone());
            thread::spawn(move || {
                // Whoever closes early is done.
                let _ = connection(&name, stream, &kind);
            });
        }
    });
}

/// Listens, and has all the connections that nobody takes: the kernel drops what else comes.
fn fill(address: SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket can be made");
    let bound = socket.bind(&address.into()).and_then(|()| socket.listen(0));
    bound.unwrap_or_else(|e| panic!("{address}: {e}"));
    let waiting: Vec<_> = (0..4)
        .map_while(|_| TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok())
        .collect();
    thread::spawn(move || {
        thread::sleep(Duration::from_secs(3600));
        drop((socket, waiting));
    });
}

fn connection(name: &str, stream: TcpStream, kind: &Kind) -> io::Result<()> {
    let Kind::Tls(config) = kind else {
        return requests(name, stream, kind, &BTreeMap::new());
    };
    let tls = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(tls, stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    let sni = stream.conn.server_name().unwrap_or_default().to_owned();
    let shown = stream.conn.peer_certificates().is_some();
    let more = BTreeMap::from([
        (":sni".to_owned(), sni),
        (":certificate".to_owned(), shown.to_string()),
    ]);
    requests(name, stream, kind, &more)
}

fn requests(
    name: &str,
    stream: impl Read + Write,
    kind: &Kind,
    more: &BTreeMap<String, String>,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(mut seen) = head(name, &mut stream)? {
        let wanted = wanted(kind, &seen);
        if wanted.contains("!late") {
            thread::sleep(Duration::from_secs(30));
        }
        let body = body(&seen.headers, &mut stream)?;
        seen.body = String::from_utf8_lossy(&body).into_owned();
        seen.headers
            .extend(more.iter().map(|(k, v)| (k.clone(), v.clone())));
        if let Kind::Last(last) = kind {
            let mut last = last.lock().expect("nobody panics with it");
            match (seen.target.contains("/last"), &*last) {
                (true, Some(last)) => seen = last.clone(),
                (true, None) => {}
                (false, _) => *last = Some(seen.clone()),
            }
        }
        let goes_on = answer(stream.get_mut(), &wanted, &seen)?;
        if !goes_on || seen.version == "HTTP/1.0" {
            break;
        }
    }
    Ok(())
}

/// How a request is answered, as [`ANSWER`] says it.
fn wanted(kind: &Kind, seen: &Seen) -> String {
    let sent = |name: &str| seen.headers.get(name).cloned();
    match kind {
        Kind::Echo | Kind::Tls(_) | Kind::Last(_) | Kind::Full => {
            sent(ANSWER).unwrap_or_else(|| "200".to_owned())
        }
        Kind::Errors => sent("x-code").unwrap_or_else(|| "404".to_owned()),
        Kind::Always(wanted) => (*wanted).to_owned(),
        Kind::Auth => {
            let path = seen.target.split('?').next().unwrap_or_default();
            let mut parts: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
            let saw = seen.headers.iter();
            parts.extend(saw.map(|(name, value)| format!("saw-{name}: {value}")));
            parts.push(format!("saw-method: {}", seen.method));
            parts.push(format!("saw-body: {}", seen.body));
            parts.push(format!("saw-target: {}", seen.target));
            parts.join("|")
        }
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The next request without its body, if there is one.
fn head(name: &str, input: &mut impl BufRead) -> io::Result<Option<Seen>> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let mut word = || words.next().ok_or_else(|| malformed("a request line"));
    let (method, target, version) = (word()?, word()?, word()?);
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        let Some((key, value)) = line.trim_end().split_once(':') else {
            break;
        };
        let joined = headers.entry(key.to_ascii_lowercase()).or_default();
        if !joined.is_empty() {
            joined.push_str(", ");
        }
        joined.push_str(value.trim());
    }
    Ok(Some(Seen {
        backend: name.to_owned(),
        method,
        target,
        version,
        headers,
        body: String::new(),
    }))
}

fn body(headers: &BTreeMap<String, String>, input: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if let Some(len) = headers.get("content-length") {
        let len = len.parse().map_err(|_| malformed("a length"))?;
        input.take(len).read_to_end(&mut body)?;
    } else if headers
        .get("transfer-encoding")
        .is_some_and(|coding| coding == "chunked")
    {
        loop {
            let mut line = String::new();
            input.read_line(&mut line)?;
            let len = u64::from_str_radix(line.trim(), 16).map_err(|_| malformed("a chunk"))?;
            input.take(len).read_to_end(&mut body)?;
            input.read_line(&mut line)?;
            if len == 0 {
                break;
            }
        }
    }
    Ok(body)
}

/// Answers; `false` if the connection ends.
fn answer(stream: &mut (impl Read + Write), wanted: &str, seen: &Seen) -> io::Result<bool> {
    let mut parts = wanted.split('|').map(str::trim);
    let status = parts.next().unwrap_or("200");
    let mut head = format!("HTTP/1.1 {status} Answer\r\n");
    let mut body = serde_json::to_string(seen)?;
    let mut slow = Duration::ZERO;
    for part in parts.filter(|part| !part.is_empty()) {
        let (what, amount) = part.split_once(' ').unwrap_or((part, "0"));
        let millis = || Duration::from_millis(amount.parse().unwrap_or_default());
        match what {
            "!wait" => thread::sleep(millis()),
            "!slow" => slow = millis(),
            "!bytes" => body = "x".repeat(amount.parse().unwrap_or_default()),
            "!reset" => return Ok(false),
            "!garbage" => {
                stream.write_all(b"this is no answer\r\n\r\n")?;
                return Ok(false);
            }
            _ => head += &format!("{part}\r\n"),
        }
    }
    let is_switch = status == "101";
    let has_body = seen.method != "HEAD" && !["101", "204", "304"].contains(&status);
    if has_body {
        head += &format!("content-length: {}\r\n", body.len());
    }
    head += "\r\n";
    stream.write_all(head.as_bytes())?;
    stream.flush()?;
    if is_switch {
        return echo(stream).map(|()| false);
    }
    thread::sleep(slow);
    if has_body {
        stream.write_all(body.as_bytes())?;
        stream.flush()?;
    }
    Ok(true)
}

/// Says what it hears, in another protocol than HTTP.
fn echo(stream: &mut (impl Read + Write)) -> io::Result<()> {
    let mut bytes = [0; 1024];
    loop {
        let count = stream.read(&mut bytes)?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&bytes[..count])?;
        stream.flush()?;
    }
}
