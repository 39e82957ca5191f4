//! Requests to backends and their answers back, over real connections.

mod common;

use std::time::Duration;

use common::{
    Site,
    backend::{Backend, Do, ok},
    body, header, status,
};

#[tokio::test]
async fn a_request_goes_there_and_its_answer_comes_back() {
    let backend = Backend::plain().await;
    let proxy = Site::new(&[backend.address]).start().await;
    let answer = proxy.get("/a%20b?c=d").await;
    assert_eq!((status(&answer), body(&answer)), (200, "/a%20b?c=d"));
    let sent = &backend.requests()[0];
    assert!(sent.starts_with("GET /a%20b?c=d HTTP/1.1\r\n"), "{sent}");
    assert_eq!(header(sent, "host"), Some("site"));
    assert_eq!(header(sent, "x-added"), Some("yes"));
    assert_eq!(header(sent, "connection"), None);
    let seen = &proxy.seen(1).await[0];
    assert_eq!((seen.status, seen.sent), (200, 10));
    assert_eq!(seen.attempts, [(backend.address, 200)]);
    let length = "GET /a%20b?c=d HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n".len();
    assert_eq!(seen.request_length, length as u64);
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let backend = Backend::plain().await;
    let proxy = Site::new(&[backend.address]).start().await;
    let mut talk = proxy.connect().await;
    for number in 0..20 {
        talk.send(format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
            .await;
        assert_eq!(body(&talk.answer().await), format!("/{number}"));
    }
    // A second client gets the same connection.
    assert_eq!(status(&proxy.get("/").await), 200);
    assert_eq!(
        (backend.connections.get(), backend.requests().len()),
        (1, 21)
    );
    // Requests that come all at once are answered in their order.
    let mut many = String::new();
    for number in 0..50 {
        many += &format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    talk.send(many.as_bytes()).await;
    for number in 0..50 {
        assert_eq!(body(&talk.answer().await), format!("/{number}"));
    }
    assert_eq!(backend.connections.get(), 1);
    assert_eq!(proxy.proxy.waiting(), 1);
}

/// Connections that rest cost nothing: what serves them sleeps.
#[tokio::test]
async fn nobody_is_awake_for_connections_that_rest() {
    let backend = Backend::plain().await;
    let proxy = Site::new(&[backend.address]).start().await;
    let mut talks = Vec::new();
    for _ in 0..8 {
        let mut talk = proxy.connect().await;
        talk.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        talk.answer().await;
        talks.push(talk);
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let before = on_cpu();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let after = on_cpu();
    assert!(
        after - before < Duration::from_millis(150),
        "{before:?} {after:?}"
    );
}

/// How long this thread, which has the whole runtime, was on a CPU (Documentation/scheduler/sched-stats.rst of Linux).
fn on_cpu() -> Duration {
    let file = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds = file.split(' ').next().unwrap();
    Duration::from_nanos(nanoseconds.parse().unwrap())
}

/// Nothing is kept ready for a connection that rests; all the same it has its next request.
#[tokio::test]
async fn connections_rest() {
    let backend = Backend::plain().await;
    let proxy = Site::new(&[backend.address]).start().await;
    let mut talk = proxy.connect().await;
    for piece in [
        "",
        "GET /1 HTTP/1.1\r\nHo",
        "st: a\r\n\r\nGET /2 HT",
        "TP/1.1\r\nHost: a\r\n\r\n",
    ] {
        talk.send(piece.as_bytes()).await;
        tokio::time::sleep(Duration::from_millis(1300)).await;
    }
    assert_eq!(body(&talk.answer().await), "/1");
    assert_eq!(body(&talk.answer().await), "/2");
    talk.send(b"GET /3 HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\n\r\n")
        .await;
    assert_eq!(body(&talk.answer().await), "/3");
    tokio::time::sleep(Duration::from_millis(1300)).await;
    // What is refused is refused then, and counts from the beginning.
    talk.send(b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n").await;
    assert_eq!(status(&talk.rest().await), 400);
    let statuses: Vec<_> = proxy.seen(4).await.iter().map(|seen| seen.status).collect();
    assert_eq!(statuses, [200, 200, 200, 400]);
    // A proxy that ends does not forget it.
    let mut talk = proxy.connect().await;
    talk.send(b"GET /4 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    talk.answer().await;
    tokio::time::sleep(Duration::from_millis(1300)).await;
    let drained = proxy.proxy.clone();
    let drained = tokio::spawn(async move { drained.drain(common::SOON).await });
    talk.send(b"GET /5 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(header(&talk.answer().await, "connection"), Some("close"));
    assert!(drained.await.unwrap());
}

#[tokio::test]
async fn no_more_connections_are_kept_than_are_allowed() {
    let backends = [
        Backend::plain().await,
        Backend::plain().await,
        Backend::plain().await,
    ];
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let site = Site::new(&addresses);
    let proxy = site
        .start_with(|options| options.pool.connections = 2)
        .await;
    for _ in 0..3 {
        proxy.get("/").await;
    }
    assert_eq!(proxy.proxy.waiting(), 2);
    // The first was closed, the third is there still.
    for _ in 0..3 {
        proxy.get("/").await;
    }
    let counts: Vec<_> = backends
        .iter()
        .map(|backend| backend.connections.get())
        .collect();
    assert_eq!(counts[0], 2);
}

#[tokio::test]
async fn a_connection_has_so_many_requests() {
    let backend = Backend::plain().await;
    let site = Site::new(&[backend.address]);
    let proxy = site
        .start_with(|options| {
            options.pool.requests = 2;
            options.client.keep_alive_requests = 3;
        })
        .await;
    let mut talk = proxy.connect().await;
    for last in [false, false, true] {
        talk.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let close = header(&talk.answer().await, "connection") == Some("close");
        assert_eq!(close, last);
    }
    assert_eq!(talk.rest().await, "");
    assert_eq!(backend.connections.get(), 2);
}

#[tokio::test]
async fn connections_that_wait_are_closed_in_time() {
    let backend = Backend::plain().await;
    let site = Site::new(&[backend.address]);
    let proxy = site
        .start_with(|options| options.pool.timeout = Duration::from_millis(100))
        .await;
    let tended = proxy.proxy.clone();
    tokio::spawn(async move { tended.tend().await });
    proxy.get("/").await;
    assert_eq!(proxy.proxy.waiting(), 1);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(proxy.proxy.waiting(), 0);
}

#[tokio::test]
async fn bodies_go_both_ways() {
    let backend = Backend::new(|got| Do::Send(ok(body(got.text)))).await;
    let proxy = Site::new(&[backend.address]).start().await;
    let large = "0123456789abcdef".repeat(30_000);
    let sized = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{large}",
        large.len()
    );
    let answer = proxy.all(sized.as_bytes()).await;
    assert!(body(&answer) == large);
    // What is small has a length when it goes on, even if it came without.
    let small = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
    let answer = proxy.all(small.as_bytes()).await;
    assert_eq!(body(&answer), "abcde");
    assert_eq!(header(&backend.requests()[1], "content-length"), Some("5"));
    let chunked = format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{:x}\r\n{large}\r\n0\r\n\r\n",
        large.len()
    );
    let answer = proxy.all(chunked.as_bytes()).await;
    assert_eq!(status(&answer), 200);
    let sent = &backend.requests()[2];
    assert_eq!(header(sent, "transfer-encoding"), Some("chunked"));
    assert_eq!(header(sent, "content-length"), None);
    // A GET with a body.
    let get = "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    assert_eq!(body(&proxy.all(get.as_bytes()).await), "hi");
}

#[tokio::test]
async fn answers_without_bodies() {
    let backend = Backend::new(|got| {
        let target = got.text.split(' ').nth(1).unwrap();
        Do::Send(match target {
            "/204" => "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n".to_owned(),
            "/304" => {
                "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 9\r\n\r\n".to_owned()
            }
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n".to_owned(),
        })
    })
    .await;
    let proxy = Site::new(&[backend.address]).start().await;
    let mut talk = proxy.connect().await;
    for (method, path, expected, length) in [
        ("HEAD", "/", 200, Some("9")),
        ("GET", "/204", 204, None),
        ("GET", "/304", 304, None),
        ("HEAD", "/204", 204, None),
        ("HEAD", "/", 200, Some("9")),
    ] {
        talk.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
            .await;
        let head = talk.until("\r\n\r\n").await;
        assert_eq!(status(&head), expected, "{method} {path}");
        let found = header(&head, "content-length").filter(|_| method == "HEAD");
        assert_eq!(found, length, "{method} {path}");
    }
    assert_eq!(backend.connections.get(), 1);
}

#[tokio::test]
async fn answers_that_end_with_their_connection() {
    let backend = Backend::new(|_| Do::Last("HTTP/1.1 200 OK\r\n\r\nall of it".to_owned())).await;
    let proxy = Site::new(&[backend.address]).start().await;
    let mut talk = proxy.connect().await;
    talk.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = talk.until("0\r\n\r\n").await;
    assert_eq!(header(&answer, "transfer-encoding"), Some("chunked"));
    assert!(answer.contains("all of it"));
    // HTTP/1.0 has no chunks.
    let answer = proxy.all(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert_eq!(header(&answer, "transfer-encoding"), None);
    assert_eq!(body(&answer), "all of it");
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off() {
    let backend =
        Backend::new(|_| Do::Last("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart".to_owned()))
            .await;
    let proxy = Site::new(&[backend.address]).start().await;
    let mut talk = proxy.connect().await;
    talk.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = talk.rest().await;
    assert_eq!((status(&answer), body(&answer)), (200, "part"));
}

#[tokio::test]
async fn http_1_0_is_spoken_where_it_is_wanted() {
    let backend =
        Backend::new(|_| Do::Last("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi".to_owned()))
            .await;
    let site = Site::new(&[backend.address]).with(|settings| settings.upstream.http10 = true);
    let proxy = site.start().await;
    let mut talk = proxy.connect().await;
    for _ in 0..2 {
        talk.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = talk.answer().await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    assert!(backend.requests()[0].starts_with("GET / HTTP/1.0\r\n"));
    assert_eq!(backend.connections.get(), 2);
    let large = "x".repeat(100_000);
    let chunked = format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{:x}\r\n{large}\r\n0\r\n\r\n",
        large.len()
    );
    assert_eq!(status(&proxy.all(chunked.as_bytes()).await), 411);
}

#[tokio::test]
async fn headers_of_one_hop_stay_there() {
    let backend = Backend::new(|_| {
        Do::Send(
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive, x-inner\r\n\
             Keep-Alive: timeout=9\r\nX-Inner: 1\r\nX-Outer: 2\r\nX-Accel-Redirect: /x\r\n\
             Server: theirs\r\n\r\n"
                .to_owned(),
        )
    })
    .await;
    let site = Site::new(&[backend.address]);
    let proxy = site
        .start_with(|options| options.server = Some("ours".parse().unwrap()))
        .await;
    let answer = proxy
        .all(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, x-mine\r\nX-Mine: 1\r\nX-Other: 2\r\n\
              Keep-Alive: 9\r\nTE: gzip\r\nProxy-Authorization: x\r\nProxy: x\r\nX_Under: 1\r\n\r\n",
        )
        .await;
    for name in ["keep-alive", "x-inner", "x-accel-redirect"] {
        assert_eq!(header(&answer, name), None, "{name}");
    }
    assert_eq!(header(&answer, "x-outer"), Some("2"));
    assert_eq!(header(&answer, "server"), Some("ours"));
    let sent = &backend.requests()[0];
    for name in [
        "x-mine",
        "keep-alive",
        "te",
        "proxy-authorization",
        "proxy",
        "x_under",
    ] {
        assert_eq!(header(sent, name), None, "{name}: {sent}");
    }
    assert_eq!(header(sent, "x-other"), Some("2"));
}

#[tokio::test]
async fn a_client_that_waits_for_100_gets_it() {
    let backend = Backend::new(|got| Do::Send(ok(body(got.text)))).await;
    let proxy = Site::new(&[backend.address]).start().await;
    let mut talk = proxy.connect().await;
    talk.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        .await;
    assert_eq!(
        talk.until("\r\n\r\n").await,
        "HTTP/1.1 100 Continue\r\n\r\n"
    );
    talk.send(b"hello").await;
    assert_eq!(body(&talk.answer().await), "hello");
    assert_eq!(header(&backend.requests()[0], "expect"), None);
    // A body that is too large is refused before it comes.
    talk.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n",
    )
    .await;
    assert_eq!(status(&talk.until("\r\n\r\n").await), 413);
}
