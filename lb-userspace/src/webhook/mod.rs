//! The validating webhook of Ingresses: what the proxy would tell of one, told before it is there.
//!
//! The flags, the path and the port of ingress-nginx's. Ingress-nginx renders its configuration for
//! each review and has nginx test it; here an Ingress is read, and its hosts are built beside the
//! table of those that are served ([`lb_route::Compiler::check`]).

pub mod certificate;
pub mod review;

use std::{convert::Infallible, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use lb_route::Check;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, oneshot, watch},
    time,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use crate::{change::ClassedIngress, http};
use certificate::Files;
use review::Asked;

/// Where reviews are asked for.
pub const PATH: &str = "/networking/v1/ingresses";
/// Connections at a time: an API server has one or a few.
const CONNECTIONS: usize = 64;
/// Bytes of a review: an object of etcd has 1.5 MiB at most, and an update has two.
const BODY: usize = 3 << 20;
/// How long a handshake, a body, and a review may take; API servers wait 10 s by default.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may be idle: longer than Go's clients keep one (90 s).
const IDLE: Duration = Duration::from_secs(120);
/// How often the files of the certificate are looked at.
const LOOK: Duration = Duration::from_secs(10);
/// Before what could not be accepted is tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// Where the webhook is, and with which certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Where it is served (`--validating-webhook`).
    pub address: SocketAddr,
    /// Its certificate (`--validating-webhook-certificate`).
    pub certificate: PathBuf,
    /// The certificate's key (`--validating-webhook-key`).
    pub key: PathBuf,
}

/// What is asked of the one who has the objects.
#[derive(Debug)]
pub struct Question {
    /// The Ingress.
    pub ingress: ClassedIngress,
    /// What it would be told; `None` where it is another controller's. Dropped while nobody
    /// knows.
    pub answer: oneshot::Sender<Option<Check>>,
}

/// Serves the webhook until the task is dropped.
///
/// # Errors
/// The certificate cannot be used, or the address.
pub async fn serve(settings: Settings, questions: mpsc::Sender<Question>) -> anyhow::Result<()> {
    let Settings {
        address,
        certificate,
        key,
    } = settings;
    let listener = http::listen(address).with_context(|| {
        format!("the webhook cannot be served at {address}; free it, or give another with --validating-webhook")
    })?;
    serve_at(listener, Files::new(certificate, key), questions).await
}

/// As [`serve`], where somebody listens already.
///
/// # Errors
/// The certificate cannot be used.
pub async fn serve_at(
    listener: TcpListener,
    mut files: Files,
    questions: mpsc::Sender<Question>,
) -> anyhow::Result<()> {
    let first = files.read()?.context("the files were read before")?;
    let (config, current) = watch::channel(first);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    tracing::info!("Ingresses are reviewed at {}", listener.local_addr()?);
    let accept = async {
        loop {
            // The semaphore is never closed, so there is always a permit to wait for.
            let permit = room.clone().acquire_owned().await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    let config = current.borrow().clone();
                    let questions = questions.clone();
                    tokio::spawn(async move {
                        connection(stream, config, questions).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "the webhook cannot accept a connection");
                    time::sleep(PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = accept => {}
        () = follow(files, config) => {}
    }
    Ok(())
}

/// Takes the certificate anew when its files change; what cannot be used leaves the old one.
async fn follow(mut files: Files, config: watch::Sender<Arc<ServerConfig>>) {
    let mut told = false;
    loop {
        time::sleep(LOOK).await;
        match files.read() {
            Ok(None) => {}
            Ok(Some(new)) => {
                tracing::info!("the webhook has a new certificate");
                config.send_replace(new);
                told = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!("the webhook keeps its certificate: {error}");
                }
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    questions: mpsc::Sender<Question>,
) {
    let handshake = TlsAcceptor::from(config).accept(stream);
    let stream = match time::timeout(PATIENCE, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a handshake of the webhook failed"),
        Err(_) => return tracing::debug!("a handshake of the webhook took too long"),
    };
    let service = service_fn(|request| {
        let questions = questions.clone();
        async move { Ok::<_, Infallible>(respond(request, &questions).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection of the webhook ended early");
    }
}

async fn respond(
    request: Request<Incoming>,
    questions: &mpsc::Sender<Question>,
) -> Response<Full<Bytes>> {
    if request.uri().path() != PATH {
        return answer(StatusCode::NOT_FOUND, format!("only {PATH} is answered\n"));
    }
    if request.method() != Method::POST {
        let text = "only POST is answered\n".to_owned();
        return answer(StatusCode::METHOD_NOT_ALLOWED, text);
    }
    let body = Limited::new(request.into_body(), BODY).collect();
    let body = match time::timeout(PATIENCE, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let text = format!("a review has {BODY} bytes at most\n");
            return answer(StatusCode::PAYLOAD_TOO_LARGE, text);
        }
        Ok(Err(error)) => return answer(StatusCode::BAD_REQUEST, format!("{error}\n")),
        Err(_) => return answer(StatusCode::REQUEST_TIMEOUT, "it took too long\n".to_owned()),
    };
    match review(&body, questions).await {
        Ok(Some(review)) => answer(StatusCode::OK, review),
        Ok(None) => {
            let text = "not every object has been read yet\n".to_owned();
            answer(StatusCode::SERVICE_UNAVAILABLE, text)
        }
        Err(error) => {
            tracing::warn!("the webhook cannot answer a review: {error}");
            answer(StatusCode::BAD_REQUEST, format!("{error}\n"))
        }
    }
}

/// The review with what is said; `None` while nobody knows what to say.
async fn review(
    body: &[u8],
    questions: &mpsc::Sender<Question>,
) -> Result<Option<String>, review::Error> {
    let asked = Asked::read(body)?;
    let Some((ingress, problems)) = &asked.ingress else {
        return Ok(Some(asked.answer(&review::Verdict::default())));
    };
    let (answer, answered) = oneshot::channel();
    let ingress = ingress.clone();
    let key = ingress.ingress.key.clone();
    let check = async {
        let question = Question { ingress, answer };
        questions.send(question).await.ok()?;
        answered.await.ok()
    };
    let Ok(Some(check)) = time::timeout(PATIENCE, check).await else {
        return Ok(None);
    };
    let verdict = review::verdict(problems, check.as_ref());
    if !verdict.refusals.is_empty() {
        tracing::info!("Ingress {key} is refused: {}", verdict.refusals.join("; "));
    }
    Ok(Some(asked.answer(&verdict)))
}

fn answer(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let kind = match status {
        StatusCode::OK => "application/json",
        _ => "text/plain; charset=utf-8",
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
