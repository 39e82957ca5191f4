//! Writing several pieces at once.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::AsyncWrite;

/// What is copied so that it goes out as one piece: heads, and short answers with them.
const SMALL: usize = 2048;

/// Writes pieces, or the beginning of them. A socket takes one piece for less than it takes several
/// (send(2) beside writev(2)), and a short copy costs less than that.
pub(crate) fn poll_write_pieces<Io: AsyncWrite>(
    io: Pin<&mut Io>,
    cx: &mut Context<'_>,
    pieces: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [piece] = pieces {
        return io.poll_write(cx, piece);
    }
    if pieces.iter().map(|piece| piece.len()).sum::<usize>() > SMALL {
        return io.poll_write_vectored(cx, pieces);
    }
    let mut room = [0; SMALL];
    let mut end = 0;
    for piece in pieces {
        room[end..end + piece.len()].copy_from_slice(piece);
        end += piece.len();
    }
    io.poll_write(cx, &room[..end])
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Takes what is written, and how often it was asked to take one piece, and several.
    #[derive(Default)]
    struct Taken(Vec<u8>, [usize; 2]);

    impl AsyncWrite for Taken {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.extend_from_slice(bytes);
            self.1[0] += 1;
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            pieces: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
            self.0.extend_from_slice(&bytes);
            self.1[1] += 1;
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn little_is_one_piece_and_much_is_not_copied() {
        let cases = [
            (vec![SMALL * 9], [1, 0]),
            (vec![200, 1024], [1, 0]),
            (vec![SMALL - 1, 1], [1, 0]),
            (vec![SMALL, 1], [0, 1]),
            (vec![1, 2, SMALL * 9], [0, 1]),
        ];
        for (lengths, asked) in cases {
            let texts = (1..)
                .zip(&lengths)
                .map(|(byte, length)| vec![byte; *length]);
            let texts: Vec<Vec<u8>> = texts.collect();
            let pieces: Vec<_> = texts.iter().map(|text| IoSlice::new(text)).collect();
            let mut taken = Taken::default();
            let mut cx = Context::from_waker(Waker::noop());
            let written = poll_write_pieces(Pin::new(&mut taken), &mut cx, &pieces);
            assert!(matches!(written, Poll::Ready(Ok(all)) if all == taken.0.len()));
            assert_eq!((taken.0, taken.1), (texts.concat(), asked), "{lengths:?}");
        }
    }
}
