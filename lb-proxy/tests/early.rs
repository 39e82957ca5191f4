//! Answers that come before all of their requests.

mod common;

use std::time::Duration;

use common::{Running, SOON, Site, Talk, body, status};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::timeout,
};

/// More than all buffers between a client and an endpoint have.
const LARGE: usize = 16 << 20;

/// A site whose endpoint is one connection that `act` has when the head of a request has come, and
/// what that returns.
async fn site<T: Send + 'static, F: Future<Output = T> + Send>(
    act: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> (Site, oneshot::Receiver<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = Site::new(&[listener.local_addr().unwrap()]).with(|settings| {
        settings.body_size = None;
        settings.upstream.request_buffering = false;
    });
    let (done, result) = oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let _ = done.send(act(stream).await);
    });
    (site, result)
}

/// A client that has sent the head of a request with a large body.
async fn begun(proxy: &Running) -> Talk {
    let mut talk = proxy.connect().await;
    let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n");
    talk.send(head.as_bytes()).await;
    talk
}

/// Bytes that come until so many have, or the end.
async fn count(from: &mut (impl AsyncReadExt + Unpin), most: usize) -> usize {
    let (mut piece, mut all) = (vec![0; 64 * 1024], 0);
    while all < most {
        match from.read(&mut piece).await {
            Ok(0) | Err(_) => break,
            Ok(read) => all += read,
        }
    }
    all
}

#[tokio::test]
async fn the_rest_of_the_request_is_sent_all_the_same() {
    let (site, sent) = site(|mut stream| async move {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly";
        stream.write_all(answer).await.unwrap();
        count(&mut stream, LARGE).await
    })
    .await;
    let proxy = site.start().await;
    let mut talk = begun(&proxy).await;
    let answer = talk.answer().await;
    assert_eq!((status(&answer), body(&answer)), (200, "early"));
    talk.send(&vec![b'x'; LARGE]).await;
    let sent = timeout(SOON, sent).await.expect("all is sent in time");
    assert_eq!(sent, Ok(LARGE));
}

/// The client reads nothing before it has sent all, and the endpoint answers from the beginning.
#[tokio::test]
async fn neither_direction_waits_for_the_other() {
    let (site, sent) = site(|stream| async move {
        let (mut from, mut to) = stream.into_split();
        let answer = tokio::spawn(async move {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
            to.write_all(head.as_bytes()).await.unwrap();
            to.write_all(&vec![b'y'; LARGE]).await.unwrap();
            to
        });
        let sent = count(&mut from, LARGE).await;
        answer.await.unwrap();
        sent
    })
    .await;
    let proxy = site.start().await;
    let mut talk = begun(&proxy).await;
    let all = vec![b'x'; LARGE];
    timeout(SOON, talk.send(&all))
        .await
        .expect("the proxy takes all");
    let answer = talk.answer().await;
    assert!(body(&answer).len() == LARGE);
    assert_eq!(sent.await, Ok(LARGE));
}

#[tokio::test]
async fn an_endpoint_that_takes_no_more_of_it() {
    let (site, ended) = site(|mut stream| async move {
        let answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
        stream.write_all(answer).await.unwrap();
        // For long enough that only a timeout ends it.
        tokio::time::sleep(Duration::from_secs(1)).await;
        count(&mut stream, usize::MAX).await
    })
    .await;
    let short = |settings: &mut lb_route::settings::Settings| {
        settings.upstream.send_timeout = Duration::from_millis(300);
    };
    let proxy = site.with(short).start().await;
    let mut talk = begun(&proxy).await;
    let answer = talk.answer().await;
    assert_eq!((status(&answer), body(&answer)), (403, "no"));
    talk.send(&vec![b'x'; LARGE]).await;
    let ended = timeout(SOON, ended).await.expect("the connection ends");
    assert!(ended.unwrap() < LARGE);
}

/// An answer that breaks off is not one that ends.
#[tokio::test]
async fn an_early_answer_that_breaks_off() {
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nearly",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\nno size\r\n",
    ] {
        let (site, _) = site(move |mut stream| async move {
            stream.write_all(text.as_bytes()).await.unwrap();
        })
        .await;
        let proxy = site.start().await;
        let mut talk = proxy.connect().await;
        talk.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
            .await;
        let answer = talk.rest().await;
        assert!(answer.contains("early"), "{text:?}: {answer:?}");
        assert!(!answer.ends_with("0\r\n\r\n"), "{text:?}: {answer:?}");
    }
}
