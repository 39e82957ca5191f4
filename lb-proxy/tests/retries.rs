//! When another endpoint is tried.

mod common;

use std::time::Duration;

use common::{
    Site,
    backend::{Backend, Do, ok},
    body, nobody, status,
};

#[tokio::test]
async fn another_endpoint_is_tried_where_one_refuses() {
    let backend = Backend::plain().await;
    let dead = nobody().await;
    let proxy = Site::new(&[dead, backend.address]).start().await;
    for method in ["GET", "POST"] {
        let request = format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
        );
        for _ in 0..2 {
            assert_eq!(
                status(&proxy.all(request.as_bytes()).await),
                200,
                "{method}"
            );
        }
    }
    assert!(
        backend
            .requests()
            .iter()
            .all(|request| body(request) == "hi")
    );
    let attempts = proxy.seen(4).await.into_iter().map(|seen| seen.attempts);
    let failed = attempts.filter(|attempts| *attempts == [(dead, 502), (backend.address, 200)]);
    assert_eq!(failed.count(), 2);
}

#[tokio::test]
async fn an_endpoint_that_closes_is_left() {
    let bad = Backend::new(|_| Do::Close).await;
    let good = Backend::plain().await;
    let proxy = Site::new(&[bad.address, good.address]).start().await;
    let cases = [
        ("GET", "", 200),
        ("PUT", "hello", 200),
        ("DELETE", "", 200),
        // Not idempotent, and sent already.
        ("POST", "hello", 502),
        ("PATCH", "hello", 502),
        ("LOCK", "", 502),
    ];
    for (method, text, expected) in cases {
        let length = text.len();
        let request = format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
        );
        let mut worst = 0;
        for _ in 0..2 {
            worst = worst.max(status(&proxy.all(request.as_bytes()).await));
        }
        assert_eq!(worst, expected, "{method}");
        if expected == 200 {
            let got = good.requests();
            assert_eq!(body(got.last().unwrap()), text);
        }
    }
}

#[tokio::test]
async fn what_is_no_answer_and_statuses_are_tried_again_if_that_is_wanted() {
    let bad = Backend::new(|got| match got.text.contains("/none") {
        true => Do::Last("nonsense\r\n\r\n".to_owned()),
        false => Do::Send("HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n".to_owned()),
    })
    .await;
    let good = Backend::plain().await;
    for (path, wanted, expected) in [
        ("/none", true, 200),
        ("/none", false, 502),
        ("/status", true, 200),
        ("/status", false, 502),
    ] {
        let site = Site::new(&[bad.address, good.address]).with(|settings| {
            settings.upstream.next.invalid_header = wanted;
            settings.upstream.next.statuses = if wanted { [502].into() } else { [].into() };
        });
        let proxy = site.start().await;
        let answers = [proxy.get(path).await, proxy.get(path).await];
        let worst = answers.iter().map(|answer| status(answer)).max();
        assert_eq!(worst, Some(expected), "{path} {wanted}");
    }
}

#[tokio::test]
async fn so_many_attempts_and_no_more() {
    for (tries, expected) in [(1, 1), (2, 2), (3, 3), (0, 2)] {
        let dead = [nobody().await, nobody().await];
        let site = Site::new(&dead).with(|settings| settings.upstream.next.tries = tries);
        let proxy = site.start().await;
        assert_eq!(status(&proxy.get("/").await), 502);
        let attempts = &proxy.seen(1).await[0].attempts;
        assert_eq!(attempts.len(), expected);
        // None twice while there is another.
        assert!(attempts.len() < 2 || attempts[0].0 != attempts[1].0);
    }
    let site = Site::new(&[]).start().await;
    assert_eq!(status(&site.get("/").await), 503);
}

#[tokio::test]
async fn a_connection_that_was_closed_while_it_waited_is_no_failure() {
    // Each connection answers once, and closes when it is asked again.
    let backend = Backend::new(|got| match got.on_connection {
        1 => Do::Send(ok("once")),
        _ => Do::Close,
    })
    .await;
    let site = Site::new(&[backend.address]).with(|settings| settings.upstream.next.tries = 1);
    let proxy = site.start().await;
    for _ in 0..5 {
        assert_eq!(status(&proxy.get("/").await), 200);
    }
    // Not for what may have been done.
    let post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx";
    assert_eq!(status(&proxy.all(post).await), 502);
    // The end of a connection that is seen before it is used is none either.
    let closing = Backend::new(|_| Do::Last(ok("last"))).await;
    let proxy = Site::new(&[closing.address]).start().await;
    for _ in 0..5 {
        assert_eq!(status(&proxy.all(post).await), 200);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(closing.connections.get(), 5);
}
