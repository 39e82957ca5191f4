//! What could hide a request in another one (RFC 9112, section 11.2): whatever a client sends, a
//! backend never gets more requests than the client was answered, and what is ambiguous is refused.

mod common;

use common::{Running, Site, backend::Backend, status};

/// A whole request that must not be seen by anybody where it stands.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";

/// Sends it, and gives the status of the first answer (0 for a mere close). Nothing of it may reach
/// the backend.
async fn refused(proxy: &Running, backend: &Backend, bytes: &str) -> u16 {
    let before = backend.requests().len();
    let answer = proxy.all(bytes.as_bytes()).await;
    let requests = backend.requests();
    assert_eq!(
        requests.len(),
        before,
        "{bytes:?} came as {:?}",
        requests.last()
    );
    let answers = answer.matches("HTTP/1.1 ").count();
    assert!(answers <= 1, "{bytes:?} has two answers: {answer:?}");
    if answer.is_empty() {
        0
    } else {
        status(&answer)
    }
}

async fn site() -> (Running, Backend) {
    let backend = Backend::plain().await;
    let proxy = Site::new(&[backend.address]).start().await;
    (proxy, backend)
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "a table")]
async fn lengths_that_differ() {
    let (proxy, backend) = site().await;
    let length = HIDDEN.len();
    let cases = [
        // CL.TE and TE.CL, in both orders, and with a coding that only some know.
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n",
        "Content-Length: 6\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: xchunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: identity\r\n\r\n",
        "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding:\u{b}chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        // Two lengths.
        "Content-Length: 0\r\nContent-Length: 99\r\n\r\n",
        "Content-Length: 99\r\nContent-Length: 0\r\n\r\n",
        "Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
        "Content-Length: 0, 0\r\n\r\n",
        "Content-Length: 0,99\r\n\r\n",
        // Lengths that are read in different ways.
        "Content-Length: +5\r\n\r\n",
        "Content-Length: -5\r\n\r\n",
        "Content-Length: 0x5\r\n\r\n",
        "Content-Length: 5 5\r\n\r\n",
        "Content-Length: 5;x\r\n\r\n",
        "Content-Length: 1e1\r\n\r\n",
        "Content-Length: \r\n\r\n",
        "Content-Length: 18446744073709551621\r\n\r\n",
        "Content-Length : 5\r\n\r\n",
        "Content-Length\u{a0}: 5\r\n\r\n",
        "content-length: 0\r\nContent_Length: 5\r\ncontent-length: 5\r\n\r\n",
    ];
    for method in ["POST", "GET"] {
        for case in cases {
            let text = format!("{method} / HTTP/1.1\r\nHost: a\r\n{case}{HIDDEN}");
            let status = refused(&proxy, &backend, &text).await;
            assert!(
                (400..=501).contains(&status),
                "{text:?} is answered {status}"
            );
        }
    }
    let old = format!(
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}"
    );
    assert_eq!(refused(&proxy, &backend, &old).await, 400);
    // 0.CL: what is a body is never a request, even where methods have none.
    let body = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{HIDDEN}"
    );
    assert_eq!(status(&proxy.all(body.as_bytes()).await), 200);
    let requests = backend.requests();
    assert_eq!(requests.len(), 1);
    assert!(requests[0].ends_with(HIDDEN));
}

#[tokio::test]
async fn lines_that_end_in_other_ways() {
    let (proxy, backend) = site().await;
    let cases = [
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\rX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX y: z\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX(y): z\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n: z\r\n\r\n",
        "GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
        "GET / http/1.1\r\nHost: a\r\n\r\n",
        "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\0GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    for case in cases {
        let status = refused(&proxy, &backend, &format!("{case}{HIDDEN}")).await;
        assert!(
            (400..=505).contains(&status) || status == 0,
            "{case:?}: {status}"
        );
    }
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "a table")]
async fn chunks_that_are_read_in_different_ways() {
    let (proxy, backend) = site().await;
    let long = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(20_000));
    let many = format!("{}0\r\n\r\n", "1;eeeeeeee\r\nx\r\n".repeat(2_000));
    let trailers = format!(
        "0\r\n{}\r\n",
        "X: 0123456789012345678901234567890\r\n".repeat(500)
    );
    let cases = [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhellohello\r\n0\r\n\r\n",
        "0\n\r\n",
        "0\r\n\n",
        "0\r\nX: y\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-1\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
        "g\r\n",
        "fffffffffffffffff\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        &long,
        &trailers,
    ];
    for case in cases {
        let text = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{case}{HIDDEN}"
        );
        let status = refused(&proxy, &backend, &text).await;
        assert!(
            (400..=431).contains(&status) || status == 0,
            "{case:.40?}: {status}"
        );
    }
    // Many extensions, none of them long: they are dropped, or the request is.
    let text = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{many}"
    );
    let found = status(&proxy.all(text.as_bytes()).await);
    assert!(found == 200 || found == 400, "{found}");
    assert!(
        backend
            .requests()
            .iter()
            .all(|request| !request.contains("eeee"))
    );
}

