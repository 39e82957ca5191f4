//! The PROXY protocol, versions 1 and 2: what a load balancer in front says of a connection
//! before its first byte (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, of
//! 2020/03/05).
//!
//! It is read here and not by a crate: those that there are take ports like `+80`, and one any
//! byte behind `PROXY`. Two receivers that read one header differently are what an attacker
//! looks for.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use tokio::{io::AsyncReadExt as _, net::TcpStream, time};

/// How long a header may take (`proxy-protocol-header-timeout` of ingress-nginx).
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a header, with all that it carries besides addresses, as nginx has it.
pub const MOST: usize = 4096;
/// Bytes of a header of version 1 (section 2.1).
const MOST_V1: usize = 107;
/// What begins a header of version 2 (section 2.2).
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of version 2 before addresses.
const FIXED: usize = 16;
/// A checksum of the header (section 2.2.3).
const TLV_CRC32C: u8 = 0x03;

/// What a header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Header {
    /// The connection is forwarded for another one.
    Forwarded {
        /// Who dialled.
        source: SocketAddr,
        /// What was dialled.
        destination: SocketAddr,
    },
    /// The sender speaks for itself, or cannot tell: the connection's own addresses count.
    Local,
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// The beginning of a header: all bytes belong to it.
    Incomplete,
    /// A header, and how many bytes it has.
    Header(Header, usize),
}

/// Bytes that are no header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    /// Neither version.
    #[error(
        "a connection does not begin with a PROXY header; have what is in front send it, or switch use-proxy-protocol off"
    )]
    Missing,
    /// Version 1, but not by its grammar.
    #[error("a PROXY header of version 1 is malformed: {0}")]
    Line(&'static str),
    /// Version 2, but not by its grammar.
    #[error("a PROXY header of version 2 is malformed: {0}")]
    Binary(&'static str),
}

/// Why a connection has no header.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// Other bytes.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The connection broke, or ended.
    #[error("a connection ended before its PROXY header: {0}")]
    Io(#[from] io::Error),
    /// It took too long.
    #[error(
        "a connection sent no PROXY header for {0:?}; have what is in front send it, or switch use-proxy-protocol off"
    )]
    Timeout(Duration),
}

/// Reads the header of a connection and nothing behind it.
///
/// # Errors
/// There is none: the connection has to be closed.
pub async fn read(stream: &mut TcpStream, within: Duration) -> Result<Header, Failed> {
    let header = time::timeout(within, read_header(stream)).await;
    header.unwrap_or(Err(Failed::Timeout(within)))
}

async fn read_header(stream: &mut TcpStream) -> Result<Header, Failed> {
    let mut bytes = Vec::new();
    loop {
        let taken = bytes.len();
        bytes.resize(MOST, 0);
        // What is only looked at stays for whoever reads what is behind the header.
        let seen = stream.peek(&mut bytes[taken..]).await?;
        if seen == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        bytes.truncate(taken + seen);
        let (header, length) = match parse(&bytes)? {
            Parsed::Incomplete => (None, bytes.len()),
            Parsed::Header(header, length) => (Some(header), length),
        };
        stream.read_exact(&mut bytes[taken..length]).await?;
        if let Some(header) = header {
            return Ok(header);
        }
    }
}

/// Reads a header at the beginning of `bytes`.
///
/// # Errors
/// The bytes begin no header of at most [`MOST`] bytes.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let begins = |with: &[u8]| {
        let common = bytes.len().min(with.len());
        bytes[..common] == with[..common]
    };
    if begins(&SIGNATURE) {
        parse_binary(bytes)
    } else if begins(b"PROXY ") {
        parse_line(bytes)
    } else {
        Err(Malformed::Missing)
    }
}

/// Version 1: `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443`, and the end of a line.
fn parse_line(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let window = &bytes[..bytes.len().min(MOST_V1)];
    let Some(end) = window.windows(2).position(|two| two == b"\r\n") else {
        return match window.len() {
            MOST_V1 => Err(Malformed::Line("its line has no end within 107 bytes")),
            _ => Ok(Parsed::Incomplete),
        };
    };
    let length = end + 2;
    let line = std::str::from_utf8(&window[..end]).map_err(|_| Malformed::Line("no ASCII"))?;
    let mut words = line.split(' ').skip(1);
    let header = match words.next() {
        Some("TCP4") => forwarded::<Ipv4Addr>(words)?,
        Some("TCP6") => forwarded::<Ipv6Addr>(words)?,
        // What follows is to be ignored.
        Some("UNKNOWN") => Header::Local,
        _ => return Err(Malformed::Line("neither TCP4, TCP6 nor UNKNOWN")),
    };
    Ok(Parsed::Header(header, length))
}

