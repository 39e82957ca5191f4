//! What becomes of requests for a host `h` of Ingresses with annotations: what ingress-nginx
//! v1.15.1 does with them.

use std::{net::SocketAddr, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header};
use lb_route::{
    Compiler, Mode, Options,
    PathType::{self, ImplementationSpecific, Prefix},
    Table,
    action::{Action, Forward},
    input::{
        BackendRef, Data, Ingress, IngressPath, IngressRule, IngressTls, Name, PortRef, Service,
        ServicePort,
    },
    request::{Client, Head},
};

/// An Ingress with one path, that leads to one of the Services below.
struct Site<'a> {
    path: (&'a str, PathType),
    service: &'a str,
    annotations: &'a [(&'a str, &'a str)],
    tls: Vec<IngressTls>,
}

fn site<'a>(service: &'a str, annotations: &'a [(&'a str, &'a str)]) -> Site<'a> {
    Site {
        path: ("/", Prefix),
        service,
        annotations,
        tls: Vec::new(),
    }
}

fn ingress(number: usize, site: Site<'_>) -> Ingress {
    let annotations = site.annotations.iter();
    let annotations = annotations.map(|(key, value)| {
        let key = format!("nginx.ingress.kubernetes.io/{key}");
        (key, (*value).to_owned())
    });
    let path = IngressPath {
        path: site.path.0.to_owned(),
        kind: site.path.1,
        backend: Some(BackendRef {
            service: site.service.into(),
            port: PortRef::Number(80),
        }),
    };
    Ingress {
        key: Name::new("default", &number.to_string()),
        mode: Mode::Nginx,
        uid: number.to_string().into(),
        created: number as i64,
        annotations: annotations.collect(),
        default_backend: None,
        rules: vec![IngressRule {
            host: "h".to_owned(),
            paths: vec![path],
        }],
        tls: site.tls,
    }
}

/// With Services `main`, `canary` and `spare`, and `none` without endpoints; the proxy's default
/// backend is `spare`.
fn table(sites: Vec<Site<'_>>) -> Table {
    table_with(&[], sites)
}

/// The same, with a ConfigMap.
fn table_with(config: &[(&str, &str)], sites: Vec<Site<'_>>) -> Table {
    let mut compiler = Compiler::new(Options {
        default_backend: Some(Name::new("default", "spare")),
        ..Options::default()
    });
    let config = config.iter();
    let config = config.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    compiler.set_globals(&config.collect());
    for (last, name) in ["main", "canary", "spare", "none"].into_iter().enumerate() {
        let endpoint = SocketAddr::from(([192, 0, 2, last as u8], 8080));
        let endpoints = [endpoint].into_iter().filter(|_| name != "none");
        let port = ServicePort {
            name: "".into(),
            number: 80,
            address: None,
            endpoints: endpoints.collect(),
        };
        let service = Service {
            ports: vec![port],
            external_name: None,
        };
        compiler.put_service(&Name::new("default", name), Some(Arc::new(service)));
    }
    for (number, site) in sites.into_iter().enumerate() {
        compiler.put_ingress(Arc::new(ingress(number, site)));
    }
    compiler.compile()
}

fn decide(table: &Table, target: &str, sent: &[(HeaderName, &str)]) -> Action {
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, HeaderValue::from_static("h"));
    for (name, value) in sent {
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    let uri: Uri = target.parse().unwrap();
    let head = Head {
        method: &Method::GET,
        uri: &uri,
        version: Version::HTTP_11,
        headers: &headers,
    };
    let client = Client {
        address: "192.0.2.1:1".parse().unwrap(),
        port: 8080,
        tls: None,
        random: u32::MAX,
        request_id: String::new(),
    };
    table.decide(&head, &client)
}

fn forward(table: &Table, target: &str, sent: &[(HeaderName, &str)]) -> Forward {
    match decide(table, target, sent) {
        Action::Forward(forward) => *forward,
        other => panic!("{target}: {other:?}"),
    }
}

/// Status and `Location`, or `to` and the target for the backend.
fn ask(table: &Table, target: &str) -> String {
    match decide(table, target, &[]) {
        Action::Forward(forward) => format!("to {}", forward.target),
        Action::Answer(answer) => {
            let mut headers = answer.headers.iter();
            let to = headers.find(|(name, _)| *name == header::LOCATION);
            let to = to.map_or("", |(_, value)| value.to_str().unwrap());
            format!("{} {to}", answer.status.as_u16())
        }
    }
}

