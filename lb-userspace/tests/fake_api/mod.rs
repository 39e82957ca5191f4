//! A small API server: lists in pages, watches, streams lists, and misbehaves
//! as a test wants.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response,
    body::{Bytes, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// What is there, and how the server behaves.
pub(crate) struct State {
    objects: BTreeMap<(String, String), Value>,
    /// (version, path, type, object).
    events: Vec<(u64, String, &'static str, Value)>,
    version: u64,
    /// Watches from before this version are gone.
    oldest: u64,
    /// Bumped to end every open watch.
    cut: u64,
    /// Requests to answer with 500.
    pub(crate) failing: usize,
    /// `minor` of the version.
    pub(crate) minor: &'static str,
    /// Whether watches may ask for initial events.
    pub(crate) streams: bool,
    /// Paths that are forbidden.
    pub(crate) forbidden: Vec<&'static str>,
    /// Every request for a list or watch: path and query.
    pub(crate) requests: Vec<String>,
}

pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
    address: SocketAddr,
    server: Option<JoinHandle<()>>,
}

type Body = BoxBody<Bytes, Infallible>;

impl FakeApi {
    /// Starts one.
    pub(crate) async fn start() -> Self {
        let state = State {
            objects: BTreeMap::new(),
            events: Vec::new(),
            version: 100,
            oldest: 0,
            cut: 0,
            failing: 0,
            minor: "30",
            streams: false,
            forbidden: Vec::new(),
            requests: Vec::new(),
        };
        let mut api = Self {
            state: Arc::new(Mutex::new(state)),
            changed: watch::Sender::new(0),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            server: None,
        };
        api.up().await;
        api
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Listens, at the same address as before.
    pub(crate) async fn up(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let (state, changed) = (self.state.clone(), self.changed.subscribe());
        self.server = Some(tokio::spawn(async move {
            // Dropped with the task: every connection breaks when it is down.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (state, changed) = (state.clone(), changed.clone());
                connections.spawn(async move {
                    let service = service_fn(|request| {
                        let response = answer(&request, &state, &changed);
                        async move { Ok::<_, Infallible>(response) }
                    });
                    let connection =
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    let _ = connection.await;
                });
            }
        }));
    }

    /// Goes away: connections break, new ones are refused.
    pub(crate) async fn down(&mut self) {
        let server = self.server.take().unwrap();
        server.abort();
        let _ = server.await;
    }

    /// Ends every open watch without a word.
    pub(crate) fn cut(&self) {
        self.state().cut += 1;
        self.changed.send_modify(|n| *n += 1);
    }

    /// Forgets every version so far: a watch from there is answered with 410.
    pub(crate) fn compact(&self) {
        let mut state = self.state();
        state.oldest = state.version + 1;
        state.version += 2;
        state.events.clear();
    }

    /// Adds or changes an object.
    pub(crate) fn put(&self, path: &str, name: &str, mut object: Value) {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        object["metadata"]["name"] = json!(name);
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let key = (path.to_owned(), name.to_owned());
        let kind = match state.objects.insert(key, object.clone()) {
            Some(_) => "MODIFIED",
            None => "ADDED",
        };
        state.events.push((version, path.into(), kind, object));
        drop(state);
        self.changed.send_modify(|n| *n += 1);
    }

    /// Removes an object.
    pub(crate) fn delete(&self, path: &str, name: &str) {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        let mut object = state
            .objects
            .remove(&(path.to_owned(), name.to_owned()))
            .unwrap();
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        state.events.push((version, path.into(), "DELETED", object));
        drop(state);
        self.changed.send_modify(|n| *n += 1);
    }
}

fn whole(status: u16, body: Value) -> Response<Body> {
    let body = Full::new(Bytes::from(body.to_string()));
    let mut response = Response::new(body.boxed());
    *response.status_mut() = status.try_into().unwrap();
    response
}

fn failure(code: u16, reason: &str, message: &str) -> Response<Body> {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code, "reason": reason, "message": message});
    whole(code, body)
}

