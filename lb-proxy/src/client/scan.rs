//! A strict look at HTTP/1 requests as they come in, before the parser of hyper sees them.
//!
//! hyper decides how long a message is; what is refused here is what other servers could read in
//! another way, so that a second request hides in the first (RFC 9112, section 11.2): lines that
//! no CRLF ends, folded lines, `Content-Length` beside `Transfer-Encoding`, lengths that come
//! twice, codings other than `chunked`, chunk sizes that are none, and bytes behind a request that
//! asks for another protocol. So are heads that are too large.

mod head;

use http::StatusCode;
use memchr::{memchr, memchr3};

use head::Framing;
pub(crate) use head::digits;

/// Empty lines that may come before a request (RFC 9112, section 2.2, has one).
const EMPTY_LINES: u8 = 4;
/// Bytes that the size of a chunk may have with its extensions: more than anything that is in use.
const CHUNK_LINE: usize = 512;
/// Bytes that all trailers of a request may have.
const TRAILERS: usize = 8 * 1024;

/// What is wrong with what a client sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wrong {
    /// The head: the request gets this status.
    Head(StatusCode),
    /// The body: it ends here.
    Body,
}

/// Where in a message the next byte is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// Between two messages.
    Between,
    /// In a head.
    Head,
    /// In a body.
    Body,
    /// Behind a request that asks for another protocol.
    Held,
    /// In no message of HTTP/1.
    Raw,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    RequestLine,
    Headers,
    Length(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    Held,
    Raw,
}

/// Looks at the bytes of a connection.
#[derive(Debug)]
pub(crate) struct Scanner {
    state: State,
    /// Bytes of a line, and of a whole head.
    limits: (usize, usize),
    /// Where the first line that is not yet looked at begins, in what is not yet let through.
    line: usize,
    empty_lines: u8,
    trailers: usize,
    framing: Framing,
    /// Length of the last head.
    head: usize,
    /// Heads that have passed.
    heads: u64,
    wrong: Option<Wrong>,
}

impl Scanner {
    /// For a connection, with the bytes that a line may have, and those of a whole head, and how
    /// many of these have passed already.
    pub(crate) fn new(line: usize, head: usize, heads: u64) -> Self {
        Self {
            state: State::RequestLine,
            limits: (line, head),
            line: 0,
            empty_lines: 0,
            trailers: 0,
            framing: Framing::default(),
            head: 0,
            heads,
            wrong: None,
        }
    }

    /// For a connection that is not HTTP/1.
    pub(crate) fn raw() -> Self {
        Self {
            state: State::Raw,
            ..Self::new(0, 0, 0)
        }
    }

    /// Where the next byte is.
    pub(crate) fn place(&self) -> Place {
        match self.state {
            State::RequestLine if self.line == 0 => Place::Between,
            State::RequestLine | State::Headers => Place::Head,
            State::Held => Place::Held,
            State::Raw => Place::Raw,
            _ => Place::Body,
        }
    }

    /// Length of the last head, in bytes.
    pub(crate) fn head(&self) -> usize {
        self.head
    }

    /// How many heads have passed.
    pub(crate) fn heads(&self) -> u64 {
        self.heads
    }

    /// What follows the request that asked for another protocol: that protocol (`raw`), or another
    /// request.
    pub(crate) fn release(&mut self, raw: bool) {
        self.state = if raw { State::Raw } else { State::RequestLine };
    }

    /// How many of these bytes may pass: whole heads, and what is there of bodies. The rest has to
    /// come again, with more.
    ///
    /// # Errors
    /// The first byte is of what may not pass, nor may anything that follows.
    pub(crate) fn look(&mut self, bytes: &[u8]) -> Result<usize, Wrong> {
        let mut at = 0;
        while at < bytes.len() && self.wrong.is_none() {
            match self.step(&bytes[at..]) {
                Ok(0) => break,
                Ok(passed) => at += passed,
                Err(wrong) => self.wrong = Some(wrong),
            }
        }
        match self.wrong {
            Some(wrong) if at == 0 => Err(wrong),
            _ => Ok(at),
        }
    }

    fn step(&mut self, bytes: &[u8]) -> Result<usize, Wrong> {
        match self.state {
            State::Raw => Ok(bytes.len()),
            State::Held => Err(Wrong::Body),
            State::Length(left) => Ok(self.body(left, bytes.len(), State::Length)),
            State::Chunk(left) => Ok(self.body(left, bytes.len(), State::Chunk)),
            State::ChunkEnd => self.chunk_end(bytes),
            State::ChunkSize => self.chunk_size(bytes),
            State::Trailers => self.trailer(bytes),
            State::RequestLine | State::Headers => self.head_line(bytes),
        }
    }

    /// Bytes of a body, or of a chunk.
    fn body(&mut self, left: u64, there: usize, still: fn(u64) -> State) -> usize {
        let passed = usize::try_from(left).map_or(there, |left| left.min(there));
        // No more than `left`.
        let left = left - passed as u64;
        if left > 0 {
            self.state = still(left);
        } else if self.state == State::Length(passed as u64) {
            self.message_ends();
        } else {
            self.state = State::ChunkEnd;
        }
        passed
    }

