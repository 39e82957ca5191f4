//! Bodies of answers, as HTTP/1 writes them (RFC 9112, sections 6 and 7).

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;

use super::head;
use crate::client::chunk_line;

/// Bytes that all trailers of an answer may have.
const TRAILERS: usize = 16 * 1024;

/// What came is no body of the kind that was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Malformed;

/// Where in a body the next byte is, and how its end is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Decoder {
    /// So many bytes are to come.
    Length(u64),
    /// At the size of a chunk.
    Size,
    /// So many bytes of a chunk are to come.
    Chunk(u64),
    /// Behind a chunk.
    ChunkEnd,
    /// Behind the last chunk.
    Trailers,
    /// What is to come until the connection ends.
    Close,
    /// All has come.
    Over,
}

impl Decoder {
    /// A body of so many bytes.
    pub(super) fn of_length(bytes: u64) -> Self {
        match bytes {
            0 => Self::Over,
            bytes => Self::Length(bytes),
        }
    }

    /// Whether all has come.
    pub(super) fn is_over(self) -> bool {
        self == Self::Over
    }

    /// How many bytes are still to come, if that is known.
    pub(super) fn left(self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(left),
            Self::Over => Some(0),
            _ => None,
        }
    }

    /// What comes next, of what was read; `None` if more has to be read, or it is over.
    ///
    /// # Errors
    /// It is no such body.
    pub(super) fn next(&mut self, read: &mut BytesMut) -> Result<Option<Frame<Bytes>>, Malformed> {
        while !read.is_empty() {
            match *self {
                Self::Over => return Ok(None),
                Self::Close => return Ok(Some(Frame::data(read.split().freeze()))),
                Self::Length(left) => {
                    let (data, left) = piece(read, left);
                    *self = Self::of_length(left);
                    return Ok(Some(data));
                }
                Self::Chunk(left) => {
                    let (data, left) = piece(read, left);
                    *self = match left {
                        0 => Self::ChunkEnd,
                        left => Self::Chunk(left),
                    };
                    return Ok(Some(data));
                }
                Self::Size => {
                    let Some((size, length)) = chunk_line(read).ok_or(Malformed)? else {
                        return Ok(None);
                    };
                    read.advance(length);
                    *self = match size {
                        0 => Self::Trailers,
                        size => Self::Chunk(size),
                    };
                }
                Self::ChunkEnd => match read[..] {
                    [b'\r'] => return Ok(None),
                    [b'\r', b'\n', ..] => {
                        read.advance(2);
                        *self = Self::Size;
                    }
                    _ => return Err(Malformed),
                },
                Self::Trailers => return self.trailers(read),
            }
        }
        Ok(None)
    }

    fn trailers(&mut self, read: &mut BytesMut) -> Result<Option<Frame<Bytes>>, Malformed> {
        let trailers: HeaderMap = match head::trailers(read) {
            Ok(Some(trailers)) => trailers,
            Ok(None) if read.len() <= TRAILERS => return Ok(None),
            Ok(None) | Err(_) => return Err(Malformed),
        };
        *self = Self::Over;
        Ok((!trailers.is_empty()).then(|| Frame::trailers(trailers)))
    }
}

