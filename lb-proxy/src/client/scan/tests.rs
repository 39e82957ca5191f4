use proptest::prelude::*;

use super::*;

fn scanner() -> Scanner {
    Scanner::new(100, 400, 0)
}

/// What passes of bytes that come in pieces of a size.
fn passes(bytes: &[u8], piece: usize) -> Result<usize, Wrong> {
    let mut scanner = scanner();
    let mut waiting: Vec<u8> = Vec::new();
    let mut passed = 0;
    for piece in bytes.chunks(piece) {
        waiting.extend_from_slice(piece);
        loop {
            let now = scanner.look(&waiting)?;
            if now == 0 {
                break;
            }
            waiting.drain(..now);
            passed += now;
        }
    }
    Ok(passed)
}

#[test]
fn whole_heads_and_bodies_pass() {
    let cases: &[(&str, usize)] = &[
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0),
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 0),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HT", 8),
        ("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET", 3),
        ("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc", 0),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab\rcd\r\n0\r\n\r\nG",
            1,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\nA;x=1\r\n0123456789\r\n0\r\nT: x\r\n\r\n",
            0,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n000a\r\n01234",
            0,
        ),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n10", 2),
    ];
    for (text, left) in cases {
        for piece in [1, 2, 3, 7, 1000] {
            let passed = passes(text.as_bytes(), piece);
            assert_eq!(passed, Ok(text.len() - left), "{text:?} by {piece}");
        }
    }
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn what_is_ambiguous_is_refused() {
    let bad = StatusCode::BAD_REQUEST;
    let unknown = StatusCode::NOT_IMPLEMENTED;
    let large = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(200));
    let wide = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(200));
    let much = format!("GET / HTTP/1.1\r\n{}\r\n", "A: 0123456789\r\n".repeat(40));
    let cases: &[(&str, StatusCode)] = &[
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", bad),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", bad),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", bad),
        ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", bad),
        ("GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n", bad),
        ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", bad),
        ("GET / HTTP/1.1\r\n A: b\r\n\r\n", bad),
        ("GET / HTTP/1.1\r\nContent-Length : 3\r\n\r\nabc", bad),
        ("GET / HTTP/1.1\r\nnothing\r\n\r\n", bad),
        ("GET / HTTP/1.1\r\n: x\r\n\r\n", bad),
        ("GET /\r\n\r\n", bad),
        ("GET  / HTTP/1.1\r\n\r\n", bad),
        ("GET /a b HTTP/1.1\r\n\r\n", bad),
        ("\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n", bad),
        (
            "P / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
            bad,
        ),
        (
            "P / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
            bad,
        ),
        ("P / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\n", bad),
        ("P / HTTP/1.1\r\nContent-Length: +3\r\n\r\n", bad),
        ("P / HTTP/1.1\r\nContent-Length: 0x3\r\n\r\n", bad),
        ("P / HTTP/1.1\r\nContent-Length:\r\n\r\n", bad),
        (
            "P / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            bad,
        ),
        (
            "P / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            bad,
        ),
        (
            "P / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n",
            bad,
        ),
        ("P / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", bad),
        (
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            bad,
        ),
        (
            "P / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
            unknown,
        ),
        (
            "P / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            unknown,
        ),
        (
            "P / HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
            unknown,
        ),
        (
            "P / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
            unknown,
        ),
        ("P / HTTP/1.1\r\nTransfer-Encoding:\r\n\r\n", unknown),
        (&long, StatusCode::URI_TOO_LONG),
        (&wide, large),
        (&much, large),
    ];
    for (text, status) in cases {
        for piece in [1, 2, 3, 7, 1000] {
            let passed = passes(text.as_bytes(), piece);
            assert_eq!(passed, Err(Wrong::Head(*status)), "{text:?} by {piece}");
        }
    }
}

#[test]
fn chunks_that_are_none_end_the_body() {
    let extension = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(600));
    let trailers = format!("0\r\n{}\r\n", "A: 0123456789\r\n".repeat(700));
    let cases = [
        "x\r\n",
        "-1\r\n",
        "\r\n",
        "1\n",
        "1 1\r\na\r\n",
        "0x1\r\na\r\n",
        "1\r\nab\r\n",
        "1\r\na\n0\r\n\r\n",
        "11111111111111111\r\n",
        "0\r\n\n",
        "0\r\nA: b\n\r\n",
        "0\r\n folded\r\n\r\n",
        "1;a\rb\r\na\r\n",
        &extension,
        &trailers,
    ];
    for case in cases {
        let text = format!("P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{case}");
        for piece in [1, 2, 3, 7, 10_000] {
            let passed = passes(text.as_bytes(), piece);
            assert_eq!(passed, Err(Wrong::Body), "{text:?} by {piece}");
        }
    }
}

#[test]
fn nothing_passes_behind_a_request_for_another_protocol() {
    let ask = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
    let mut scanner = scanner();
    assert_eq!(scanner.look(ask), Ok(ask.len()));
    assert_eq!(scanner.place(), Place::Held);
    scanner.release(false);
    assert_eq!(scanner.look(b"GET"), Ok(0));

    let both = [&ask[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
    assert_eq!(
        self::scanner().look(&both),
        Err(Wrong::Head(StatusCode::BAD_REQUEST))
    );

    let mut scanner = self::scanner();
    assert_eq!(scanner.look(ask), Ok(ask.len()));
    assert_eq!(scanner.look(b"G"), Err(Wrong::Body));

    let mut scanner = self::scanner();
    assert_eq!(scanner.look(ask), Ok(ask.len()));
    scanner.release(true);
    assert_eq!(scanner.look(b"\n\0\r"), Ok(3));
}

#[test]
fn a_place_for_each_timeout() {
    let mut scanner = scanner();
    assert_eq!(scanner.place(), Place::Between);
    let head = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n";
    assert_eq!(scanner.look(&head[..20]), Ok(0));
    assert_eq!(scanner.place(), Place::Head);
    assert_eq!(scanner.look(head), Ok(head.len()));
    assert_eq!((scanner.place(), scanner.head()), (Place::Body, head.len()));
    assert_eq!(scanner.look(b"abc"), Ok(3));
    assert_eq!(scanner.place(), Place::Between);
}

proptest! {
    #[test]
    fn how_bytes_are_cut_changes_nothing(
        parts in proptest::collection::vec(prop_oneof![
            Just("GET / HTTP/1.1\r\n"), Just("Content-Length: 3\r\n"), Just("\r\n"), Just("abc"),
            Just("Transfer-Encoding: chunked\r\n"), Just("3\r\nabc\r\n"), Just("0\r\n\r\n"),
            Just("\n"), Just("\r"), Just("A: b\r\n"), Just(" "), Just("Upgrade: x\r\n"),
        ], 0..16),
        piece in 1usize..40,
    ) {
        let bytes = parts.concat().into_bytes();
        let whole = passes(&bytes, bytes.len().max(1));
        let cut = passes(&bytes, piece);
        // With pieces, the bytes behind an upgrade come later: the head has passed by then.
        if whole.is_ok() || !parts.contains(&"Upgrade: x\r\n") {
            prop_assert_eq!(cut, whole);
        } else {
            prop_assert!(cut.is_err());
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), piece in 1usize..50) {
        let _ = passes(&bytes, piece);
    }
}