fn answer(
    request: &Request<Incoming>,
    state: &Arc<Mutex<State>>,
    changed: &watch::Receiver<u64>,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let query: BTreeMap<&str, &str> = request
        .uri()
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .collect();
    let mut s = state.lock().unwrap();
    if path == "/version" {
        let version = json!({"major": "1", "minor": s.minor, "gitVersion": "v1", "gitCommit": "",
            "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": "",
            "emulationMajor": "", "emulationMinor": "", "minCompatibilityMajor": "", "minCompatibilityMinor": ""});
        return whole(200, version);
    }
    s.requests.push(request.uri().to_string());
    if s.failing > 0 {
        s.failing -= 1;
        return failure(500, "InternalError", "the database is on fire");
    }
    if s.forbidden.contains(&path.as_str()) {
        return failure(403, "Forbidden", &format!("{path} is forbidden"));
    }
    if query.get("watch").is_some_and(|w| *w == "true") {
        let initial = query.get("sendInitialEvents").is_some_and(|w| *w == "true");
        if initial && !s.streams {
            return failure(
                422,
                "Invalid",
                "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
            );
        }
        let from: u64 = query["resourceVersion"].parse().unwrap();
        if !initial && from < s.oldest {
            let status = json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version", "status": "Failure"});
            return whole(200, json!({"type": "ERROR", "object": status}));
        }
        drop(s);
        return watch_from(path, (from, initial), state, changed.clone());
    }
    match named(&path) {
        Some((collection, namespace, name)) => get(&s, &collection, namespace, name),
        None => list(&s, &path, &query),
    }
}

/// The collection, the namespace and the name of one object's path.
fn named(path: &str) -> Option<(String, &str, &str)> {
    let (group, rest) = path.split_once("/namespaces/")?;
    let mut parts = rest.split('/');
    let (namespace, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
    Some((format!("{group}/{kind}"), namespace, name))
}

fn get(s: &State, collection: &str, namespace: &str, name: &str) -> Response<Body> {
    let found = s.objects.get(&(collection.to_owned(), name.to_owned()));
    match found.filter(|object| object["metadata"]["namespace"] == namespace) {
        Some(object) => whole(200, object.clone()),
        None => failure(404, "NotFound", &format!("{name} is not found")),
    }
}

fn list(s: &State, path: &str, query: &BTreeMap<&str, &str>) -> Response<Body> {
    let all: Vec<&Value> = s
        .objects
        .iter()
        .filter(|((p, _), _)| p == path)
        .map(|(_, o)| o)
        .collect();
    let start: usize = query.get("continue").map_or(0, |c| c.parse().unwrap());
    let limit: usize = query
        .get("limit")
        .map_or(usize::MAX, |l| l.parse().unwrap());
    let end = all.len().min(start.saturating_add(limit));
    let mut meta = json!({"resourceVersion": s.version.to_string()});
    if end < all.len() {
        meta["continue"] = json!(end.to_string());
    }
    whole(
        200,
        json!({"kind": "List", "apiVersion": "v1", "metadata": meta, "items": &all[start..end]}),
    )
}

struct Open {
    path: String,
    seen: u64,
    cut: u64,
    state: Arc<Mutex<State>>,
    changed: watch::Receiver<u64>,
}

fn watch_from(
    path: String,
    (from, initial): (u64, bool),
    state: &Arc<Mutex<State>>,
    changed: watch::Receiver<u64>,
) -> Response<Body> {
    let line =
        |kind: &str, object: &Value| json!({"type": kind, "object": object}).to_string() + "\n";
    let mut first = String::new();
    let mut seen = from;
    let s = state.lock().unwrap();
    if initial {
        seen = s.version;
        for (_, object) in s.objects.iter().filter(|((p, _), _)| *p == path) {
            first += &line("ADDED", object);
        }
        let end = json!({"kind": "Service", "apiVersion": "v1", "metadata": {
            "resourceVersion": seen.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}}});
        first += &line("BOOKMARK", &end);
    }
    let open = Open {
        path,
        seen,
        cut: s.cut,
        state: state.clone(),
        changed,
    };
    drop(s);
    let later = stream::unfold(open, move |mut open| async move {
        loop {
            let mut text = String::new();
            {
                let s = open.state.lock().unwrap();
                if s.cut != open.cut {
                    return None;
                }
                for (version, path, kind, object) in &s.events {
                    if *version > open.seen && *path == open.path {
                        text += &line(kind, object);
                    }
                }
                open.seen = open.seen.max(s.version);
            }
            if !text.is_empty() {
                return Some((text, open));
            }
            open.changed.changed().await.ok()?;
        }
    });
    // hyper sends a body's headers with its first frame only when there is one.
    let all = stream::once(async { first }).chain(later);
    let frames = all.map(|text| Ok(Frame::data(Bytes::from(text))));
    Response::new(BodyExt::boxed(StreamBody::new(Box::pin(frames))))
}
