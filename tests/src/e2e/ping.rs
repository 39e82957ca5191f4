//! ICMP echo, by a raw socket.

use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Identifier of our requests, which differs between processes.
fn id() -> u16 {
    std::process::id() as u16
}

/// Asks an address, and waits for its answer.
///
/// # Errors
/// Nobody has answered in time (`WouldBlock`), or the request could not be sent.
pub(super) fn ping(target: IpAddr, timeout: Duration) -> io::Result<()> {
    let (domain, protocol, request, reply) = match target {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    let mut socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.connect(&SockAddr::from(std::net::SocketAddr::new(target, 0)))?;
    socket.set_read_timeout(Some(timeout))?;
    let [hi, lo] = id().to_be_bytes();
    let mut message = [request, 0, 0, 0, hi, lo, 0, 1];
    if target.is_ipv4() {
        // Of ICMPv6 the kernel computes it.
        let sum = etherparse::checksum::u32_16bit_word::add_slice(0, &message);
        let field = etherparse::checksum::u32_16bit_word::ones_complement(sum);
        message[2..4].copy_from_slice(&field.to_ne_bytes());
    }
    socket.write_all(&message)?;
    let end = Instant::now() + timeout;
    let mut buffer = [0; 2048];
    while Instant::now() < end {
        let read = socket.read(&mut buffer)?;
        // IPv4 comes with its header.
        let start = if target.is_ipv4() {
            usize::from(buffer[0] & 0xf) * 4
        } else {
            0
        };
        let answer = &buffer[start.min(read)..read];
        if answer.first() == Some(&reply) && answer.get(4..6) == Some(&[hi, lo]) {
            return Ok(());
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}