fn check(path: (&str, PathType), annotations: &[(&str, &str)], cases: &[(&str, &str)]) {
    let site = Site {
        path,
        ..site("main", annotations)
    };
    let table = table(vec![site]);
    for (target, expected) in cases {
        assert_eq!(&ask(&table, target), expected, "{annotations:?} {target}");
    }
}

#[test]
fn what_a_group_has_stays_in_the_path() {
    let path = ("/foo/(.*)", ImplementationSpecific);
    let cases = [
        ("/foo/a?b=c", "to /a?b=c"),
        ("/foo/a%3Fb", "to /a%3Fb"),
        ("/foo/a%3Fb?c", "to /a%3Fb?c"),
        ("/foo/%FF", "to /%FF"),
    ];
    check(path, &[("rewrite-target", "/$1")], &cases);
    let elsewhere = [("rewrite-target", "https://x.example/$1")];
    let cases = [
        ("/foo/a?b=c", "302 https://x.example/a?b=c"),
        ("/foo/a%20b%3F", "302 https://x.example/a%20b%3F"),
    ];
    check(path, &elsewhere, &cases);
}

#[test]
fn redirects_to_the_same_host_are_absolute_unless_told_otherwise() {
    let to = ("permanent-redirect", "/new");
    let (relative, port) = (
        ("relative-redirects", "true"),
        ("use-port-in-redirects", "true"),
    );
    let root = ("/", Prefix);
    check(root, &[to], &[("/a", "301 http://h/new")]);
    check(root, &[to, relative], &[("/a", "301 /new")]);
    check(root, &[to, port], &[("/a", "301 http://h:8080/new")]);
    let foo = ("/foo/", ImplementationSpecific);
    check(foo, &[], &[("/foo?a", "301 http://h/foo/?a")]);
    check(foo, &[relative], &[("/foo", "301 /foo/")]);
    check(foo, &[port], &[("/foo", "301 http://h:8080/foo/")]);
}

#[test]
fn any_entry_of_tls_leads_to_https() {
    let entry = |hosts: &[&str], secret: Option<&str>| IngressTls {
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        secret: secret.map(Into::into),
    };
    for (tls, expected) in [
        (vec![], "to /x"),
        (vec![entry(&["h"], Some("tls"))], "308 https://h/x"),
        (vec![entry(&["h"], None)], "308 https://h/x"),
        (vec![entry(&[], Some("tls"))], "308 https://h/x"),
        (vec![entry(&["other"], Some("tls"))], "308 https://h/x"),
    ] {
        let text = format!("{tls:?}");
        let site = Site {
            tls,
            ..site("main", &[])
        };
        assert_eq!(ask(&table(vec![site]), "/x"), expected, "{text}");
    }
}

#[test]
fn a_stand_in_is_what_the_annotation_names() {
    let backend = |annotations: &[(&str, &str)]| {
        let table = table(vec![site("none", annotations)]);
        forward(&table, "/x", &[]).upstream.service.name.clone()
    };
    // Its endpoints are none: 503.
    assert_eq!(&*backend(&[]), "none");
    assert_eq!(&*backend(&[("default-backend", "spare")]), "spare");
    assert_eq!(&*backend(&[("default-backend", "none")]), "none");
}

const CANARY: [(&str, &str); 2] = [("canary", "true"), ("canary-by-header", "x-canary")];
const ALWAYS: [(HeaderName, &str); 1] = [(HeaderName::from_static("x-canary"), "always")];

#[test]
fn a_canary_without_endpoints_takes_nothing() {
    for (service, expected) in [("canary", true), ("none", false)] {
        let table = table(vec![site("main", &[]), site(service, &CANARY)]);
        assert_eq!(forward(&table, "/x", &ALWAYS).canary, expected, "{service}");
    }
}

#[test]
fn the_affinity_of_a_canary() {
    let sticky = ("affinity", "cookie");
    let legacy = ("affinity-canary-behavior", "legacy");
    for (primary, own, expected) in [
        (&[sticky][..], &[][..], true),
        (&[], &[sticky], false),
        (&[], &[sticky, legacy], true),
        (&[sticky], &[legacy], false),
    ] {
        let own = [&CANARY, own].concat();
        let table = table(vec![site("main", primary), site("canary", &own)]);
        let forward = forward(&table, "/x", &ALWAYS);
        assert!(forward.canary);
        let canary = forward.location.canary.as_ref().unwrap();
        let affinity = canary.settings.affinity.is_some();
        assert_eq!(affinity, expected, "{primary:?} {own:?}");
    }
}