/// What is there of `left` bytes, and how many are left then.
fn piece(read: &mut BytesMut, left: u64) -> (Frame<Bytes>, u64) {
    let some = usize::try_from(left).map_or(read.len(), |left| left.min(read.len()));
    // No more than `left`.
    (
        Frame::data(read.split_to(some).freeze()),
        left - some as u64,
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What becomes of a body: its bytes, its trailers, what was not taken, and how far it is.
    #[derive(PartialEq, Eq, Debug)]
    struct Decoded {
        body: Vec<u8>,
        trailers: Vec<String>,
        rest: Vec<u8>,
        decoder: Decoder,
    }

    /// Bytes that come in these pieces.
    fn decoded(mut decoder: Decoder, pieces: &[&[u8]]) -> Result<Decoded, Malformed> {
        let (mut body, mut trailers) = (Vec::new(), Vec::new());
        let mut read = BytesMut::new();
        for piece in pieces {
            read.extend_from_slice(piece);
            while let Some(frame) = decoder.next(&mut read)? {
                match frame.into_data() {
                    Ok(data) => body.extend_from_slice(&data),
                    Err(frame) => {
                        let map = frame.into_trailers().unwrap_or_default();
                        let line =
                            |(name, value): (_, &http::HeaderValue)| format!("{name}: {value:?}");
                        trailers.extend(map.iter().map(line));
                    }
                }
            }
        }
        Ok(Decoded {
            body,
            trailers,
            rest: read.to_vec(),
            decoder,
        })
    }

    #[test]
    fn bodies() {
        type Case<'c> = (Decoder, &'c str, [&'c str; 3], bool);
        let cases: &[Case<'_>] = &[
            (Decoder::of_length(0), "next", ["", "", "next"], true),
            (Decoder::of_length(5), "hello", ["hello", "", ""], true),
            (Decoder::of_length(5), "hello!!", ["hello", "", "!!"], true),
            (Decoder::of_length(5), "hell", ["hell", "", ""], false),
            (Decoder::Close, "anything", ["anything", "", ""], false),
            (Decoder::Size, "0\r\n\r\nnext", ["", "", "next"], true),
            (
                Decoder::Size,
                "5\r\nhello\r\n0\r\n\r\n",
                ["hello", "", ""],
                true,
            ),
            (
                Decoder::Size,
                "0005;a=b\r\nhello\r\n1\r\n!\r\n0;x\r\n\r\n",
                ["hello!", "", ""],
                true,
            ),
            (
                Decoder::Size,
                "A\r\n0123456789\r\n0\r\nX-Sum: 1\r\nb: 2\r\n\r\n",
                ["0123456789", "x-sum: \"1\", b: \"2\"", ""],
                true,
            ),
            (
                Decoder::Size,
                "5\r\nhello\r\n0\r\n",
                ["hello", "", ""],
                false,
            ),
            (Decoder::Size, "5\r\nhe", ["he", "", ""], false),
        ];
        for (decoder, bytes, expected, over) in cases {
            let found = decoded(*decoder, &[bytes.as_bytes()]).unwrap();
            let text = |bytes| String::from_utf8(bytes).unwrap();
            let is_over = found.decoder.is_over();
            let found = [
                text(found.body),
                found.trailers.join(", "),
                text(found.rest),
            ];
            assert_eq!(found, *expected, "{bytes}");
            assert_eq!(is_over, *over, "{bytes}");
        }
    }

    #[test]
    fn chunks_that_are_none() {
        for bytes in [
            &b"x\r\n"[..],
            b"\r\n",
            b"5\nhello\r\n",
            b"-5\r\nhello\r\n",
            b"0x5\r\nhello\r\n",
            b"11111111111111111\r\n",
            b"5 6\r\nhello\r\n",
            b"5\r\nhelloX",
            b"5\r\nhello\rX",
            b"5\r\nhello\n",
            b"0\r\n: no name\r\n\r\n",
        ] {
            let text = String::from_utf8_lossy(bytes);
            assert_eq!(decoded(Decoder::Size, &[bytes]), Err(Malformed), "{text}");
        }
        let long = [b"0\r\na: ".as_slice(), &vec![b'x'; TRAILERS]].concat();
        assert_eq!(decoded(Decoder::Size, &[&long]), Err(Malformed));
    }

    proptest! {
        /// However bytes come, they are the same body.
        #[test]
        fn pieces_make_no_difference(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
            rest in "[a-z]{0,4}",
        ) {
            let mut bytes = Vec::new();
            for chunk in &chunks {
                bytes.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\nend: yes\r\n\r\n");
            bytes.extend_from_slice(rest.as_bytes());
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            ends.sort_unstable();
            ends.push(bytes.len());
            let mut at = 0;
            let pieces: Vec<&[u8]> = ends
                .iter()
                .map(|&end| &bytes[std::mem::replace(&mut at, end)..end])
                .collect();
            let found = decoded(Decoder::Size, &pieces).unwrap();
            prop_assert_eq!(found.body, chunks.concat());
            prop_assert_eq!(found.trailers, vec!["end: \"yes\"".to_owned()]);
            prop_assert_eq!(found.rest, rest.into_bytes());
            prop_assert_eq!(found.decoder, Decoder::Over);
        }
    }
}
