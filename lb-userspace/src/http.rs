//! A small HTTP server for health checks and metrics: GET and HEAD, HTTP/1.

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
use tokio::{net::TcpListener, sync::Semaphore, time};

use crate::backoff::Backoff;

/// Connections of one server at a time: probes need one or two, and whoever
/// holds more open must not take the agent's memory.
const CONNECTIONS: usize = 64;
/// How long a client may take for its request, and a connection may idle.
const PATIENCE: Duration = Duration::from_secs(30);

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

/// What is served where, and the setting that says so.
#[derive(Clone)]
pub struct Place {
    what: &'static str,
    option: &'static str,
    address: SocketAddr,
    teller: Option<Teller>,
}

impl Place {
    /// `what` at an address that the setting `option` gives.
    pub fn new(what: &'static str, option: &'static str, address: SocketAddr) -> Self {
        Self {
            what,
            option,
            address,
            teller: None,
        }
    }

    /// Tells somebody, and not the log, what is wrong with the address.
    #[must_use]
    pub fn tell(self, teller: Teller) -> Self {
        let teller = Some(teller);
        Self { teller, ..self }
    }
}

/// Serves a place until the task is dropped. An address that cannot be bound is
/// tried again: another proxy may still hold it, and must not keep this one from
/// its main work.
///
/// # Errors
/// The address cannot be bound and `hard_fail` is set.
pub async fn serve(place: Place, hard_fail: bool, handler: Handler) -> anyhow::Result<()> {
    let Place {
        what,
        option,
        address,
        teller,
    } = place;
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
    let mut told = false;
    loop {
        match (bind(address).await, &teller) {
            (Ok(listener), teller) => {
                match teller {
                    Some(tell) => tell(None),
                    None => tracing::info!(%address, "{what} is served"),
                }
                backoff.reset();
                told = false;
                let error = accept(listener, handler.clone()).await;
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

/// Binds an address. The unspecified one of either family stands for both, as it
/// does for Go (net/ipsock_posix.go, `favoriteAddrFamily`), and for IPv4 alone on
/// a host without IPv6.
async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    if !address.ip().is_unspecified() {
        return TcpListener::bind(address).await;
    }
    match TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, address.port())).await {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
            ) =>
        {
            TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

/// Accepts connections until that fails for good.
pub async fn accept(listener: TcpListener, handler: Handler) -> io::Error {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed, so there is always a permit to wait for.
        let Ok(permit) = room.clone().acquire_owned().await else {
            return io::Error::other("the server has ended");
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // The client is gone already: nothing is wrong with the listener.
            Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(e) => return e,
        };
        let handler = handler.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = respond(&request, &handler);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a client's connection ended early");
            }
            drop(permit);
        });
    }
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
