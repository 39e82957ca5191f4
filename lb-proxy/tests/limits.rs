//! Bounds of time and of size.

mod common;

use std::time::{Duration, Instant};

use common::{
    Site,
    backend::{Backend, Do, ok},
    body, status,
};

const SHORT: Duration = Duration::from_millis(150);

/// Milliseconds until the end of something.
async fn takes<T>(future: impl Future<Output = T>) -> (T, u128) {
    let begun = Instant::now();
    let result = future.await;
    (result, begun.elapsed().as_millis())
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer() {
    let backend = Backend::new(|_| Do::Nothing).await;
    let site = Site::new(&[backend.address]).with(|settings| {
        settings.upstream.read_timeout = SHORT;
        settings.upstream.next.tries = 2;
    });
    let proxy = site.start().await;
    let (answer, millis) = takes(proxy.get("/")).await;
    assert_eq!(status(&answer), 504);
    assert!((300..2000).contains(&millis), "{millis}");
    assert_eq!(proxy.seen(1).await[0].attempts.len(), 2);
}

#[tokio::test]
async fn an_endpoint_that_takes_no_connection() {
    // A listener whose queue is full does not answer.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let mut held = Vec::new();
    for _ in 0..8 {
        let connect = tokio::net::TcpStream::connect(address);
        held.push(tokio::time::timeout(SHORT, connect).await);
    }
    assert!(held.iter().any(Result::is_err), "the queue is full");
    let site = Site::new(&[address]).with(|settings| {
        settings.upstream.connect_timeout = SHORT;
        settings.upstream.next.tries = 1;
    });
    let proxy = site.start().await;
    let (answer, millis) = takes(proxy.get("/")).await;
    assert_eq!(status(&answer), 504);
    assert!((100..2000).contains(&millis), "{millis}");
}

#[tokio::test]
async fn all_attempts_together_have_a_bound() {
    let backend = Backend::new(|_| Do::Nothing).await;
    let site = Site::new(&[backend.address]).with(|settings| {
        settings.upstream.read_timeout = SHORT;
        settings.upstream.next.tries = 100;
        settings.upstream.next.within = Some(SHORT * 3);
    });
    let proxy = site.start().await;
    assert_eq!(status(&proxy.get("/").await), 504);
    let attempts = proxy.seen(1).await[0].attempts.len();
    assert!((2..=4).contains(&attempts), "{attempts}");
}

#[tokio::test]
async fn the_time_counts_between_two_reads() {
    let pieces = |count: usize| {
        let mut pieces = vec![format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {count}\r\n\r\n"
        )];
        pieces.extend(vec!["x".to_owned(); count]);
        pieces
    };
    let backend = Backend::new(move |got| match got.text.contains("/slow") {
        // Each pause is shorter than the bound, all together are not.
        true => Do::Slowly(pieces(6), Duration::from_millis(100)),
        false => Do::Slowly(pieces(3), Duration::from_millis(600)),
    })
    .await;
    let site = Site::new(&[backend.address])
        .with(|settings| settings.upstream.read_timeout = Duration::from_millis(300));
    let proxy = site.start().await;
    assert_eq!(body(&proxy.get("/slow").await), "xxxxxx");
    let broken = proxy.get("/stuck").await;
    assert_eq!((status(&broken), body(&broken)), (200, ""));
}

#[tokio::test]
async fn an_endpoint_that_takes_no_body() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // It accepts and reads nothing.
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(connection) = listener.accept().await {
            held.push(connection);
        }
    });
    let site = Site::new(&[address]).with(|settings| {
        settings.body_size = None;
        settings.upstream.send_timeout = SHORT;
        settings.upstream.next.tries = 1;
    });
    let proxy = site.start().await;
    let mut talk = proxy.connect().await;
    talk.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
        .await;
    let (mut from, mut to) = talk.stream.split();
    let send = async {
        let piece = vec![0; 100_000];
        while tokio::io::AsyncWriteExt::write_all(&mut to, &piece)
            .await
            .is_ok()
        {}
    };
    let mut head = [0; 12];
    let read = tokio::io::AsyncReadExt::read_exact(&mut from, &mut head);
    tokio::select! {
        read = read => { read.unwrap(); }
        () = send => panic!("the connection is closed without an answer"),
        () = tokio::time::sleep(common::SOON) => panic!("no answer"),
    }
    assert_eq!(&head, b"HTTP/1.1 504");
}

fn chunked(body: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{body}"
    )
}