    fn message_ends(&mut self) {
        self.state = if self.framing.upgrade {
            State::Held
        } else {
            State::RequestLine
        };
        self.framing = Framing::default();
        self.empty_lines = 0;
    }

    fn chunk_end(&mut self, bytes: &[u8]) -> Result<usize, Wrong> {
        match bytes {
            [b'\r', b'\n', ..] => {
                self.state = State::ChunkSize;
                Ok(2)
            }
            [b'\r'] => Ok(0),
            _ => Err(Wrong::Body),
        }
    }

    fn chunk_size(&mut self, bytes: &[u8]) -> Result<usize, Wrong> {
        let Some((size, length)) = chunk_line(bytes).ok_or(Wrong::Body)? else {
            return Ok(0);
        };
        self.state = match size {
            0 => State::Trailers,
            size => State::Chunk(size),
        };
        self.trailers = 0;
        Ok(length)
    }

    fn trailer(&mut self, bytes: &[u8]) -> Result<usize, Wrong> {
        let Some(text) = line(bytes, TRAILERS).ok_or(Wrong::Body)? else {
            return Ok(0);
        };
        self.trailers += text.len() + 2;
        if text.is_empty() {
            self.message_ends();
        } else if self.trailers > TRAILERS || text.starts_with(b" ") || text.starts_with(b"\t") {
            return Err(Wrong::Body);
        }
        Ok(text.len() + 2)
    }

    /// Lines of a head. None of it passes before it is whole.
    fn head_line(&mut self, bytes: &[u8]) -> Result<usize, Wrong> {
        loop {
            let in_line = self.state == State::RequestLine;
            let too_large = if in_line {
                StatusCode::URI_TOO_LONG
            } else {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            };
            let rest = &bytes[self.line.min(bytes.len())..];
            let text = match line(rest, self.limits.0) {
                Some(Some(text)) => text,
                Some(None) => {
                    // So that a head that has begun is seen as one.
                    return self.within(bytes.len()).map(|()| 0);
                }
                None if rest.len() > self.limits.0 && !broken(rest, self.limits.0) => {
                    return Err(Wrong::Head(too_large));
                }
                None => return Err(Wrong::Head(StatusCode::BAD_REQUEST)),
            };
            self.line += text.len() + 2;
            self.within(self.line)?;
            if !in_line && text.is_empty() {
                return self.head_ends(bytes);
            }
            if in_line && text.is_empty() {
                self.empty_lines += 1;
                if self.empty_lines > EMPTY_LINES {
                    return Err(Wrong::Head(StatusCode::BAD_REQUEST));
                }
            } else if in_line {
                self.framing.request_line(text).map_err(Wrong::Head)?;
                self.state = State::Headers;
            } else {
                self.framing.header(text).map_err(Wrong::Head)?;
            }
        }
    }

    fn within(&self, head: usize) -> Result<(), Wrong> {
        if head > self.limits.1 {
            return Err(Wrong::Head(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
        }
        Ok(())
    }

    fn head_ends(&mut self, bytes: &[u8]) -> Result<usize, Wrong> {
        let length = std::mem::take(&mut self.line);
        self.head = length;
        self.framing.check().map_err(Wrong::Head)?;
        match (self.framing.chunked, self.framing.length) {
            (true, _) => self.state = State::ChunkSize,
            (false, Some(length)) if length > 0 => self.state = State::Length(length),
            _ => self.message_ends(),
        }
        // Whoever speaks before it knows that it may would have its bytes read as the other
        // protocol, or as a request.
        if self.state == State::Held && bytes.len() > length {
            return Err(Wrong::Head(StatusCode::BAD_REQUEST));
        }
        self.heads += 1;
        Ok(length)
    }
}

/// The size of a chunk, and the length of the line that tells it; `Some(None)` if that has not all
/// come, `None` if it is none.
pub(crate) fn chunk_line(bytes: &[u8]) -> Option<Option<(u64, usize)>> {
    let Some(text) = line(bytes, CHUNK_LINE)? else {
        return Some(None);
    };
    Some(Some((head::chunk_size(text)?, text.len() + 2)))
}

/// The first line without its CRLF; `Some(None)` if it has not all come, `None` if it has another
/// end, a byte that no line has, or is longer than `most`.
fn line(bytes: &[u8], most: usize) -> Option<Option<&[u8]>> {
    let Some(end) = memchr(b'\n', &bytes[..bytes.len().min(most + 2)]) else {
        let ended = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        return (ended.len() <= most && clean(ended)).then_some(None);
    };
    let text = bytes[..end].strip_suffix(b"\r")?;
    clean(text).then_some(Some(text))
}

/// Whether the first `most` bytes are the cause why they are no line.
fn broken(bytes: &[u8], most: usize) -> bool {
    !clean(&bytes[..most]) || memchr(b'\n', &bytes[..most]).is_some()
}

fn clean(text: &[u8]) -> bool {
    memchr3(b'\r', b'\n', 0, text).is_none()
}

#[cfg(test)]
mod tests;
