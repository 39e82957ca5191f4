//! Health checks that several processes answer in turns.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use lb_plan::{HealthCheck, model::ServiceKey};
use lb_userspace::{
    agent::state::{Record, StateDir},
    health::{Facts, stand_in},
    http::{self, Answer, Handler, Place},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
    task::JoinHandle,
    time,
};

/// An address that is free.
fn free() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

async fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    match text.is_empty() {
        true => Err(std::io::ErrorKind::UnexpectedEof.into()),
        false => Ok(text),
    }
}

async fn eventually<T>(mut found: impl AsyncFnMut() -> Result<T, String>) -> T {
    let end = time::Instant::now() + Duration::from_secs(20);
    loop {
        match found().await {
            Ok(found) => return found,
            Err(why) => assert!(time::Instant::now() < end, "{why}"),
        }
        time::sleep(Duration::from_millis(10)).await;
    }
}

/// A server that says its name, and its turn.
fn server(name: &'static str, address: SocketAddr) -> (watch::Sender<bool>, JoinHandle<()>) {
    let (mine, turn) = watch::channel(false);
    let place = Place::new("a test", "nothing", address).in_turn(turn);
    let handler: Handler = Arc::new(move |_| Some(Answer::text(200, name)));
    let task = tokio::spawn(async move { http::serve(place, true, handler).await.unwrap() });
    (mine, task)
}

/// Clients that ask without a pause: how often which server answered.
fn clients(address: SocketAddr, stop: &Arc<AtomicBool>) -> Vec<JoinHandle<Vec<String>>> {
    let client = |_| {
        let stop = stop.clone();
        tokio::spawn(async move {
            let mut answers = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let answer = ask(address, "/").await;
                answers.push(match answer {
                    Ok(text) => text.lines().last().unwrap_or_default().to_owned(),
                    Err(error) => error.to_string(),
                });
            }
            answers
        })
    };
    (0..4).map(client).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn whoever_leaves_takes_no_connection_along() {
    let address = free();
    let ((a, _), (b, b_task)) = (server("a", address), server("b", address));
    let who = async |name: &str| {
        eventually(async || {
            // As many in a row are no accident.
            for _ in 0..40 {
                match ask(address, "/").await {
                    Ok(text) if text.ends_with(&format!("\r\n\r\n{name}\n")) => {}
                    other => return Err(format!("{other:?}, not {name}")),
                }
            }
            Ok(())
        })
        .await;
    };
    let refused = ask(address, "/").await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    a.send_replace(true);
    who("a").await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients = clients(address, &stop);
    // The older one leaves, then the older one again, then the younger one.
    b.send_replace(true);
    a.send_replace(false);
    who("b").await;
    a.send_replace(true);
    b.send_replace(false);
    who("a").await;
    b.send_replace(true);
    time::sleep(Duration::from_millis(300)).await;
    b.send_replace(false);
    drop(b);
    b_task.await.unwrap();
    who("a").await;
    stop.store(true, Ordering::Relaxed);
    let mut all = Vec::new();
    for client in clients {
        all.extend(client.await.unwrap());
    }
    let count = |name: &str| all.iter().filter(|answer| *answer == name).count();
    assert!(count("a") > 100 && count("b") > 100, "{}", all.len());
    let wrong: Vec<_> = all.iter().filter(|a| *a != "a" && *a != "b").collect();
    assert!(
        wrong.is_empty(),
        "{} of {}: {wrong:?}",
        wrong.len(),
        all.len()
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_is_called_back_stays() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mine, turn) = watch::channel(true);
    let handler: Handler = Arc::new(|_| None);
    let mut turn = Some(turn);
    let mut accept = pin!(http::accept(listener, handler, &mut turn));
    let mut stays = async |seconds| {
        let time = Duration::from_secs(seconds);
        time::timeout(time, &mut accept).await.is_err()
    };
    assert!(stays(60).await);
    for _ in 0..3 {
        mine.send_replace(false);
        assert!(stays(0).await, "it has to see whether anybody comes");
        mine.send_replace(true);
        assert!(stays(60).await, "it is its turn again");
    }
    mine.send_replace(false);
    assert!(!stays(60).await);
}

#[tokio::test]
async fn an_address_is_not_shared_with_those_who_do_not_share() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let handler: Handler = Arc::new(|_| None);
    let place = Place::new("a test", "--nothing", address);
    let error = http::serve(place, true, handler).await.unwrap_err();
    assert!(error.to_string().contains("--nothing"), "{error}");
}

/// Waits until an address answers with a status.
async fn answers(address: SocketAddr, path: &str, status: u16) {
    eventually(async || match ask(address, path).await {
        Ok(text) if text.starts_with(&format!("HTTP/1.1 {status} ")) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

/// Waits until nobody listens at an address.
async fn is_closed(address: SocketAddr) {
    eventually(async || ask(address, "/livez").await.map_or(Ok(()), Err)).await;
}

fn web() -> ServiceKey {
    ServiceKey {
        namespace: "shop".into(),
        name: "web".into(),
    }
}

fn record(healthz: SocketAddr, checks: &[(u16, u32)]) -> Record {
    let mut facts = Facts::new(Duration::from_secs(60));
    (facts.synced, facts.updated) = (true, Some(SystemTime::now()));
    let check = |&(port, local_ready): &(u16, u32)| (web(), HealthCheck { port, local_ready });
    Record {
        facts,
        healthz: Some(healthz),
        checks: checks.iter().map(check).collect(),
    }
}

#[tokio::test]
async fn a_stand_in_answers_what_is_on_record() {
    let dir = tempfile::TempDir::new().unwrap();
    let state = StateDir::new(dir.path());
    let (healthz, first, second) = (free(), free(), free());
    let (end, ended) = oneshot::channel::<()>();
    let ended = async move { ended.await.unwrap_or_default() };
    let stand_in = tokio::spawn(stand_in::serve(state.clone(), ended));
    let mut turn = state.turn().unwrap();
    time::sleep(Duration::from_millis(300)).await;
    assert!(*turn.borrow(), "there is nothing to answer yet");

    state
        .write_record(&record(healthz, &[(first.port(), 2)]))
        .unwrap();
    turn.wait_for(|mine| !mine).await.unwrap();
    for path in ["/healthz", "/livez"] {
        let text = ask(healthz, path).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    }
    let text = ask(first, "/").await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(
        text.contains("\r\nx-load-balancing-endpoint-weight: 2\r\n"),
        "{text}"
    );
    assert!(text.contains("\"localEndpoints\": 2"), "{text}");

    // Endpoints go, and the port changes.
    state
        .write_record(&record(healthz, &[(second.port(), 0)]))
        .unwrap();
    answers(second, "/", 503).await;
    is_closed(first).await;

    // The agent has been silent for too long.
    let file = std::fs::File::open(dir.path().join("health.json")).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(61))
        .unwrap();
    answers(healthz, "/livez", 503).await;
    let text = ask(second, "/").await.unwrap();
    assert!(text.contains("\"serviceProxyHealthy\": false"), "{text}");

    // What it cannot read, the agent answers itself.
    std::fs::write(dir.path().join("health.json"), "{").unwrap();
    turn.wait_for(|mine| *mine).await.unwrap();
    is_closed(healthz).await;
    state.write_record(&record(healthz, &[])).unwrap();
    turn.wait_for(|mine| !mine).await.unwrap();

    // The node is cleaned up.
    state.remove().unwrap();
    is_closed(healthz).await;
    end.send(()).unwrap();
    stand_in.await.unwrap();
}
