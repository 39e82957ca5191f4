//! What runs in each pod: an HTTP server and a UDP server, which answer with the pod's name
//! and the address that they see their client at.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
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
    /// What a proxy in front says, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxied: Option<Proxied>,
}

/// What a proxy says of a request.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Proxied {
    /// The client's address (`X-Real-IP`).
    pub client: IpAddr,
    /// The path that the proxy asks for.
    pub path: String,
}

impl Answer {
    fn line(pod: &str, client: SocketAddr, proxied: Option<Proxied>) -> String {
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        let answer = Self {
            pod: pod.to_owned(),
            client,
            proxied,
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
        let mut head = Vec::new();
        let mut length = 0;
        loop {
            let Some(Ok(line)) = lines.next() else { return };
            if line.is_empty() {
                break;
            }
            length += line.len();
            close |= line.eq_ignore_ascii_case("connection: close");
            if length > 16_384 {
                return;
            }
            head.push(line);
        }
        let body = Answer::line(name, client, proxied(&head));
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

/// What a proxy says in the head of a request.
fn proxied(head: &[String]) -> Option<Proxied> {
    let fields = head.iter().filter_map(|line| line.split_once(": "));
    let mut addrs = fields.filter(|(name, _)| name.eq_ignore_ascii_case("x-real-ip"));
    let target = head.first()?.split(' ').nth(1)?;
    Some(Proxied {
        client: addrs.next()?.1.parse().ok()?,
        path: target.split('?').next().unwrap_or_default().to_owned(),
    })
}

fn echo(udp: &UdpSocket, name: &str) {
    let mut buffer = [0; 2048];
    loop {
        // Errors are those of earlier answers that a client refused.
        if let Ok((_, client)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(Answer::line(name, client, None).as_bytes(), client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_the_client_in_its_own_family() {
        let line = |client: &str| Answer::line("n1-a", client.parse().unwrap(), None);
        let line4 = line("[::ffff:10.0.0.1]:1234");
        assert_eq!(line4, "{\"pod\":\"n1-a\",\"client\":\"10.0.0.1:1234\"}\n");
        let line6 = line("[fd00::1]:1234");
        assert_eq!(line6, "{\"pod\":\"n1-a\",\"client\":\"[fd00::1]:1234\"}\n");
    }

    #[test]
    fn a_proxy_in_front_is_told_by_its_header() {
        let head = |lines: &[&str]| lines.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
        let direct = head(&["GET /a HTTP/1.1", "host: h"]);
        assert_eq!(proxied(&direct), None);
        let by_proxy = head(&["GET /a?b=1 HTTP/1.1", "X-Real-IP: 172.31.0.100"]);
        let said = Proxied {
            client: "172.31.0.100".parse().unwrap(),
            path: "/a".to_owned(),
        };
        assert_eq!(proxied(&by_proxy), Some(said));
    }
}
