//! A request on its way to an endpoint.

use std::{
    io::{self, IoSlice, Write as _},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use http::{Request, header::CONTENT_LENGTH, header::TRANSFER_ENCODING};
use http_body::Body as _;
use tokio::io::AsyncWrite;

use super::head;
use crate::{client::digits, upload::Upload, write::poll_write_pieces};

/// What is still to be sent of a request; nothing, before the first.
#[derive(Debug, Default)]
pub(super) struct Sending {
    /// The head, and what stands around chunks.
    frame: Vec<u8>,
    /// Bytes of it that were sent.
    at: usize,
    /// What follows it: a piece of the body.
    piece: Bytes,
    /// The rest of the body.
    upload: Option<Upload>,
    framing: Framing,
    /// Whether something of it was sent.
    begun: bool,
    state: State,
}

/// How the endpoint knows the end of the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Framing {
    /// By its length: so many bytes are still to come.
    Length(u64),
    /// By chunks; whether there was one.
    Chunks(bool),
}

impl Default for Framing {
    fn default() -> Self {
        Self::Length(0)
    }
}

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    /// There is more to be sent.
    UnderWay,
    /// All was sent.
    #[default]
    Over,
    /// The endpoint takes no more of it.
    Refused,
    /// There is no more of it: the client is at fault.
    NoSource,
}

impl Sending {
    /// A request, after another on the same connection.
    pub(super) fn begin(request: Request<Upload>, before: Self) -> Self {
        let (parts, upload) = request.into_parts();
        let chunked = parts.headers.contains_key(TRANSFER_ENCODING);
        let declared = parts.headers.get(CONTENT_LENGTH);
        let exact = upload.size_hint().exact();
        // Only what the proxy asks itself has no header.
        let untold = exact.filter(|bytes| *bytes > 0 && !chunked && declared.is_none());
        let declared = declared.and_then(|value| digits(value.as_bytes()));
        let framing = match chunked {
            true => Framing::Chunks(false),
            false => Framing::Length(declared.or(untold).unwrap_or_default()),
        };
        let mut frame = before.frame;
        frame.clear();
        head::write(&parts, untold, &mut frame);
        Self {
            frame,
            at: 0,
            piece: Bytes::new(),
            // Of one without bytes as well: what a header has promised must come, or be missed.
            upload: Some(upload),
            framing,
            begun: false,
            state: State::UnderWay,
        }
    }

    /// Whether all of it was sent.
    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Whether something of it may have been.
    pub(super) fn has_sent(&self) -> bool {
        self.begun
    }

    /// Whether there is more to be sent.
    pub(super) fn is_under_way(&self) -> bool {
        self.state == State::UnderWay
    }

    /// Whether the client is at fault that there is no more of it.
    pub(super) fn has_no_source(&self) -> bool {
        self.state == State::NoSource
    }

