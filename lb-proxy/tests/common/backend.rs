//! A backend that keeps what it gets.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{Count, header};

/// What a backend does with a request.
#[derive(Clone)]
pub enum Do {
    /// Sends this.
    Send(String),
    /// Sends this, piece after piece, with pauses.
    Slowly(Vec<String>, Duration),
    /// Sends this and closes.
    Last(String),
    /// Closes.
    Close,
    /// Nothing.
    Nothing,
    /// Sends this, and then all that comes.
    Echo(String),
}

/// A request: its number of all, its number on its connection, and its bytes.
pub struct Got<'g> {
    pub number: usize,
    pub on_connection: usize,
    pub text: &'g str,
}

pub struct Backend {
    pub address: SocketAddr,
    pub connections: Arc<Count>,
    requests: Arc<Mutex<Vec<String>>>,
}

/// An answer with a body.
pub fn ok(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}")
}

impl Backend {
    /// That answers 200 with the target.
    pub async fn plain() -> Self {
        Self::new(|got| {
            let target = got.text.split(' ').nth(1).unwrap_or_default();
            Do::Send(ok(target))
        })
        .await
    }

    pub async fn new(acts: impl Fn(Got<'_>) -> Do + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(Count::default());
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let (counted, kept) = (connections.clone(), requests.clone());
        let acts = Arc::new(acts);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.add();
                tokio::spawn(serve(stream, acts.clone(), kept.clone()));
            }
        });
        Self {
            address,
            connections,
            requests,
        }
    }

    /// What has come, request by request.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    acts: Arc<impl Fn(Got<'_>) -> Do + Send + Sync + 'static>,
    kept: Arc<Mutex<Vec<String>>>,
) {
    stream.set_nodelay(true).unwrap();
    let mut read = Vec::new();
    let mut on_connection = 0;
    while let Some(request) = request(&mut stream, &mut read).await {
        on_connection += 1;
        let number = {
            let mut kept = kept.lock().unwrap();
            kept.push(request.clone());
            kept.len()
        };
        let act = acts(Got {
            number,
            on_connection,
            text: &request,
        });
        if !act_on(&mut stream, act).await {
            return;
        }
    }
}

/// Whether the connection goes on.
async fn act_on(stream: &mut TcpStream, act: Do) -> bool {
    match act {
        Do::Send(text) => stream.write_all(text.as_bytes()).await.is_ok(),
        Do::Slowly(pieces, pause) => {
            for piece in pieces {
                if stream.write_all(piece.as_bytes()).await.is_err() {
                    return false;
                }
                tokio::time::sleep(pause).await;
            }
            true
        }
        Do::Last(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.shutdown().await;
            false
        }
        Do::Close => false,
        Do::Nothing => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            false
        }
        Do::Echo(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = stream.write_all(b"bye").await;
            let _ = stream.shutdown().await;
            false
        }
    }
}

/// The next request, with its body: as any server reads it that trusts what comes.
async fn request(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(length) = whole(read) {
            let rest = read.split_off(length);
            let request = std::mem::replace(read, rest);
            return Some(String::from_utf8_lossy(&request).into_owned());
        }
        let mut piece = vec![0; 16 * 1024];
        let bytes = stream
            .read(&mut piece)
            .await
            .ok()
            .filter(|bytes| *bytes > 0)?;
        read.extend_from_slice(&piece[..bytes]);
    }
}

fn whole(read: &[u8]) -> Option<usize> {
    let head = read.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&read[..head]).into_owned();
    if header(&text, "transfer-encoding").is_some() {
        let end = read[head..].windows(5).position(|w| w == b"0\r\n\r\n")?;
        return Some(head + end + 5);
    }
    let length = header(&text, "content-length").map_or(0, |text| text.parse().unwrap());
    (read.len() >= head + length).then_some(head + length)
}
