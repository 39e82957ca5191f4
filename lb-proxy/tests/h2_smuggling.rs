//! What HTTP/2 can carry and HTTP/1 cannot (RFC 9113, section 8.2.1 and 10.3): none of it reaches a
//! backend. The frames are made by hand: no client would send them.

mod common;

use common::{Running, SOON, Site, Talk, backend::Backend};
use tokio::{io::AsyncReadExt, time::timeout};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Headers as literals that are not indexed (RFC 7541, section 6.2.2).
fn block(headers: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(*text);
        }
    }
    block
}

/// What becomes of a stream.
#[derive(PartialEq, Eq, Debug)]
enum End {
    /// An answer; whether its status is 200.
    Answer(bool),
    Reset,
    Closed,
}

async fn send(proxy: &Running, headers: &[(&[u8], &[u8])], body: Option<&[u8]>) -> End {
    let mut talk = proxy.connect().await;
    let flags = if body.is_some() { 4 } else { 5 };
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes.extend(frame(1, flags, 1, &block(headers)));
    bytes.extend(body.map(|body| frame(0, 1, 1, body)).unwrap_or_default());
    talk.send(&bytes).await;
    loop {
        let Some((kind, stream, payload)) = next(&mut talk).await else {
            return End::Closed;
        };
        match (kind, stream) {
            (3, 1) => return End::Reset,
            (7, _) => return End::Closed,
            // `:status 200` is the eighth of the static table.
            (1, 1) => return End::Answer(payload[0] == 0x88),
            _ => {}
        }
    }
}

async fn next(talk: &mut Talk) -> Option<(u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    let read = talk.stream.read_exact(&mut head);
    timeout(SOON, read).await.expect("an answer in time").ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    talk.stream.read_exact(&mut payload).await.ok()?;
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Some((head[3], stream, payload))
}

fn request<'h>(more: &[(&'h [u8], &'h [u8])]) -> Vec<(&'h [u8], &'h [u8])> {
    let mut headers: Vec<(&[u8], &[u8])> = vec![
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/x"),
        (b":authority", b"a"),
    ];
    headers.extend(more);
    headers
}

/// The pseudo-headers with one changed.
fn with<'h>(name: &'h [u8], value: &'h [u8]) -> Vec<(&'h [u8], &'h [u8])> {
    let mut headers = request(&[]);
    headers
        .iter_mut()
        .filter(|(n, _)| *n == name)
        .for_each(|header| header.1 = value);
    headers
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "a table")]
async fn headers_that_http_1_could_not_carry() {
    let backend = Backend::plain().await;
    let proxy = Site::new(&[backend.address]).start().await;
    let cases: Vec<Vec<(&[u8], &[u8])>> = vec![
        request(&[(b"x", b"a\r\nhost: b")]),
        request(&[(b"x", b"a\nhost: b")]),
        request(&[(b"x", b"a\rb")]),
        request(&[(b"x", b"a\0b")]),
        request(&[(b"x\r\nhost", b"b")]),
        request(&[(b"x: y\r\nz", b"b")]),
        request(&[(b"x y", b"b")]),
        request(&[(b"x:y", b"b")]),
        request(&[(b"", b"b")]),
        request(&[(b"Upper", b"b")]),
        request(&[(b"connection", b"close")]),
        request(&[(b"connection", b"x")]),
        request(&[(b"keep-alive", b"1")]),
        request(&[(b"proxy-connection", b"close")]),
        request(&[(b"transfer-encoding", b"chunked")]),
        request(&[(b"upgrade", b"websocket")]),
        request(&[(b"te", b"gzip")]),
        request(&[(b"host", b"b")]),
        request(&[(b"host", b"a"), (b"host", b"a")]),
        request(&[(b"content-length", b"5")]),
        request(&[(b":path", b"/y")]),
        request(&[(b":unknown", b"y")]),
        request(&[(b"x", b"y"), (b":path", b"/y")]),
        with(b":path", b"/x HTTP/1.1\r\nhost: b\r\n\r\n"),
        with(b":path", b"/x y"),
        with(b":path", b"/x\ty"),
        with(b":path", b"x"),
        with(b":path", b""),
        with(b":path", b"*"),
        with(b":path", b"http://b/"),
        with(b":method", b"GET / HTTP/1.1\r\n\r\nGET"),
        with(b":method", b"GET /"),
        with(b":method", b""),
        with(b":method", b"CONNECT"),
        with(b":method", b"TRACE"),
        with(b":authority", b"a b"),
        with(b":authority", b"a\r\nx: y"),
        with(b":authority", b"u@a"),
        with(b":authority", b""),
        request(&[])[..3].to_vec(),
        request(&[])[1..].to_vec(),
    ];
    for case in cases {
        let texts: Vec<_> = case
            .iter()
            .map(|(n, v)| (n.escape_ascii(), v.escape_ascii()))
            .collect();
        let texts: Vec<_> = texts.iter().map(|(n, v)| format!("{n}: {v}")).collect();
        let end = send(&proxy, &case, None).await;
        assert_ne!(end, End::Answer(true), "{texts:?}");
        assert_eq!(backend.requests(), [""; 0], "{texts:?}");
    }
    assert_eq!(
        send(&proxy, &request(&[(b"te", b"trailers")]), None).await,
        End::Answer(true)
    );
    assert_eq!(
        send(&proxy, &request(&[(b"host", b"a")]), None).await,
        End::Answer(true)
    );
    assert_eq!(backend.requests().len(), 2);
}

