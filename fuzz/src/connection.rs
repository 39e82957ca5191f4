//! What a client's connection leads to at a backend.

use std::{
    convert::Infallible,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    sync::Arc,
    time::Duration,
};

use http::{HeaderName, HeaderValue};
use lb_proxy::{Connect, Decide, Nobody, Options, Peer, Plain, Protocol, Proxy, Target};
use lb_route::{
    action::{Action, Upstream},
    input::Data,
    request::{Client, Head},
    settings::UpstreamTls,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use crate::site;

/// Bytes that a connection in memory holds.
const PIPE: usize = 64 * 1024;
/// What marks a request as the proxy's own.
const MARK: HeaderName = HeaderName::from_static("x-mark");
/// How long a client stays: longer than any timeout that ends what it has begun.
const PATIENCE: Duration = Duration::from_secs(300);

/// All that a client sends on a connection, and that ends. Whatever a backend gets of it are
/// requests that the proxy has written: each has one host, one length, and a mark that the client
/// cannot know.
pub fn connection(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without sockets");
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    let mark = format!("{:016x}", hasher.finish());
    runtime.block_on(talk(data, mark));
}

async fn talk(data: &[u8], mark: String) {
    let (failed, mut failures) = tokio::sync::mpsc::unbounded_channel();
    let marks = Arc::new(Marks(mark.clone()));
    let memory = Memory { mark, failed };
    let proxy = Proxy::new(Options::default(), marks, Arc::new(Nobody), memory);
    let (mut client, server) = duplex(PIPE);
    let peer = Peer {
        address: site::client(false).address,
        port: 80,
        tls: None,
        protocol: Protocol::Tell,
    };
    let served = tokio::spawn(proxy.serve(server, peer, |_| None));
    let exchange = async {
        let (mut reader, mut writer) = tokio::io::split(&mut client);
        let sends = async {
            // The proxy may close before it has read all.
            let _ = writer.write_all(data).await;
            let _ = writer.shutdown().await;
        };
        let mut answers = Vec::new();
        let _ = tokio::join!(sends, reader.read_to_end(&mut answers));
    };
    let _ = tokio::time::timeout(PATIENCE, exchange).await;
    drop(client);
    let ended = tokio::time::timeout(PATIENCE, served).await;
    let ended = ended.map(|ended| ended.map(|rests| rests.is_some()));
    assert!(
        matches!(ended, Ok(Ok(false))),
        "the connection has not ended well: {ended:?}"
    );
    if let Ok(failure) = failures.try_recv() {
        panic!("a backend got {failure}");
    }
}

/// The table, and a mark on each request.
struct Marks(String);

impl Decide for Marks {
    fn decide(&self, head: &Head<'_>, client: &Client) -> Action {
        let mut action = site::table().decide(head, client);
        if let Action::Forward(forward) = &mut action {
            let value = HeaderValue::from_str(&self.0).expect("hexadecimal digits");
            forward.headers.push((MARK, Some(value)));
        }
        action
    }

    fn upstream(&self, name: &str) -> Option<Arc<Upstream>> {
        site::table().upstream(name).cloned()
    }
}

/// Backends in memory.
struct Memory {
    mark: String,
    failed: tokio::sync::mpsc::UnboundedSender<String>,
}

impl Connect for Memory {
    type Io = DuplexStream;
    type Tls = Infallible;

    fn tls(
        &self,
        settings: &UpstreamTls,
        secret: Option<&Arc<Data>>,
        h2: bool,
        host: &str,
    ) -> io::Result<Infallible> {
        Plain.tls(settings, secret, h2, host)
    }

    async fn connect(&self, _: &Target<Infallible>) -> io::Result<DuplexStream> {
        let (near, far) = duplex(PIPE);
        let (mark, failed) = (self.mark.clone(), self.failed.clone());
        tokio::spawn(async move {
            if let Err(failure) = serve(far, &mark).await {
                // Nobody waits for it when the connection has ended.
                let _ = failed.send(failure);
            }
        });
        Ok(near)
    }
}

/// Reads requests as strictly as one can, and answers them.
async fn serve(mut io: DuplexStream, mark: &str) -> Result<(), String> {
    let mut bytes = Vec::new();
    loop {
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let read = request(&bytes, mark).map_err(|why| format!("{why}: {:?}", shown(&bytes)))?;
        if let Some(length) = read {
            bytes.drain(..length);
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            if io.write_all(answer).await.is_err() {
                return Ok(());
            }
        } else if io.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            // A request whose body the client has not sent is broken off.
            return Ok(());
        }
    }
}

/// The length of a request at the beginning, if it is all there.
fn request(bytes: &[u8], mark: &str) -> Result<Option<usize>, &'static str> {
    let mut headers = [httparse::EMPTY_HEADER; 256];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err("no request"),
    };
    let all = |name: &str| {
        let of_name = request.headers.iter();
        let of_name = of_name.filter(|header| header.name.eq_ignore_ascii_case(name));
        of_name.map(|header| header.value).collect::<Vec<_>>()
    };
    if all("x-mark") != [mark.as_bytes()] {
        return Err("a request that is not the proxy's");
    }
    if all("host").len() != 1 {
        return Err("a request without one host");
    }
    let body = &bytes[head..];
    let length = match (&all("content-length")[..], &all("transfer-encoding")[..]) {
        ([], []) => Some(0),
        ([length], []) => {
            let length = std::str::from_utf8(length).ok();
            let length = length.and_then(|length| length.parse::<usize>().ok());
            let length = length.ok_or("a length that is none")?;
            (length <= body.len()).then_some(length)
        }
        ([], [b"chunked"]) => chunks(body)?,
        _ => return Err("a request with more than one length"),
    };
    Ok(length.map(|length| head + length))
}

/// The length of a body of chunks, if it is all there.
fn chunks(body: &[u8]) -> Result<Option<usize>, &'static str> {
    let mut at = 0;
    loop {
        let (line, size) = match httparse::parse_chunk_size(&body[at..]) {
            Ok(httparse::Status::Complete(both)) => both,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err("a chunk without a size"),
        };
        at += line;
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).map_err(|_| "a chunk that no memory holds")?;
        match body.get(at + size..at + size + 2) {
            Some(b"\r\n") => at += size + 2,
            Some(_) => return Err("a chunk without an end"),
            None => return Ok(None),
        }
    }
    // Trailers, and an empty line.
    loop {
        let Some(end) = body[at..].windows(2).position(|two| two == b"\r\n") else {
            return Ok(None);
        };
        at += end + 2;
        if end == 0 {
            return Ok(Some(at));
        }
    }
}
