//! Ingresses with most of what decides about a request.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, LazyLock},
};

use lb_route::{
    Compiler, Mode, Options, PathType, Table,
    input::{BackendRef, Ingress, IngressPath, IngressRule, Name, PortRef, Service, ServicePort},
    request::{Client, Tls},
    settings::{Affinity, OverallLimit},
};

/// Host, path, how it is compared, and annotations of an Ingress.
type Row = (
    &'static str,
    &'static str,
    PathType,
    &'static [(&'static str, &'static str)],
);

const ROWS: &[Row] = &[
    (
        "a.example",
        "/",
        PathType::Prefix,
        &[("app-root", "/app"), ("enable-cors", "true")],
    ),
    (
        "a.example",
        "/cors",
        PathType::Prefix,
        &[
            ("enable-cors", "true"),
            (
                "cors-allow-origin",
                "https://*.example, http://b.example:8080",
            ),
        ],
    ),
    (
        "a.example",
        "/canary",
        PathType::Exact,
        &[
            ("canary", "true"),
            ("canary-by-header", "x-canary"),
            ("canary-by-header-pattern", "^(a|b)+$"),
            ("canary-by-cookie", "canary"),
            ("canary-weight", "30"),
        ],
    ),
    (
        "a.example",
        "/canary",
        PathType::Exact,
        &[
            ("limit-rps", "5"),
            ("global-rate-limit", "5"),
            ("global-rate-limit-window", "1m"),
            ("affinity", "cookie"),
        ],
    ),
    (
        "*.b.example",
        "/x/(.*)/(y|z)?",
        PathType::ImplementationSpecific,
        &[
            ("use-regex", "true"),
            ("rewrite-target", "/$2/$1?q=$arg_q"),
            ("x-forwarded-prefix", "/x/$1"),
            (
                "upstream-hash-by",
                "$request_uri$http_x_key$cookie_key$arg_key$host",
            ),
        ],
    ),
    (
        "c.example",
        "/(?=a)(a+)+",
        PathType::ImplementationSpecific,
        &[("use-regex", "true"), ("rewrite-target", "/$1")],
    ),
    (
        "d.example",
        "/",
        PathType::Prefix,
        &[
            ("whitelist-source-range", "192.0.2.0/24"),
            ("denylist-source-range", "192.0.2.128/25"),
            ("server-alias", "alias.example, ~^re[0-9]+\\.example$"),
            ("proxy-body-size", "10"),
            ("auth-url", "http://auth.example/$host$request_uri"),
            (
                "auth-signin",
                "https://sign.example/?rd=$scheme://$host$escaped_request_uri",
            ),
        ],
    ),
    (
        "www.e.example",
        "/",
        PathType::Prefix,
        &[
            ("from-to-www-redirect", "true"),
            ("ssl-redirect", "true"),
            ("force-ssl-redirect", "true"),
        ],
    ),
    (
        "f.example",
        "/",
        PathType::Prefix,
        &[
            ("permanent-redirect", "https://g.example$request_uri"),
            ("upstream-vhost", "$host.in"),
        ],
    ),
    (
        "",
        "/any",
        PathType::Prefix,
        &[("temporal-redirect", "https://$host/$1")],
    ),
];

/// The table of all rows, and of a ConfigMap that has the proxy read what clients say.
pub(crate) fn table() -> &'static Table {
    static TABLE: LazyLock<Table> = LazyLock::new(|| {
        let mut compiler = with_service();
        let globals = [
            ("use-forwarded-headers", "true"),
            ("compute-full-forwarded-for", "true"),
            ("proxy-real-ip-cidr", "192.0.2.0/24"),
            ("enable-real-ip", "true"),
        ];
        compiler.set_globals(&texts(&globals));
        for (number, row) in ROWS.iter().enumerate() {
            compiler.put_ingress(Arc::new(ingress(
                number,
                row.0,
                (row.1, row.2),
                texts(row.3),
            )));
        }
        compiler.compile()
    });
    &TABLE
}

/// The Ingress of that table with a limit that counts for all proxies.
pub(crate) fn limited() -> (&'static Name, &'static OverallLimit) {
    let locations = table().hosts().flat_map(|(_, host)| host.locations());
    let mut limited = locations.filter_map(|location| {
        let limit = location.settings.limits.overall.as_ref()?;
        Some((&location.ingress, limit))
    });
    limited.next().expect("one has it")
}

/// A table of one Ingress: a path that is an expression, and what it is rewritten to.
pub(crate) fn rewriting(path: &str, target: &str) -> Table {
    let annotations = texts(&[("use-regex", "true"), ("rewrite-target", target)]);
    let path = (path, PathType::ImplementationSpecific);
    let mut compiler = with_service();
    compiler.put_ingress(Arc::new(ingress(0, "a.example", path, annotations)));
    for trouble in compiler.troubles().into_values().flatten() {
        assert!(!trouble.message.is_empty());
    }
    compiler.compile()
}

/// The endpoints of the Service.
pub(crate) fn endpoints() -> Vec<SocketAddr> {
    (1..=3).map(|n| ([10, 0, 0, n], 8080).into()).collect()
}

/// As `affinity: cookie` has it.
pub(crate) fn affinity() -> Affinity {
    Affinity {
        persistent: false,
        cookie: "INGRESSCOOKIE".to_owned(),
        path: None,
        domain: None,
        expires: Some(60),
        max_age: Some(60),
        same_site: Some("None".to_owned()),
        conditional_same_site_none: true,
        secure: None,
        change_on_failure: true,
    }
}

/// Who asks.
pub(crate) fn client(https: bool) -> Client {
    Client {
        address: ([192, 0, 2, 1], 1234).into(),
        port: if https { 443 } else { 80 },
        tls: https.then(Arc::<Tls>::default),
        random: 50,
        request_id: "0".repeat(32),
    }
}

/// Annotations under their prefix, or keys of a ConfigMap without one.
fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(own).collect()
}

fn with_service() -> Compiler {
    let mut compiler = Compiler::new(Options::default());
    let port = ServicePort {
        name: "".into(),
        number: 80,
        address: None,
        endpoints: endpoints().into(),
    };
    let service = Service {
        ports: vec![port],
        external_name: None,
    };
    compiler.put_service(&Name::new("default", "a"), Some(Arc::new(service)));
    compiler
}

fn ingress(
    number: usize,
    host: &str,
    path: (&str, PathType),
    annotations: BTreeMap<String, String>,
) -> Ingress {
    let prefix = Options::default().annotations_prefix;
    let annotations = annotations.into_iter();
    let backend = BackendRef {
        service: "a".into(),
        port: PortRef::Number(80),
    };
    let path = IngressPath {
        path: path.0.to_owned(),
        kind: path.1,
        backend: Some(backend),
    };
    Ingress {
        key: Name::new("default", &format!("ingress-{number}")),
        mode: Mode::Nginx,
        uid: number.to_string().into(),
        created: 0,
        annotations: annotations
            .map(|(key, value)| (format!("{prefix}/{key}"), value))
            .collect(),
        default_backend: None,
        rules: vec![IngressRule {
            host: host.to_owned(),
            paths: vec![path],
        }],
        tls: vec![],
    }
}
