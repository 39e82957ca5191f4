//! What runs in each pod: an HTTP server and a UDP server, which answer with the pod's name
//! and the address that they see their client at.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::topology::{HTTP_PORT, UDP_PORT};

/// How long a silent client is kept.
const IDLE: Duration = Duration::from_secs(30);

/// Arguments of `lab-serve`.
#[derive(clap::Args, Debug)]
pub(crate) struct ServeArgs {
    /// Name that the answers carry.
    #[arg(long)]
    name: String,
    /// TCP port of the HTTP server.
    #[arg(long, default_value_t = HTTP_PORT)]
    http: u16,
    /// Port of the UDP server.
    #[arg(long, default_value_t = UDP_PORT)]
    udp: u16,
}

/// An answer, as JSON.
#[derive(Serialize, Deserialize, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    /// The pod that answers.
    pub pod: String,
    /// The client's address, as the pod sees it.
    pub client: SocketAddr,
}

impl Answer {
    fn line(pod: &str, client: SocketAddr) -> String {
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        let answer = Self {
            pod: pod.to_owned(),
            client,
        };
        // A struct of two strings cannot fail to serialise; an empty answer would be reported.
        serde_json::to_string(&answer).unwrap_or_default() + "\n"
    }
}

/// Serves until the process is killed. The sockets take both families: IPv4 clients are seen
/// in mapped form, which the answer undoes.
///
/// # Errors
/// A port cannot be bound.
pub(crate) fn serve(args: ServeArgs) -> Result<()> {
    let http = TcpListener::bind((Ipv6Addr::UNSPECIFIED, args.http))
        .with_context(|| format!("cannot listen on TCP port {}", args.http))?;
    let udp = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, args.udp))
        .with_context(|| format!("cannot listen on UDP port {}", args.udp))?;
    let name = args.name.clone();
    std::thread::spawn(move || echo(&udp, &name));
    loop {
        match http.accept() {
            Ok((stream, client)) => {
                let name = args.name.clone();
                std::thread::spawn(move || answer(&stream, &name, client));
            }
            // One client that gave up, or a moment without free descriptors.
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Answers the requests of one connection, until the client closes it or asks for its end.
fn answer(mut stream: &TcpStream, name: &str, client: SocketAddr) {
    let _ = stream.set_read_timeout(Some(IDLE));
    let mut lines = BufReader::new(stream).lines();
    loop {
        let mut close = false;
        let mut head = 0;
        loop {
            let Some(Ok(line)) = lines.next() else { return };
            if line.is_empty() {
                break;
            }
            head += line.len();
            close |= line.eq_ignore_ascii_case("connection: close");
            if head > 16_384 {
                return;
            }
        }
        let body = Answer::line(name, client);
        let ending = if close { "close" } else { "keep-alive" };
        let text = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: {ending}\r\n\r\n{body}",
            body.len()
        );
        if stream.write_all(text.as_bytes()).is_err() || close {
            return;
        }
    }
}

fn echo(udp: &UdpSocket, name: &str) {
    let mut buffer = [0; 2048];
    loop {
        // Errors are those of earlier answers that a client refused.
        if let Ok((_, client)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(Answer::line(name, client).as_bytes(), client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_the_client_in_its_own_family() {
        let line = Answer::line("n1-a", "[::ffff:10.0.0.1]:1234".parse().unwrap());
        assert_eq!(line, "{\"pod\":\"n1-a\",\"client\":\"10.0.0.1:1234\"}\n");
        let line = Answer::line("n1-a", "[fd00::1]:1234".parse().unwrap());
        assert_eq!(line, "{\"pod\":\"n1-a\",\"client\":\"[fd00::1]:1234\"}\n");
    }
}
