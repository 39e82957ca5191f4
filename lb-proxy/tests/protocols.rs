//! HTTP/2 on both sides, gRPC, and connections that change their protocol.

mod common;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use common::{
    Count, Site,
    backend::{Backend, Do, ok},
    header, status,
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2::{self, SendRequest},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lb_route::settings::BackendProtocol;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

type Sent = Full<Bytes>;

/// A client that knows that HTTP/2 is spoken.
async fn h2(address: SocketAddr) -> SendRequest<Sent> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

fn post(path: &str, body: &str) -> Request<Sent> {
    let request = Request::post(format!("http://site{path}")).version(Version::HTTP_2);
    request
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .unwrap()
}

#[tokio::test]
async fn http_2_of_clients_becomes_http_1() {
    let backend = Backend::new(|got| Do::Send(ok(common::body(got.text)))).await;
    let proxy = Site::new(&[backend.address]).start().await;
    let sender = h2(proxy.address).await;
    let ask = |number: usize| {
        let mut sender = sender.clone();
        async move {
            let body = format!("body {number}");
            let answer = sender.send_request(post("/", &body)).await.unwrap();
            assert_eq!(answer.status(), 200);
            let got = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(got, body);
        }
    };
    let all: Vec<_> = (0..50).map(|number| tokio::spawn(ask(number))).collect();
    for one in all {
        one.await.unwrap();
    }
    let requests = backend.requests();
    assert_eq!(requests.len(), 50);
    assert_eq!(header(&requests[0], "host"), Some("site"));
    assert_eq!(header(&requests[0], "te"), None);
    let large = "z".repeat(500_000);
    let answer = sender
        .clone()
        .send_request(post("/", &large))
        .await
        .unwrap();
    let got = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(got == large);
}

#[tokio::test]
async fn errors_by_http_2() {
    let backend = Backend::new(|_| Do::Close).await;
    let site = Site::new(&[backend.address]).with(|settings| settings.body_size = Some(10));
    let proxy = site.start().await;
    let mut sender = h2(proxy.address).await;
    let answer = sender
        .send_request(post("/", &"x".repeat(100)))
        .await
        .unwrap();
    assert_eq!(answer.status(), 413);
    let answer = sender.send_request(post("/", "x")).await.unwrap();
    assert_eq!(answer.status(), 502);
}

#[tokio::test]
async fn a_connection_of_http_2_ends_in_time() {
    let backend = Backend::plain().await;
    let site = Site::new(&[backend.address]);
    let proxy = site
        .start_with(|options| options.client.keep_alive = Duration::from_millis(200))
        .await;
    let mut sender = h2(proxy.address).await;
    assert_eq!(
        sender.send_request(post("/", "")).await.unwrap().status(),
        200
    );
    assert!(!sender.is_closed());
    for _ in 0..100 {
        if sender.is_closed() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the connection is still there");
}

/// A server of HTTP/2 that sends back what it gets, with trailers of its own and the client's.
async fn grpc() -> (SocketAddr, Arc<Count>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(Count::default());
    let counted = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.add();
            let service = service_fn(echo);
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    (address, connections)
}

async fn echo(
    request: Request<Incoming>,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = hyper::Error>>, Infallible> {
    let te = request.headers().get("te").cloned();
    let authority = request.uri().authority().unwrap().to_string();
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let mut body = request.into_body();
    tokio::spawn(async move {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        while let Some(frame) = body.frame().await {
            match frame.unwrap().into_data() {
                Ok(data) => sender.send(Ok(Frame::data(data))).await.unwrap(),
                Err(frame) => trailers.extend(frame.into_trailers().unwrap()),
            }
        }
        let _ = sender.send(Ok(Frame::trailers(trailers))).await;
    });
    let frames = Frames(receiver);
    let mut answer = Response::new(StreamBody::new(frames));
    answer
        .headers_mut()
        .insert("x-authority", authority.parse().unwrap());
    if let Some(te) = te {
        answer.headers_mut().insert("x-te", te);
    }
    Ok(answer)
}

/// Frames of a channel.
struct Frames(tokio::sync::mpsc::Receiver<Result<Frame<Bytes>, hyper::Error>>);

impl futures::Stream for Frames {
    type Item = Result<Frame<Bytes>, hyper::Error>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

#[tokio::test]
async fn grpc_has_its_trailers() {
    let (address, connections) = grpc().await;
    let site = Site::new(&[address]).with(|settings| {
        settings.upstream.protocol = BackendProtocol::Grpc;
        settings.body_size = None;
    });
    let proxy = site.start().await;
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    for _ in 0..3 {
        // Messages go to and fro while both are open.
        let (frames, receiver) = tokio::sync::mpsc::channel(4);
        let request = Request::post("http://site/a.B/C").header("te", "trailers");
        let request = request.body(StreamBody::new(Frames(receiver))).unwrap();
        let answer = tokio::spawn(sender.send_request(request));
        frames
            .send(Ok(Frame::data(Bytes::from("one"))))
            .await
            .unwrap();
        let mut answer = answer.await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["x-te"], "trailers");
        assert_eq!(answer.headers()["x-authority"], "site");
        for message in ["two", "three"] {
            let got = answer.body_mut().frame().await.unwrap().unwrap();
            assert!(got.is_data());
            frames
                .send(Ok(Frame::data(Bytes::from(message))))
                .await
                .unwrap();
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-mine", HeaderValue::from_static("yes"));
        frames.send(Ok(Frame::trailers(trailers))).await.unwrap();
        drop(frames);
        let rest = answer.into_body().collect().await.unwrap();
        let trailers = rest.trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers["x-mine"], "yes");
        assert_eq!(rest.to_bytes(), "three");
    }
    assert_eq!(connections.get(), 1);
}

#[tokio::test]
async fn grpc_where_nobody_listens() {
    let site = Site::new(&[common::nobody().await])
        .with(|settings| settings.upstream.protocol = BackendProtocol::Grpc);
    let proxy = site.start().await;
    let answer = h2(proxy.address)
        .await
        .send_request(post("/", "x"))
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
}

const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n";
const ASK: &[u8] =
    b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: chat\r\nSec-X: y\r\n\r\n";

#[tokio::test]
async fn another_protocol_goes_both_ways() {
    let backend = Backend::new(|_| Do::Echo(format!("{SWITCHED}hello "))).await;
    let proxy = Site::new(&[backend.address]).start().await;
    let mut talk = proxy.connect().await;
    talk.send(ASK).await;
    let head = talk.until("\r\n\r\n").await;
    assert_eq!(status(&head), 101);
    assert_eq!(header(&head, "upgrade"), Some("chat"));
    assert_eq!(header(&head, "connection"), Some("upgrade"));
    talk.until("hello ").await;
    // Whatever it is: lines without CR, requests, bytes that are no text.
    for message in [
        "ping\n",
        "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n",
        "\0\u{1}",
    ] {
        talk.send(message.as_bytes()).await;
        assert_eq!(talk.until(message).await, message);
    }
    let large = "0123456789".repeat(20_000);
    let (mut from, mut to) = talk.stream.split();
    let send = async {
        to.write_all(large.as_bytes()).await.unwrap();
        // One end closes, the other still speaks.
        to.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut from, &mut got);
    let ((), read) = tokio::join!(send, read);
    read.unwrap();
    assert!(got == format!("{large}bye").into_bytes());
    assert_eq!(backend.requests().len(), 1);
    let sent = &backend.requests()[0];
    assert_eq!(header(sent, "upgrade"), Some("chat"));
    assert_eq!(header(sent, "connection"), Some("upgrade"));
    assert_eq!(header(sent, "sec-x"), Some("y"));
    let seen = &proxy.seen(1).await[0];
    assert_eq!(seen.status, 101);
    assert!(seen.sent > 200_000);
}

#[tokio::test]
async fn a_tunnel_that_is_silent_ends() {
    let backend = Backend::new(|_| Do::Echo(SWITCHED.to_owned())).await;
    let site = Site::new(&[backend.address])
        .with(|settings| settings.upstream.read_timeout = Duration::from_millis(300));
    let proxy = site.start().await;
    let mut talk = proxy.connect().await;
    talk.send(ASK).await;
    talk.until("\r\n\r\n").await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        talk.send(b"x").await;
        talk.until("x").await;
    }
    let begun = std::time::Instant::now();
    assert_eq!(talk.rest().await, "");
    assert!(begun.elapsed() > Duration::from_millis(200));
}

#[tokio::test]
async fn nobody_changes_the_protocol_unasked() {
    let backend = Backend::new(|_| Do::Echo(SWITCHED.to_owned())).await;
    let proxy = Site::new(&[backend.address]).start().await;
    assert_eq!(status(&proxy.get("/").await), 502);
}