#[test]
fn a_canary_is_hashed_by_its_own_value() {
    let own = [&CANARY[..], &[("upstream-hash-by", "$request_uri")]].concat();
    let table = table(vec![site("main", &[]), site("canary", &own)]);
    assert_eq!(forward(&table, "/x", &[]).hash, None);
    let hash = forward(&table, "/x", &ALWAYS).hash;
    assert_eq!(hash.as_deref(), Some("/x"));
}

#[test]
fn a_length_is_checked_before_everything_else() {
    let annotations = [
        ("proxy-body-size", "10"),
        ("permanent-redirect", "https://x.example"),
    ];
    let table = table(vec![site("main", &annotations)]);
    for (length, expected) in [("10", false), ("11", true)] {
        let found = match decide(&table, "/", &[(header::CONTENT_LENGTH, length)]) {
            Action::Answer(_) => false,
            Action::Forward(forward) => forward.too_large,
        };
        assert_eq!(found, expected, "{length}");
    }
}

#[test]
fn clients_that_are_blocked() {
    let config = [
        ("block-user-agents", "curl/8,~*bot"),
        ("block-referers", "~^https?://bad\\."),
    ];
    let table = table_with(&config, vec![site("main", &[])]);
    for (header, value, is_blocked) in [
        (header::USER_AGENT, "curl/8", true),
        (header::USER_AGENT, "curl/8.1", false),
        (header::USER_AGENT, "A Bot", true),
        (header::REFERER, "http://bad.example/", true),
        (header::REFERER, "http://good.example/?http://bad.", false),
    ] {
        let found = match decide(&table, "/", &[(header, value)]) {
            Action::Answer(answer) => answer.status == 403,
            Action::Forward(_) => false,
        };
        assert_eq!(found, is_blocked, "{value}");
    }
}

#[test]
fn paths_without_authentication() {
    let annotations = [("auth-url", "http://auth.example/")];
    for (path, asks) in [("/x", true), ("/.well-known/acme-challenge/x", false)] {
        let site = Site {
            path: (path, Prefix),
            ..site("main", &annotations)
        };
        let location = forward(&table(vec![site]), path, &[]).location;
        assert_eq!(location.settings.access.external.is_some(), asks, "{path}");
    }
}

#[test]
fn scripts_read_redirects() {
    let annotations = [("enable-cors", "true"), ("force-ssl-redirect", "true")];
    match decide(&table(vec![site("main", &annotations)]), "/", &[]) {
        Action::Answer(answer) => {
            assert_eq!(answer.status, 308);
            let origin = header::ACCESS_CONTROL_ALLOW_ORIGIN;
            assert!(answer.headers.iter().any(|(name, _)| *name == origin));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn headers_that_cannot_be_set_refuse_everybody() {
    let allowed = [("global-allowed-response-headers", "X-Frame-Options")];
    let annotations = [("custom-headers", "default/own")];
    for (map, is_denied) in [
        (None, true),
        (Some(("X-Frame-Options", "DENY")), false),
        (Some(("X-Other", "a")), true),
        (Some(("no header", "a")), true),
    ] {
        let mut compiler = Compiler::new(Options::default());
        let config = allowed.map(|(key, value)| (key.to_owned(), value.to_owned()));
        compiler.set_globals(&config.into());
        compiler.put_ingress(Arc::new(ingress(0, site("main", &annotations))));
        let data = map.map(|(key, value)| {
            Arc::new(Data([(key.to_owned(), value.as_bytes().to_vec())].into()))
        });
        compiler.put_config_map(&Name::new("default", "own"), data);
        let table = compiler.compile();
        let locations = table.host("h").unwrap().locations();
        let path = locations.iter().find(|l| &*l.path == "/").unwrap();
        assert_eq!(path.denied.is_some(), is_denied, "{map:?}");
    }
}

#[test]
fn a_full_chain_ends_with_the_proxy() {
    let config = [
        ("use-forwarded-headers", "true"),
        ("compute-full-forwarded-for", "true"),
    ];
    let table = table_with(&config, vec![site("main", &[])]);
    let header = HeaderName::from_static("x-forwarded-for");
    let forward = forward(&table, "/", &[(header.clone(), "198.51.100.1")]);
    let set = forward.headers.iter().find(|(name, _)| *name == header);
    let value = set.and_then(|(_, value)| value.as_ref());
    assert_eq!(value.unwrap(), "198.51.100.1, 192.0.2.1");
}