fn forwarded<'a, A: FromStr + Into<IpAddr>>(
    words: impl Iterator<Item = &'a str>,
) -> Result<Header, Malformed> {
    let words: Vec<_> = words.take(5).collect();
    let [source, destination, source_port, destination_port] = words[..] else {
        return Err(Malformed::Line("not two addresses and two ports"));
    };
    let address = |text: &str| {
        let address = text
            .parse::<A>()
            .map_err(|_| Malformed::Line("no address of its family"));
        address.map(Into::into)
    };
    Ok(Header::Forwarded {
        source: SocketAddr::new(address(source)?, port(source_port)?),
        destination: SocketAddr::new(address(destination)?, port(destination_port)?),
    })
}

/// Decimal, without sign and without zeros in front.
fn port(text: &str) -> Result<u16, Malformed> {
    let wrong = Malformed::Line("no port");
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    if !plain || (text.len() > 1 && text.starts_with('0')) {
        return Err(wrong);
    }
    text.parse().map_err(|_| wrong)
}

/// Version 2: the signature, version and command, family, length, addresses, and what is typed.
fn parse_binary(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED) else {
        return Ok(Parsed::Incomplete);
    };
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if FIXED + length > MOST {
        return Err(Malformed::Binary("it has more than 4096 bytes"));
    }
    let proxied = match fixed[12] {
        0x20 => false,
        0x21 => true,
        _ => return Err(Malformed::Binary("neither version 2, nor LOCAL or PROXY")),
    };
    let Some(payload) = rest.get(..length) else {
        return Ok(Parsed::Incomplete);
    };
    let whole = &bytes[..FIXED + length];
    let header = match proxied {
        true => proxied_header(fixed[13], payload, whole)?,
        false => Header::Local,
    };
    Ok(Parsed::Header(header, whole.len()))
}

fn proxied_header(family: u8, payload: &[u8], whole: &[u8]) -> Result<Header, Malformed> {
    // Family and transport; addresses of datagrams and of Unix sockets say nothing of a
    // connection.
    let (addresses, tcp) = match family {
        0x00 => (0, false),
        0x11 => (12, true),
        0x12 => (12, false),
        0x21 => (36, true),
        0x22 => (36, false),
        0x31 | 0x32 => (216, false),
        _ => return Err(Malformed::Binary("its family or transport is unknown")),
    };
    let Some((addresses, tlvs)) = payload.split_at_checked(addresses) else {
        return Err(Malformed::Binary("it is too short for its addresses"));
    };
    // Who cannot tell addresses may send anything in their place.
    if family != 0 {
        check_tlvs(tlvs, whole)?;
    }
    if !tcp {
        return Ok(Header::Local);
    }
    let (hosts, ports) = addresses.split_at(addresses.len() - 4);
    let (source, destination) = hosts.split_at(hosts.len() / 2);
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    Ok(Header::Forwarded {
        source: SocketAddr::new(address(source), port(0)),
        destination: SocketAddr::new(address(destination), port(2)),
    })
}

/// 4 bytes or 16.
fn address(bytes: &[u8]) -> IpAddr {
    match <[u8; 4]>::try_from(bytes) {
        Ok(v4) => Ipv4Addr::from(v4).into(),
        Err(_) => {
            let mut v6 = [0; 16];
            v6.copy_from_slice(bytes);
            Ipv6Addr::from(v6).into()
        }
    }
}

/// Values with a type and a length: they have to fit, and a checksum has to be right.
fn check_tlvs(mut tlvs: &[u8], whole: &[u8]) -> Result<(), Malformed> {
    while let [kind, high, low, rest @ ..] = tlvs {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((value, after)) = rest.split_at_checked(length) else {
            return Err(Malformed::Binary("a value is longer than the header"));
        };
        if *kind == TLV_CRC32C {
            let sum = <[u8; 4]>::try_from(value);
            let sum = sum.map_err(|_| Malformed::Binary("its checksum has not 4 bytes"))?;
            let at = whole.len() - after.len() - sum.len();
            if crc32c(whole, at..at + sum.len()) != u32::from_be_bytes(sum) {
                return Err(Malformed::Binary("its checksum is wrong"));
            }
        }
        tlvs = after;
    }
    match tlvs {
        [] => Ok(()),
        _ => Err(Malformed::Binary("a value has no length")),
    }
}

/// CRC32C (RFC 3720, appendix B.4), with some bytes taken as zero.
fn crc32c(bytes: &[u8], zero: std::ops::Range<usize>) -> u32 {
    let crc = bytes.iter().enumerate().fold(u32::MAX, |crc, (at, byte)| {
        let byte = if zero.contains(&at) { 0 } else { *byte };
        (0..8).fold(crc ^ u32::from(byte), |crc, _| match crc & 1 {
            0 => crc >> 1,
            _ => (crc >> 1) ^ 0x82f6_3b78,
        })
    });
    !crc
}

#[cfg(test)]
mod tests;
