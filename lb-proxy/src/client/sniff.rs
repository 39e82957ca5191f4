//! Which protocol the first bytes of a connection are.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What connections of HTTP/2 begin with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes that are read first: mostly a whole request.
const READ: usize = 2048;

/// Whether a connection is one of HTTP/2. What was read for that is in `read`.
///
/// # Errors
/// There is nothing to read.
pub(super) async fn is_h2<Io>(io: &mut Io, read: &mut BytesMut) -> io::Result<bool>
where
    Io: AsyncRead + Unpin,
{
    read.reserve(READ);
    loop {
        let there = read.len().min(PREFACE.len());
        if read[..there] != PREFACE[..there] {
            return Ok(false);
        }
        if there == PREFACE.len() {
            return Ok(true);
        }
        if io.read_buf(read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_preface_tells() {
        let cases: &[(&[u8], Option<bool>)] = &[
            (b"GET / HTTP/1.1\r\n", Some(false)),
            (b"P", None),
            (b"PUT / HTTP/1.1\r\n", Some(false)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(true)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04", Some(true)),
            (b"PRI * HTTP/2.0\r\n\r\nSN", Some(false)),
            (b"", None),
        ];
        for (bytes, expected) in cases {
            let mut read = BytesMut::new();
            let mut io = *bytes;
            let found = is_h2(&mut io, &mut read).await.ok();
            assert_eq!(found, *expected, "{bytes:?}");
            assert_eq!(&read[..], *bytes);
        }
    }
}