#[tokio::test]
async fn hosts_that_differ() {
    let (proxy, backend) = site().await;
    let cases = [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("CONNECT b:80 HTTP/1.1\r\nHost: b:80\r\n\r\n", 405),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    ];
    for (case, expected) in cases {
        let close = case.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        assert_eq!(
            refused(&proxy, &backend, &close).await,
            expected,
            "{case:?}"
        );
    }
    let absolute = "GET http://a/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&proxy.all(absolute.as_bytes()).await), 200);
    assert!(backend.requests()[0].starts_with("GET /x HTTP/1.1\r\n"));
}

#[tokio::test]
async fn other_protocols_with_requests_behind() {
    let (proxy, backend) = site().await;
    let ask = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    // Whoever sends on before it knows what is spoken is not understood.
    let both = format!("{ask}{HIDDEN}");
    assert_eq!(refused(&proxy, &backend, &both).await, 400);
    // If the backend stays with HTTP, the next request is one, and is looked at as any other.
    let mut talk = proxy.connect().await;
    talk.send(ask.as_bytes()).await;
    assert_eq!(status(&talk.answer().await), 200);
    talk.send(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(status(&talk.answer().await), 200);
    talk.send(b"GET /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n")
        .await;
    assert_eq!(status(&talk.rest().await), 400);
    let targets: Vec<_> = backend.requests();
    assert_eq!(targets.len(), 2);
    // HTTP/2 by upgrade would be a tunnel past the proxy.
    let h2c = "GET /h2c HTTP/1.1\r\nHost: a\r\nConnection: close, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
    assert_eq!(status(&proxy.all(h2c.as_bytes()).await), 200);
    let sent = backend.requests().pop().unwrap().to_ascii_lowercase();
    assert!(
        !sent.contains("upgrade") && !sent.contains("http2-settings"),
        "{sent}"
    );
    // With a body, what comes behind it is nobody's.
    let with = format!(
        "POST /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\nContent-Length: 2\r\n\r\nhi{HIDDEN}"
    );
    let mut talk = proxy.connect().await;
    talk.send(with.as_bytes()).await;
    let _ = talk.rest().await;
    assert!(
        backend
            .requests()
            .iter()
            .all(|request| !request.starts_with("GET /hidden"))
    );
}

#[tokio::test]
async fn a_bad_request_behind_good_ones() {
    let (proxy, backend) = site().await;
    let good = "GET /good HTTP/1.1\r\nHost: a\r\n\r\n";
    let bad = "GET /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let answer = proxy
        .all(format!("{good}{good}{bad}{HIDDEN}").as_bytes())
        .await;
    let statuses: Vec<_> = answer
        .match_indices("HTTP/1.1 ")
        .map(|(at, _)| status(&answer[at..]))
        .collect();
    assert_eq!(statuses, [200, 200, 400]);
    assert_eq!(backend.requests().len(), 2);
    let seen = proxy.seen(3).await;
    assert_eq!(seen[2].status, 400);
}

#[tokio::test]
async fn heads_that_are_too_large() {
    let (proxy, backend) = site().await;
    let word = "x".repeat(9_000);
    let many: String = (0..9)
        .map(|n| format!("X-{n}: {}\r\n", "y".repeat(4_000)))
        .collect();
    let count: String = (0..150).map(|n| format!("X-{n}: y\r\n")).collect();
    let cases = [
        (format!("GET /{word} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {word}\r\n\r\n"),
            431,
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "z".repeat(100_000)),
            431,
        ),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{count}\r\n"), 431),
        ("G".repeat(20_000), 414),
    ];
    for (case, expected) in cases {
        assert_eq!(
            refused(&proxy, &backend, &case).await,
            expected,
            "{case:.40}"
        );
    }
    // As large as is allowed.
    let fits = format!(
        "GET /{} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: {}\r\n\r\n",
        "a".repeat(8_000),
        "b".repeat(8_000)
    );
    assert_eq!(status(&proxy.all(fits.as_bytes()).await), 200);
}

#[tokio::test]
async fn how_bytes_are_cut_changes_nothing() {
    let (proxy, backend) = site().await;
    let good =
        "POST /cut HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let mut talk = proxy.connect().await;
    for piece in good.as_bytes().chunks(1) {
        talk.send(piece).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(status(&talk.answer().await), 200);
    let bad =
        "POST /cut HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n";
    for piece in bad.as_bytes().chunks(3) {
        talk.send(piece).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(status(&talk.rest().await), 400);
    assert_eq!(backend.requests().len(), 1);
}
