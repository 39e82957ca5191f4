//! A small HTTP server for health checks and metrics: GET and HEAD, HTTP/1, one
//! request a connection.

mod listener;

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time,
};

use crate::backoff::Backoff;
use listener::Leaving;

/// Connections of one server at a time: probes need one or two, and whoever
/// holds more open must not take the agent's memory.
const CONNECTIONS: usize = 64;
/// How long a client may take for its request.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a server that ends waits for requests that it has accepted.
const LAST: Duration = Duration::from_secs(2);

/// What a server answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Content type.
    pub content_type: &'static str,
    /// Headers besides.
    pub headers: Vec<(&'static str, String)>,
    /// Body.
    pub body: String,
}

impl Answer {
    /// A JSON document.
    pub fn json(status: u16, body: String) -> Self {
        Self {
            status,
            content_type: "application/json",
            headers: vec![("x-content-type-options", "nosniff".into())],
            body,
        }
    }

    /// A line of text.
    pub fn text(status: u16, body: &str) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            headers: Vec::new(),
            body: format!("{body}\n"),
        }
    }
}

/// Answers the path of a request; `None` where there is nothing.
pub type Handler = Arc<dyn Fn(&str) -> Option<Answer> + Send + Sync>;

/// Takes why an address cannot be bound, and `None` when it is.
pub type Teller = Arc<dyn Fn(Option<String>) + Send + Sync>;

/// Whether this process answers, or only holds its addresses, because another one
/// answers there. When the other end is dropped while it is not its turn, its
/// servers end.
pub type Turn = watch::Receiver<bool>;

/// What is served where, and the setting that says so.
#[derive(Clone)]
pub struct Place {
    what: &'static str,
    option: &'static str,
    address: SocketAddr,
    teller: Option<Teller>,
    turn: Option<Turn>,
}

impl Place {
    /// `what` at an address that the setting `option` gives.
    pub fn new(what: &'static str, option: &'static str, address: SocketAddr) -> Self {
        Self {
            what,
            option,
            address,
            teller: None,
            turn: None,
        }
    }

    /// Tells somebody, and not the log, what is wrong with the address.
    #[must_use]
    pub fn tell(self, teller: Teller) -> Self {
        let teller = Some(teller);
        Self { teller, ..self }
    }

    /// Answers in turns with other processes of the same user.
    #[must_use]
    pub fn in_turn(self, turn: Turn) -> Self {
        let turn = Some(turn);
        Self { turn, ..self }
    }
}

/// Serves a place until the task is dropped, or its turn is over for good. An
/// address that cannot be bound is tried again: another proxy may still hold it, and
/// must not keep this one from its main work.
///
/// # Errors
/// The address cannot be bound and `hard_fail` is set.
pub async fn serve(place: Place, hard_fail: bool, handler: Handler) -> anyhow::Result<()> {
    let Place {
        what,
        option,
        address,
        ..
    } = place;
    let mut turn = place.turn;
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
    let mut told = false;
    loop {
        match (listener::bind(address), &place.teller) {
            (Ok(socket), teller) => {
                teller.iter().for_each(|tell| tell(None));
                told = false;
                if turn.as_ref().is_some_and(|turn| !*turn.borrow()) {
                    tracing::debug!(%address, "{what} is answered by another process");
                }
                if !comes(&mut turn).await {
                    return Ok(());
                }
                if teller.is_none() {
                    tracing::info!(%address, "{what} is served");
                }
                let error = match listener::listen(socket) {
                    Ok(listener) => {
                        backoff.reset();
                        accept(listener, handler.clone(), &mut turn).await
                    }
                    Err(error) => Some(error),
                };
                let Some(error) = error else { continue };
                tracing::warn!(%address, %error, "{what}: no connection can be accepted; trying again");
            }
            (Err(error), _) if hard_fail => anyhow::bail!(
                "{what} cannot be served at {address}: {error}; free the address, or give another with {option}"
            ),
            (Err(error), Some(tell)) => tell(Some(error.to_string())),
            (Err(error), None) => {
                if !told {
                    tracing::warn!(%address, %error, "{what} cannot be served yet; free the address, or give another with {option}");
                }
                told = true;
            }
        }
        time::sleep(backoff.pause()).await;
    }
}

/// Listens at an address, beside others of the same user.
///
/// # Errors
/// It cannot be bound.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    listener::listen(listener::bind(address)?)
}

/// Waits for the turn; `false` when it will never come.
async fn comes(turn: &mut Option<Turn>) -> bool {
    match turn {
        Some(turn) => turn.wait_for(|mine| *mine).await.is_ok(),
        None => true,
    }
}

/// Waits until the turn begins (`mine`) or ends.
async fn changes(turn: &mut Option<Turn>, mine: bool) {
    let here = match turn {
        Some(turn) => turn.wait_for(|now| *now == mine).await.is_ok(),
        None => false,
    };
    // Where the other end is gone, that is an end, and no beginning will come.
    if !here && (mine || turn.is_none()) {
        std::future::pending().await
    }
}

/// Accepts connections until that fails for good, or the turn is over (`None`); then
/// everything that has come is answered.
pub async fn accept(
    listener: TcpListener,
    handler: Handler,
    turn: &mut Option<Turn>,
) -> Option<io::Error> {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut leaving: Option<Leaving> = None;
    loop {
        let leaves = leaving.is_some();
        let step = async {
            match &mut leaving {
                Some(leaving) => leaving.step(&listener).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            next = next(&listener, &room) => {
                match next {
                    Ok((stream, permit)) => answer(stream, permit, handler.clone()),
                    // The client is gone already: nothing is wrong with the listener.
                    Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(e) => return Some(e),
                }
                leaving.iter_mut().for_each(Leaving::took);
            }
            // Two that leave at once would each send its connections to the other.
            () = changes(turn, leaves) => leaving = (!leaves).then(|| Leaving::begin(&listener)),
            goes_on = step => if !goes_on { break },
        }
    }
    drop(listener);
    // Whoever takes longer has been given its time.
    let _ = time::timeout(LAST, room.acquire_many(CONNECTIONS as u32)).await;
    None
}

async fn next(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    // The semaphore is never closed, so there is always a permit to wait for.
    let permit = room.clone().acquire_owned().await;
    let permit = permit.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

fn answer(stream: TcpStream, permit: OwnedSemaphorePermit, handler: Handler) {
    tokio::spawn(async move {
        let service = service_fn(|request| {
            let response = respond(&request, &handler);
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            // The next request may have to go to another process.
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a client's connection ended early");
        }
        drop(permit);
    });
}

fn respond(request: &Request<Incoming>, handler: &Handler) -> Response<Full<Bytes>> {
    let answer = match *request.method() {
        Method::GET | Method::HEAD => {
            handler(request.uri().path()).unwrap_or_else(|| Answer::text(404, "not found"))
        }
        _ => Answer::text(405, "only GET and HEAD are answered"),
    };
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    for (name, value) in answer.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    response
}