    /// Sends on; ready when there is no more to be sent.
    pub(super) fn poll<Io: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut Io,
    ) -> Poll<()> {
        if self.is_under_way() {
            let end = ready!(self.poll_all(cx, io));
            self.state = end.unwrap_or(State::Refused);
        }
        Poll::Ready(())
    }

    fn poll_all<Io: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut Io,
    ) -> Poll<io::Result<State>> {
        loop {
            let mut waits = false;
            if self.piece.is_empty() && self.upload.is_some() {
                match self.poll_piece(cx) {
                    Poll::Ready(true) => {}
                    Poll::Ready(false) => return Poll::Ready(Ok(State::NoSource)),
                    Poll::Pending => waits = true,
                }
            }
            if self.at < self.frame.len() || !self.piece.is_empty() {
                ready!(self.poll_write(cx, io))?;
                continue;
            }
            ready!(Pin::new(&mut *io).poll_flush(cx))?;
            if waits {
                return Poll::Pending;
            }
            if self.upload.is_none() {
                return Poll::Ready(Ok(State::Over));
            }
        }
    }

    /// Gets a piece of the body, and what stands around it; whether it, or the end, is what was
    /// promised.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let Some(upload) = &mut self.upload else {
            return Poll::Ready(true);
        };
        let piece = match ready!(Pin::new(upload).poll_frame(cx)) {
            Some(Ok(frame)) => frame.into_data().ok(),
            Some(Err(_)) => return Poll::Ready(false),
            None => None,
        };
        if self.at == self.frame.len() {
            self.frame.clear();
            self.at = 0;
        }
        let is_end = piece.is_none();
        let piece = piece.unwrap_or_default();
        let is_alike = match self.framing {
            Framing::Length(left) => self.of_length(left, piece, is_end),
            Framing::Chunks(any) => {
                self.chunk(any, piece, is_end);
                true
            }
        };
        if is_end {
            self.upload = None;
        }
        Poll::Ready(is_alike)
    }

    /// A piece of a body with a length; whether it agrees with that.
    fn of_length(&mut self, left: u64, piece: Bytes, is_end: bool) -> bool {
        let rest = left.checked_sub(piece.len() as u64);
        self.framing = Framing::Length(rest.unwrap_or_default());
        self.piece = piece;
        rest.is_some_and(|rest| !is_end || rest == 0)
    }

    /// A piece of a body with chunks. One without bytes would be the last.
    fn chunk(&mut self, any: bool, piece: Bytes, is_end: bool) {
        if piece.is_empty() && !is_end {
            return;
        }
        let before = if any { "\r\n" } else { "" };
        let after = if is_end { "\r\n" } else { "" };
        // A vector takes all.
        let _ = write!(self.frame, "{before}{:x}\r\n{after}", piece.len());
        self.framing = Framing::Chunks(true);
        self.piece = piece;
    }

    fn poll_write<Io: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut Io,
    ) -> Poll<io::Result<()>> {
        let frame = &self.frame[self.at..];
        let io = Pin::new(io);
        let written = match (frame.is_empty(), self.piece.is_empty()) {
            (false, true) => io.poll_write(cx, frame),
            (true, _) => io.poll_write(cx, &self.piece),
            (false, false) => {
                let pieces = [IoSlice::new(frame), IoSlice::new(&self.piece)];
                poll_write_pieces(io, cx, &pieces)
            }
        };
        let written = ready!(written)?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.begun = true;
        let of_frame = written.min(self.frame.len() - self.at);
        self.at += of_frame;
        self.piece.advance(written - of_frame);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// What is sent of a request of these lines and this body; none if its body is not what they
    /// say.
    fn sent(lines: &[(&str, &str)], body: &'static str) -> Option<String> {
        let mut request = Request::put("/").body(Upload::Whole(body.into())).unwrap();
        for (name, value) in lines {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        let mut out = Vec::new();
        let mut sending = Sending::begin(request, Sending::default());
        assert!(!sending.has_sent() && sending.is_under_way());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(sending.poll(&mut cx, &mut out).is_ready());
        assert_eq!(sending.is_over(), !sending.has_no_source());
        let text = String::from_utf8(out).unwrap();
        sending.is_over().then_some(text)
    }

    #[test]
    fn bodies_are_what_headers_say() {
        let chunked = ("transfer-encoding", "chunked");
        type Case<'c> = (&'c [(&'c str, &'c str)], &'static str, Option<&'c str>);
        let cases: &[Case<'_>] = &[
            (&[], "", Some("\r\n")),
            (&[], "abc", Some("content-length: 3\r\n\r\nabc")),
            (
                &[("content-length", "3")],
                "abc",
                Some("content-length: 3\r\n\r\nabc"),
            ),
            (
                &[("content-length", "0")],
                "",
                Some("content-length: 0\r\n\r\n"),
            ),
            (
                &[chunked],
                "abc",
                Some("transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
            ),
            (
                &[chunked],
                "",
                Some("transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
            ),
            (&[("content-length", "4")], "abc", None),
            (&[("content-length", "2")], "abc", None),
            (&[("content-length", "3")], "", None),
        ];
        for (lines, body, expected) in cases {
            let expected = expected.map(|text| format!("PUT / HTTP/1.1\r\n{text}"));
            assert_eq!(sent(lines, body), expected, "{lines:?} {body}");
        }
    }
}
