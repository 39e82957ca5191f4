//! A collector of traces, which reads what comes by OpenTelemetry's own messages.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message as _;
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};

/// What it answers.
#[derive(Clone, Copy)]
pub(super) enum Answers {
    /// It has taken all.
    All,
    /// It has taken all but so many.
    AllBut(i64),
    /// A status of gRPC, without a message.
    Status(u32),
    /// Nothing.
    Nothing,
}

pub(super) struct Collector {
    pub(super) address: SocketAddr,
    pub(super) answers: Arc<Mutex<Answers>>,
    got: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    task: JoinHandle<()>,
}

/// How long a test waits for what is to come.
const SOON: Duration = Duration::from_secs(20);

impl Collector {
    pub(super) async fn start() -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into()).await
    }

    pub(super) async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers = Arc::new(Mutex::new(Answers::All));
        let got: Arc<Mutex<Vec<_>>> = Arc::default();
        let shared = (answers.clone(), got.clone());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                let service = service_fn(move |request| take(shared.clone(), request));
                let server = http2::Builder::new(TokioExecutor::new());
                connections.spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self {
            address,
            answers,
            got,
            task,
        }
    }

    /// Ends it, with its connections.
    pub(super) async fn end(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    pub(super) fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        self.got.lock().unwrap().clone()
    }

    /// All spans that have come.
    pub(super) fn now(&self) -> Vec<Span> {
        let requests = self.requests().into_iter();
        let scopes = requests.flat_map(|request| request.resource_spans);
        let scopes = scopes.flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    /// The spans, once there are so many.
    pub(super) async fn spans(&self, count: usize) -> Vec<Span> {
        let there = async {
            loop {
                let spans = self.now();
                if spans.len() >= count {
                    return spans;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let spans = tokio::time::timeout(SOON, there).await;
        let spans = spans.unwrap_or_else(|_| panic!("there are only {:#?}", self.now()));
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans
    }
}

type Shared = (
    Arc<Mutex<Answers>>,
    Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
);

async fn take(
    (answers, got): Shared,
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    let method = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    assert_eq!(request.uri().path(), method);
    let header = |name: &str| request.headers()[name].to_str().unwrap();
    assert_eq!(
        (header("content-type"), header("te")),
        ("application/grpc", "trailers")
    );
    let body = request.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body[0], 0, "it is not compressed");
    let length = u32::from_be_bytes(body[1..5].try_into().unwrap());
    assert_eq!(length as usize, body.len() - 5);
    let message = ExportTraceServiceRequest::decode(&body[5..]).unwrap();
    let answers = *answers.lock().unwrap();
    let partial = match answers {
        Answers::Nothing => return std::future::pending().await,
        Answers::Status(code) => {
            let mut response = Response::new(Full::new(Bytes::new()).boxed());
            let headers = response.headers_mut();
            headers.insert("content-type", HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", code.into());
            return Ok(response);
        }
        Answers::All => None,
        Answers::AllBut(rejected_spans) => Some(ExportTracePartialSuccess {
            rejected_spans,
            error_message: "too old".to_owned(),
        }),
    };
    got.lock().unwrap().push(message);
    let message = ExportTraceServiceResponse {
        partial_success: partial,
    };
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(message.encoded_len() as u32);
    message.encode(&mut bytes).unwrap();
    let trailers = async {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        Some(Ok(trailers))
    };
    let body = Full::new(bytes.freeze()).with_trailers(trailers);
    let mut response = Response::new(body.boxed());
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}

/// The value of an attribute, numbers as text too; empty for none.
pub(super) fn attribute(attributes: &[KeyValue], key: &str) -> String {
    let mut all = attributes.iter().filter(|attribute| attribute.key == key);
    let one = all.next();
    assert!(all.next().is_none(), "{key} is there twice");
    let value = one.and_then(|one| one.value.as_ref()?.value.as_ref());
    match value {
        None => String::new(),
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{key} is {other:?}"),
    }
}
