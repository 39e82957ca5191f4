//! What pods serve: a name for every line of a TCP connection and for every datagram.

use std::hash::{DefaultHasher, Hasher as _};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use serde::{Deserialize, Serialize};

use super::proto::LARGE;

/// What a pod answers, as a line of JSON.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Answer {
    /// Its name.
    pub pod: String,
    /// The client that it sees.
    pub client: SocketAddr,
    /// The hash of the bytes that it received, if it was sent some.
    pub hash: u64,
}

/// Serves on a port of all addresses, on threads of its own.
///
/// # Errors
/// The port is taken.
pub fn serve(name: &str, port: u16) -> io::Result<()> {
    let any = (Ipv6Addr::UNSPECIFIED, port);
    let (tcp, udp) = (TcpListener::bind(any)?, UdpSocket::bind(any)?);
    let (for_tcp, for_udp) = (name.to_owned(), name.to_owned());
    std::thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            let name = for_tcp.clone();
            // A client that goes away is no failure of the server's.
            std::thread::spawn(move || talk(stream, &name));
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 2 * LARGE];
        loop {
            // Errors are those of earlier answers that a client refused.
            if let Ok((read, client)) = udp.recv_from(&mut buffer) {
                let mut answer = line(&for_udp, client, 0).into_bytes();
                // What is asked at length is answered at length.
                answer.resize(answer.len().max(read), b' ');
                let _ = udp.send_to(&answer, client);
            }
        }
    });
    Ok(())
}

fn line(pod: &str, client: SocketAddr, hash: u64) -> String {
    let client = SocketAddr::new(client.ip().to_canonical(), client.port());
    let answer = Answer {
        pod: pod.to_owned(),
        client,
        hash,
    };
    serde_json::to_string(&answer).unwrap_or_default() + "\n"
}

/// Answers every line; after `bulk N`, N bytes are read first.
fn talk(stream: TcpStream, name: &str) -> io::Result<()> {
    let client = stream.peer_addr()?;
    stream.set_nodelay(true)?;
    let mut out = stream.try_clone()?;
    let mut input = BufReader::with_capacity(1 << 16, stream);
    loop {
        let mut question = String::new();
        if input.read_line(&mut question)? == 0 {
            return Ok(());
        }
        let mut sum = 0;
        if let Some(bytes) = question.trim().strip_prefix("bulk ") {
            let mut hasher = DefaultHasher::new();
            let mut left: u64 = bytes.parse().map_err(io::Error::other)?;
            let mut buffer = vec![0; 1 << 16];
            while left > 0 {
                let most = usize::try_from(left)
                    .unwrap_or(usize::MAX)
                    .min(buffer.len());
                let read = input.read(&mut buffer[..most])?;
                if read == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                hasher.write(&buffer[..read]);
                left -= read as u64;
            }
            sum = hasher.finish();
        }
        out.write_all(line(name, client, sum).as_bytes())?;
    }
}
