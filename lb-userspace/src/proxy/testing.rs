//! Tables, and requests that are over, for tests.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use lb_proxy::{Attempt, Record};
use lb_route::{
    Compiler, Mode, PathType, Table,
    action::Action,
    input::{BackendRef, Ingress, IngressPath, IngressRule, Name, PortRef, Service, ServicePort},
    request::{Client, Head},
};

/// An Ingress of the namespace `default`, with paths of a host, each with its Service.
pub(super) fn ingress(
    name: &str,
    host: &str,
    paths: &[(&str, &str)],
    annotations: &[(&str, &str)],
) -> Ingress {
    let path = |(path, service): &(&str, &str)| IngressPath {
        path: (*path).to_owned(),
        kind: PathType::Prefix,
        backend: Some(BackendRef {
            service: (*service).into(),
            port: PortRef::Number(80),
        }),
    };
    let prefixed = |(key, value): &(&str, &str)| {
        (
            format!("nginx.ingress.kubernetes.io/{key}"),
            (*value).to_owned(),
        )
    };
    Ingress {
        key: Name::new("default", name),
        mode: Mode::Nginx,
        uid: name.into(),
        created: 0,
        annotations: annotations.iter().map(prefixed).collect(),
        default_backend: None,
        rules: vec![IngressRule {
            host: host.to_owned(),
            paths: paths.iter().map(path).collect(),
        }],
        tls: Vec::new(),
    }
}

/// A compiler with Ingresses of one host, `shop.example`: `/` for Service `web`, which has a canary
/// `beta` for requests with `x-canary: always`, and `/api` for Service `api`.
pub(super) fn shop() -> Compiler {
    let mut compiler = Compiler::new(lb_route::Options::default());
    let all = [
        ingress(
            "shop",
            "shop.example",
            &[("/", "web"), ("/api", "api")],
            &[],
        ),
        ingress(
            "beta",
            "shop.example",
            &[("/", "beta")],
            &[("canary", "true"), ("canary-by-header", "x-canary")],
        ),
    ];
    for ingress in all {
        compiler.put_ingress(Arc::new(ingress));
    }
    for (last, name) in ["web", "api", "beta"].into_iter().enumerate() {
        put_service(&mut compiler, name, &[endpoint(last as u8 + 1)]);
    }
    compiler
}

/// Gives a compiler a Service of the namespace `default` with port 80.
pub(super) fn put_service(compiler: &mut Compiler, name: &str, endpoints: &[SocketAddr]) {
    let service = Service {
        ports: vec![ServicePort {
            name: "".into(),
            number: 80,
            address: None,
            endpoints: endpoints.into(),
        }],
        external_name: None,
    };
    compiler.put_service(&Name::new("default", name), Some(Arc::new(service)));
}

pub(super) fn endpoint(last: u8) -> SocketAddr {
    ([192, 0, 2, last], 8080).into()
}

/// Settings of the ConfigMap.
pub(super) fn set(compiler: &mut Compiler, settings: &[(&str, &str)]) {
    let settings = settings.iter();
    let settings: BTreeMap<_, _> = settings
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    compiler.set_globals(&settings);
}

/// A `GET` that came at 2021-03-04T05:06:07.890Z from 198.51.100.7, and was over 1.234 s later; as
/// the table decides of it. What is to be forwarded is answered 200, and nothing was tried.
pub(super) fn record(table: &Table, target: &str, headers: &[(&str, &[u8])]) -> Record {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        map.append(name, HeaderValue::from_bytes(value).unwrap());
    }
    map.entry("host")
        .or_insert(HeaderValue::from_static("shop.example"));
    let mut record = Record {
        time: UNIX_EPOCH + Duration::from_millis(1_614_834_367_890),
        method: Method::GET,
        uri: target.parse().unwrap(),
        version: Version::HTTP_11,
        headers: map,
        client: client(),
        connection: 12,
        connection_requests: 3,
        forward: None,
        location: None,
        user: None,
        limited: None,
        status: StatusCode::OK,
        request_length: 321,
        head_bytes_sent: 100,
        body_bytes_sent: 45,
        request_time: Duration::from_micros(1_234_567),
        attempts: Vec::new(),
        trace: None,
    };
    let head = Head {
        method: &record.method,
        uri: &record.uri,
        version: record.version,
        headers: &record.headers,
    };
    match table.decide(&head, &record.client) {
        Action::Answer(answer) => {
            record.status = answer.status;
            record.location = answer.location;
        }
        Action::Forward(forward) => {
            record.location = Some(forward.location.clone());
            record.forward = Some(Arc::new(*forward));
        }
    }
    record
}

fn client() -> Client {
    Client {
        address: ([198, 51, 100, 7], 40_000).into(),
        port: 80,
        tls: None,
        random: 0,
        request_id: "0123456789abcdef0123456789abcdef".to_owned(),
    }
}

/// An attempt that was answered, or with 502 and 504 not.
pub(super) fn attempt(last: u8, status: u16, millis: u64) -> Attempt {
    let is_answered = status < 500;
    Attempt {
        address: endpoint(last),
        span: None,
        begun: Duration::ZERO,
        status: StatusCode::from_u16(status).unwrap(),
        connect_time: is_answered.then(|| Duration::from_millis(millis / 4)),
        header_time: is_answered.then(|| Duration::from_millis(millis / 2)),
        response_time: Duration::from_millis(millis),
        response_length: if is_answered { 45 } else { 0 },
    }
}
