//! Lines of a head that tell how long the message is.

use http::StatusCode;

/// Digits that the size of a chunk may have: those of 64 bits.
const CHUNK_DIGITS: usize = 16;

/// What a head tells of the length of its message.
#[derive(Debug, Default)]
pub(super) struct Framing {
    /// `Content-Length`.
    pub(super) length: Option<u64>,
    /// `Transfer-Encoding: chunked`.
    pub(super) chunked: bool,
    /// `Upgrade`.
    pub(super) upgrade: bool,
    old: bool,
}

impl Framing {
    /// Reads the request line.
    pub(super) fn request_line(&mut self, line: &[u8]) -> Result<(), StatusCode> {
        self.old = line.ends_with(b"HTTP/1.0");
        // hyper takes more than one space between the parts, and none of this is HTTP/0.9.
        let spaces = line.iter().filter(|byte| **byte == b' ').count();
        if spaces != 2 || line.contains(&b'\t') {
            return Err(StatusCode::BAD_REQUEST);
        }
        Ok(())
    }

    /// Reads a header.
    pub(super) fn header(&mut self, line: &[u8]) -> Result<(), StatusCode> {
        // Folded (RFC 9112, section 5.2), or a space before the colon (section 5.1).
        let Some(colon) = memchr::memchr(b':', line) else {
            return Err(StatusCode::BAD_REQUEST);
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || name.contains(&b' ') || name.contains(&b'\t') {
            return Err(StatusCode::BAD_REQUEST);
        }
        // The three names differ in their lengths.
        match name.len() {
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = digits(value).ok_or(StatusCode::BAD_REQUEST)?;
                if self.length.replace(length).is_some() {
                    return Err(StatusCode::BAD_REQUEST);
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                // RFC 9112, section 6.1: 501 for a coding that is not known.
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(StatusCode::NOT_IMPLEMENTED);
                }
                if std::mem::replace(&mut self.chunked, true) {
                    return Err(StatusCode::BAD_REQUEST);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What is wrong with the whole head (RFC 9112, section 6.3).
    pub(super) fn check(&mut self) -> Result<(), StatusCode> {
        // HTTP/1.0 has no other protocol to go to.
        self.upgrade &= !self.old;
        if self.chunked && (self.length.is_some() || self.old) {
            return Err(StatusCode::BAD_REQUEST);
        }
        Ok(())
    }
}

/// A number that is digits and nothing else.
pub(crate) fn digits(value: &[u8]) -> Option<u64> {
    // `parse` would take a sign.
    let all = value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| all)?;
    text.parse().ok()
}

/// The size of a chunk, of its line.
pub(super) fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit());
    let (size, rest) = line.split_at(digits.count());
    let rest = rest.trim_ascii_start();
    if size.len() > CHUNK_DIGITS || (!rest.is_empty() && !rest.starts_with(b";")) {
        return None;
    }
    // Space at the end is in no grammar, but some pad the size with it.
    let text = std::str::from_utf8(size).ok()?;
    u64::from_str_radix(text, 16).ok()
}