fn sized(body: &str) -> String {
    let length = body.len();
    format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn bodies_that_are_too_large() {
    let backend = Backend::new(|got| Do::Send(ok(body(got.text)))).await;
    let site = Site::new(&[backend.address]).with(|settings| settings.body_size = Some(10));
    let proxy = site.start().await;
    for (request, expected) in [
        (sized("0123456789"), 200),
        (sized("0123456789a"), 413),
        (sized(&"x".repeat(3_000_000)), 413),
        (chunked("5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n"), 200),
        (chunked("5\r\n01234\r\n6\r\n56789a\r\n0\r\n\r\n"), 413),
        // The client is to read the answer before its connection is reset.
        (
            chunked(&format!(
                "{:x}\r\n{}\r\n0\r\n\r\n",
                3_000_000,
                "x".repeat(3_000_000)
            )),
            413,
        ),
    ] {
        assert_eq!(
            status(&proxy.all(request.as_bytes()).await),
            expected,
            "{request:.100}"
        );
    }
}

/// Beyond what is kept, the request is on its way already: it is not finished.
#[tokio::test]
async fn a_body_that_turns_out_to_be_too_large() {
    let backend = Backend::new(|got| Do::Send(ok(body(got.text)))).await;
    let site = Site::new(&[backend.address]).with(|settings| settings.body_size = Some(100_000));
    let proxy = site.start().await;
    let request = chunked(&format!(
        "{:x}\r\n{}\r\n0\r\n\r\n",
        200_000,
        "y".repeat(200_000)
    ));
    assert_eq!(status(&proxy.all(request.as_bytes()).await), 413);
    assert!(
        backend
            .requests()
            .iter()
            .all(|request| body(request).len() <= 16)
    );
    let site = Site::new(&[backend.address]).with(|settings| settings.body_size = None);
    let proxy = site.start().await;
    assert_eq!(
        status(&proxy.all(sized(&"z".repeat(3_000_000)).as_bytes()).await),
        200
    );
}

#[tokio::test]
async fn clients_that_are_slow() {
    let backend = Backend::plain().await;
    let site = Site::new(&[backend.address]);
    let proxy = site
        .start_with(|options| {
            options.client.header_timeout = SHORT;
            options.client.body_timeout = SHORT;
            options.client.keep_alive = SHORT * 3;
        })
        .await;
    // Nothing at all, a part of a head, and a head byte by byte.
    for part in ["", "GET / HTTP/1.1\r\nHos"] {
        let mut talk = proxy.connect().await;
        talk.send(part.as_bytes()).await;
        let (rest, millis) = takes(talk.rest()).await;
        assert_eq!(rest, "");
        assert!((100..1000).contains(&millis), "{part:?}: {millis}");
    }
    let mut talk = proxy.connect().await;
    let drip = async {
        for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX: abcdefghijklmnopqrstuvwxyz\r\n\r\n" {
            talk.send(&[*byte]).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        talk.rest().await
    };
    assert_eq!(drip.await, "");
    // A body that does not come.
    let mut talk = proxy.connect().await;
    talk.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
        .await;
    let (answer, millis) = takes(talk.answer()).await;
    assert_eq!(status(&answer), 408);
    assert!((100..1000).contains(&millis), "{millis}");
    // A connection without a request.
    let mut talk = proxy.connect().await;
    talk.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    talk.answer().await;
    tokio::time::sleep(SHORT * 2).await;
    talk.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    talk.answer().await;
    let (rest, millis) = takes(talk.rest()).await;
    assert_eq!(rest, "");
    assert!((400..1500).contains(&millis), "{millis}");
    assert_eq!(backend.requests().len(), 2);
}

#[tokio::test]
async fn a_slow_answer_is_no_idle_connection() {
    let backend = Backend::new(|_| Do::Slowly(vec![String::new(), ok("late")], SHORT * 4)).await;
    let site = Site::new(&[backend.address]);
    let proxy = site
        .start_with(|options| {
            options.client.header_timeout = SHORT;
            options.client.keep_alive = SHORT;
        })
        .await;
    let mut talk = proxy.connect().await;
    talk.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(body(&talk.answer().await), "late");
}

#[tokio::test]
async fn a_client_that_does_not_read() {
    let large = "x".repeat(50_000_000);
    let backend = Backend::new(move |_| Do::Send(ok(&large))).await;
    let proxy = Site::new(&[backend.address])
        .start_with(|options| options.send_timeout = SHORT)
        .await;
    let mut talk = proxy.connect().await;
    talk.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let seen = proxy.seen(1).await;
    assert_eq!(seen[0].status, 200);
    assert!(seen[0].sent < 50_000_000);
}

#[tokio::test]
async fn a_client_that_leaves() {
    let backend = Backend::new(|_| Do::Nothing).await;
    let proxy = Site::new(&[backend.address]).start().await;
    let mut talk = proxy.connect().await;
    talk.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    while backend.requests().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(talk);
    assert_eq!(proxy.seen(1).await[0].status, 499);
}
