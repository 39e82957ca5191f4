use http::Request;
use proptest::prelude::*;

use super::*;

fn parsed(bytes: &[u8], is_head: bool) -> (Result<Option<Answer>, Invalid>, Vec<u8>) {
    let mut read = BytesMut::from(bytes);
    let answer = parse(&mut read, is_head);
    (answer, read.to_vec())
}

#[test]
fn requests_are_written() {
    let request = Request::builder()
        .method("POST")
        .uri("/a?b=c")
        .header("Host", "x")
        .header("X-Empty", "")
        .header("x-twice", "1")
        .header("x-twice", "2");
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let mut out = Vec::new();
    write(&parts, Some(12), &mut out);
    let expected = "POST /a?b=c HTTP/1.1\r\nhost: x\r\nx-empty: \r\nx-twice: 1\r\nx-twice: 2\r\n\
                    content-length: 12\r\n\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
    let old = Request::options("*").version(Version::HTTP_10);
    let (parts, ()) = old.body(()).unwrap().into_parts();
    let mut out = Vec::new();
    write(&parts, None, &mut out);
    assert_eq!(out, b"OPTIONS * HTTP/1.0\r\n\r\n");
}

/// How the end of a body is known, and whether the connection stays (RFC 9112, sections 6.3 and
/// 9.3); the status and headers of answers stand before it, with `/` for the end of a line.
fn frames(version: &str, is_head: bool, cases: &str) {
    for case in cases.lines().filter(|line| !line.trim().is_empty()) {
        let (lines, expected) = case.rsplit_once("=>").unwrap();
        let lines = lines.trim().replace(" / ", "\r\n");
        let text = format!("{version} {lines}\r\n\r\nrest");
        let (answer, rest) = parsed(text.as_bytes(), is_head);
        let found = match answer {
            Ok(Some(answer)) => {
                assert_eq!(rest, b"rest", "{case}");
                let keeps = if answer.keeps { "keeps" } else { "closes" };
                format!("{:?} {keeps}", answer.decoder)
            }
            other => format!("{:?}", other.map(|_| ())),
        };
        assert_eq!(found, expected.trim(), "{case}");
    }
}

#[test]
fn how_the_end_of_a_body_is_known() {
    frames(
        "HTTP/1.1",
        false,
        "
        200 OK / content-length: 5 => Length(5) keeps
        200 OK / content-length: 0 => Over keeps
        204 No Content / content-length: 5 => Over keeps
        304 Not Modified / transfer-encoding: chunked => Over keeps
        101 Switching Protocols / upgrade: x => Over keeps
        100 Continue => Over keeps
        200 OK / Transfer-Encoding: Chunked => Size keeps
        200 OK / transfer-encoding: gzip, chunked => Size keeps
        200 OK / transfer-encoding: chunked / content-length: 5 => Size keeps
        200 OK / transfer-encoding: gzip => Close closes
        200 OK / transfer-encoding: chunked / transfer-encoding: gzip => Close closes
        200 OK => Close closes
        200 OK / connection: close / content-length: 5 => Length(5) closes
        200 OK / connection: x, Close / content-length: 0 => Over closes
        200 OK / content-length: 5 / content-length: 5 => Length(5) keeps
        200 OK / content-length: 5, 5 => Length(5) keeps
        ",
    );
    frames(
        "HTTP/1.1",
        true,
        "
        200 OK / content-length: 5 => Over keeps
        200 OK / transfer-encoding: chunked => Over keeps
        200 OK => Over keeps
        ",
    );
    frames(
        "HTTP/1.0",
        false,
        "
        200 OK / content-length: 5 => Length(5) closes
        200 OK / connection: Keep-Alive / content-length: 5 => Length(5) keeps
        200 OK / connection: keep-alive => Close closes
        200 OK / transfer-encoding: chunked => Err(Invalid)
        ",
    );
}

