//! The end of a proxy: nothing is lost.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use common::{
    Count, Site, Talk,
    backend::{Backend, Do, ok},
    body, header, status,
};
use tokio::net::TcpListener;

#[tokio::test]
async fn a_request_under_way_is_answered_and_ends_its_connection() {
    let backend =
        Backend::new(|_| Do::Slowly(vec![String::new(), ok("late")], Duration::from_millis(300)))
            .await;
    let proxy = Site::new(&[backend.address]).start().await;
    let mut talk = proxy.connect().await;
    talk.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    while backend.requests().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let drained = proxy.proxy.clone();
    let drained = tokio::spawn(async move { drained.drain(common::SOON).await });
    let answer = talk.answer().await;
    assert_eq!(body(&answer), "late");
    assert_eq!(header(&answer, "connection"), Some("close"));
    assert_eq!(talk.rest().await, "");
    assert!(drained.await.unwrap());
}

#[tokio::test]
async fn a_request_that_comes_just_then_is_answered() {
    let backend = Backend::plain().await;
    let proxy = Site::new(&[backend.address]).start().await;
    let mut talk = proxy.connect().await;
    talk.send(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    talk.answer().await;
    let drained = proxy.proxy.clone();
    let drained = tokio::spawn(async move { drained.drain(common::SOON).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    talk.send(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = talk.answer().await;
    assert_eq!(
        (body(&answer), header(&answer, "connection")),
        ("/2", Some("close"))
    );
    assert!(drained.await.unwrap());
}

#[tokio::test]
async fn what_does_not_end_is_ended() {
    let backend = Backend::new(|_| Do::Nothing).await;
    let proxy = Site::new(&[backend.address]).start().await;
    let mut talk = proxy.connect().await;
    talk.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!proxy.proxy.drain(Duration::from_millis(200)).await);
    assert_eq!(talk.rest().await, "");
    assert_eq!(proxy.seen(1).await[0].status, 499);
}

/// Clients that send request after request, and connect anew where an answer says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_nothing_is_lost() {
    let backend = Backend::plain().await;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    // As in a rolling update: the address leads to the new one when the old one ends.
    let old = Site::new(&[backend.address]).start().await;
    let new = Site::new(&[backend.address]).start().await;
    let ended = Arc::new(AtomicBool::new(false));
    let switch = ended.clone();
    let (old_proxy, new_proxy) = (old.proxy.clone(), new.proxy.clone());
    let served = tokio::spawn(async move {
        while let Ok((stream, client)) = listener.accept().await {
            let peer = common::peer(client, address.port());
            let to = if switch.load(Ordering::SeqCst) {
                &new_proxy
            } else {
                &old_proxy
            };
            tokio::spawn(to.clone().serve(stream, peer, |_| None));
        }
    });
    let answered = Arc::new(Count::default());
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..16)
        .map(|_| tokio::spawn(load(address, answered.clone(), stop.clone())))
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    ended.store(true, Ordering::SeqCst);
    assert!(old.proxy.drain(common::SOON).await);
    let before = answered.get();
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    assert!(before > 100 && answered.get() > before);
    served.abort();
}

async fn load(address: std::net::SocketAddr, answered: Arc<Count>, stop: Arc<AtomicBool>) {
    let mut talk = Talk::to(address).await;
    while !stop.load(Ordering::SeqCst) {
        talk.send(b"GET /load HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = talk.answer().await;
        assert_eq!((status(&answer), body(&answer)), (200, "/load"));
        answered.add();
        if header(&answer, "connection") == Some("close") {
            talk = Talk::to(address).await;
        }
    }
}