#[tokio::test]
async fn lengths_that_are_not_those_of_the_body() {
    let backend = Backend::plain().await;
    let proxy = Site::new(&[backend.address]).start().await;
    let hidden = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    for length in ["0", "3", "99", "+3", "3,3", "x", ""] {
        let mut headers = with(b":method", b"POST");
        headers.push((b"content-length", length.as_bytes()));
        let end = send(&proxy, &headers, Some(hidden)).await;
        assert_ne!(end, End::Answer(true), "{length:?}");
    }
    let mut headers = with(b":method", b"POST");
    headers.extend([
        (&b"content-length"[..], &b"3"[..]),
        (&b"content-length"[..], &b"33"[..]),
    ]);
    assert_ne!(
        send(&proxy, &headers, Some(hidden)).await,
        End::Answer(true)
    );
    let requests = backend.requests();
    assert!(
        requests
            .iter()
            .all(|request| !request.starts_with("GET /hidden")),
        "{requests:?}"
    );
    // Without a length it has one when it goes on.
    let end = send(&proxy, &with(b":method", b"POST"), Some(hidden)).await;
    assert_eq!(end, End::Answer(true));
    let last = backend.requests().pop().unwrap();
    assert_eq!(common::header(&last, "content-length"), Some("33"));
}

#[tokio::test]
async fn heads_that_are_too_large() {
    let backend = Backend::plain().await;
    let proxy = Site::new(&[backend.address]).start().await;
    let value = [b'x'; 120];
    let more: Vec<(&[u8], &[u8])> = (0..100).map(|_| (&b"x"[..], &value[..])).collect();
    assert_eq!(send(&proxy, &request(&more), None).await, End::Answer(true));
    // 16 KiB are a frame's; those of several frames go beyond what is allowed.
    let mut talk = proxy.connect().await;
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes.extend(frame(1, 1, 1, &block(&request(&more))));
    for _ in 0..1000 {
        bytes.extend(frame(9, 0, 1, &block(&more)));
    }
    talk.send(&bytes).await;
    loop {
        match next(&mut talk).await {
            None | Some((3 | 7, _, _)) => break,
            Some((1, 1, payload)) => {
                assert_ne!(payload[0], 0x88);
                break;
            }
            Some(_) => {}
        }
    }
    assert_eq!(backend.requests().len(), 1);
}