#[test]
fn what_is_no_answer() {
    frames(
        "HTTP/1.1",
        false,
        "
        200 OK / content-length: 5 / content-length: 6 => Err(Invalid)
        200 OK / content-length: 5, 6 => Err(Invalid)
        200 OK / content-length: +5 => Err(Invalid)
        200 OK / content-length: -5 => Err(Invalid)
        200 OK / content-length: five => Err(Invalid)
        200 OK / content-length: => Err(Invalid)
        200 OK / content-length: 99999999999999999999 => Err(Invalid)
        200 OK / a b: c => Err(Invalid)
        200 OK / a: b\u{1} => Err(Invalid)
        200 OK /  folded: x => Err(Invalid)
        1000 OK / content-length: 5 => Err(Invalid)
        OK => Err(Invalid)
        ",
    );
    frames("HTTP/2.0", false, "200 OK => Err(Invalid)");
    frames("ICY", false, "200 OK => Err(Invalid)");
}

#[test]
fn what_is_in_a_head_is_in_the_answer() {
    let text =
        b"HTTP/1.1 404 Nothing Here\r\nA:  1 \r\nB:\r\na: \xc3\xa4\r\nContent-Length: 0\r\n\r\n";
    let head = parsed(text, false).0.unwrap().unwrap().head;
    assert_eq!(head.status(), StatusCode::NOT_FOUND);
    let headers = head.headers().iter();
    let headers: Vec<_> = headers
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    let expected: [(&str, &[u8]); 4] = [
        ("a", b"1"),
        ("a", b"\xc3\xa4"),
        ("b", b""),
        ("content-length", b"0"),
    ];
    assert_eq!(headers, expected);
    let reason = head.extensions().get::<ReasonPhrase>().unwrap();
    assert_eq!(reason.as_bytes(), b"Nothing Here");
    let usual = parsed(b"HTTP/1.1 404 Not Found\r\n\r\n", false).0;
    let usual = usual.unwrap().unwrap().head;
    assert!(usual.extensions().get::<ReasonPhrase>().is_none());
}

#[test]
fn heads_have_bounds() {
    let head = |headers: usize, bytes: usize| {
        let line = format!("a: {}\r\n", "x".repeat(bytes));
        format!("HTTP/1.1 200 OK\r\n{}", line.repeat(headers))
    };
    let is_there = |text: String| {
        parsed(text.as_bytes(), false)
            .0
            .map(|answer| answer.is_some())
    };
    assert_eq!(is_there(head(HEADERS, 10) + "\r\n"), Ok(true));
    assert_eq!(is_there(head(HEADERS + 1, 10) + "\r\n"), Err(Invalid));
    assert_eq!(is_there(head(1, HEAD / 2) + "\r\n"), Ok(true));
    assert_eq!(is_there(head(1, HEAD / 2)), Ok(false));
    assert_eq!(is_there(head(1, HEAD)), Err(Invalid));
}

proptest! {
    /// A head that has not all come is none yet, wherever it is cut; nothing of it is taken.
    #[test]
    fn a_part_is_no_head(cut in 1_usize..60) {
        let text = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-long-name: some value\r\n\r\n";
        let (answer, rest) = parsed(&text[..cut], false);
        prop_assert!(matches!(answer, Ok(None)), "{:?}", answer);
        prop_assert_eq!(rest, &text[..cut]);
    }

    /// Nothing that comes is a panic, and a value is never that of another place.
    #[test]
    fn anything_may_come(
        lines in proptest::collection::vec("x-[a-z]{1,8}:[ \t]{0,2}[!-~]{0,9}[ \t]{0,2}", 0..9),
        junk in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let _ = parsed(&junk, false);
        let text = format!("HTTP/1.1 200 OK\r\n{}\r\n", lines.iter().map(|line| line.clone() + "\r\n").collect::<String>());
        let answer = parsed(text.as_bytes(), true).0.unwrap().unwrap();
        prop_assert_eq!(answer.head.headers().len(), lines.len());
        for line in &lines {
            let (name, value) = line.split_once(':').unwrap();
            let mut all = answer.head.headers().get_all(name).iter();
            prop_assert!(all.any(|found| found.as_bytes() == value.trim().as_bytes()));
        }
    }
}
