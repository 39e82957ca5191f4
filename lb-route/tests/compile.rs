//! Tables that are changed step by step are those that are made at once.

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderMap, Method, Uri, Version, header};
use lb_route::{
    Compiler, Mode, Options, PathType,
    action::{Action, Endpoints},
    input::{
        BackendRef, Data, Ingress, IngressPath, IngressRule, IngressTls, Name, PortRef, Service,
        ServicePort,
    },
    request::{Client, Head},
};
use proptest::prelude::*;

const HOSTS: [&str; 4] = ["a.test", "www.a.test", "*.test", ""];
const PATHS: [&str; 3] = ["/", "/x", "/x/y"];
const SERVICES: [&str; 3] = ["one", "two", "three"];

/// A step: an object comes, changes, or goes.
#[derive(Clone, Debug)]
enum Step {
    Ingress(Ingress),
    RemoveIngress(usize),
    Service(usize, Option<Vec<u16>>),
    Secret(Option<u8>),
    Globals(bool),
}

fn name(number: usize) -> Name {
    Name::new("default", &format!("ing-{number}"))
}

fn service_name(at: usize) -> Name {
    Name::new("default", SERVICES[at])
}

const ANNOTATIONS: [(&str, &str); 9] = [
    ("canary", "true"),
    ("use-regex", "true"),
    ("from-to-www-redirect", "true"),
    ("server-alias", "alias.test"),
    ("default-backend", "three"),
    ("app-root", "/root"),
    ("service-upstream", "true"),
    ("auth-type", "basic"),
    ("auth-secret", "users"),
];

fn rule() -> impl Strategy<Value = IngressRule> {
    let path = (0..PATHS.len(), 0..SERVICES.len(), any::<bool>(), 0..2_u16);
    let path = path.prop_map(|(path, service, exact, port)| IngressPath {
        path: PATHS[path].to_owned(),
        kind: if exact {
            PathType::Exact
        } else {
            PathType::Prefix
        },
        backend: Some(backend(SERVICES[service], 80 + port)),
    });
    let rule = (0..HOSTS.len(), prop::collection::vec(path, 1..3));
    rule.prop_map(|(host, paths)| {
        let host = HOSTS[host].to_owned();
        IngressRule { host, paths }
    })
}

fn backend(service: &str, port: u16) -> BackendRef {
    let port = PortRef::Number(port);
    BackendRef {
        service: service.into(),
        port,
    }
}

fn ingress() -> impl Strategy<Value = Ingress> {
    let annotations = prop::sample::subsequence(ANNOTATIONS.to_vec(), 0..4);
    let rules = prop::collection::vec(rule(), 0..3);
    let parts = (0..4_usize, 0..3_i64, annotations, rules, any::<bool>());
    parts.prop_map(|(number, created, annotations, rules, default)| {
        let prefixed = |(key, value): (&str, &str)| {
            (
                format!("nginx.ingress.kubernetes.io/{key}"),
                value.to_owned(),
            )
        };
        let hosts = vec!["a.test".to_owned()];
        Ingress {
            key: name(number),
            mode: Mode::Nginx,
            uid: number.to_string().into(),
            created,
            annotations: annotations.into_iter().map(prefixed).collect(),
            default_backend: default.then(|| backend("two", 80)),
            tls: vec![IngressTls {
                hosts,
                secret: Some("users".into()),
            }],
            rules,
        }
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => ingress().prop_map(Step::Ingress),
        1 => (0..4_usize).prop_map(Step::RemoveIngress),
        2 => (0..SERVICES.len(), prop::option::of(prop::collection::vec(1..9_u16, 0..3)))
            .prop_map(|(at, ports)| Step::Service(at, ports)),
        1 => prop::option::of(0..3_u8).prop_map(Step::Secret),
        1 => any::<bool>().prop_map(Step::Globals),
    ]
}

fn service(ports: &[u16]) -> Service {
    let mut ports = ports.to_vec();
    ports.sort_unstable();
    ports.dedup();
    let endpoints: Vec<_> = ports
        .iter()
        .map(|port| ([10, 0, 0, 1], *port).into())
        .collect();
    let port = ServicePort {
        name: "".into(),
        number: 80,
        address: Some(([10, 96, 0, 1], 80).into()),
        endpoints: endpoints.into(),
    };
    Service {
        ports: vec![port],
        external_name: None,
    }
}

fn secret(user: u8) -> Data {
    let file = format!("user{user}:{{SHA}}5en6G6MezRroT3XKqkdPOmY/BfQ=\n");
    Data(BTreeMap::from([("auth".to_owned(), file.into_bytes())]))
}

fn globals(http2: bool) -> BTreeMap<String, String> {
    BTreeMap::from([("ssl-redirect".to_owned(), http2.to_string())])
}

fn apply(compiler: &mut Compiler, step: &Step) {
    match step {
        Step::Ingress(ingress) => compiler.put_ingress(Arc::new(ingress.clone())),
        Step::RemoveIngress(number) => compiler.remove_ingress(&name(*number)),
        Step::Service(at, ports) => {
            let service = ports.as_deref().map(|ports| Arc::new(service(ports)));
            compiler.put_service(&service_name(*at), service);
        }
        Step::Secret(user) => {
            let secret = user.map(|user| Arc::new(secret(user)));
            compiler.put_secret(&Name::new("default", "users"), secret);
        }
        Step::Globals(redirect) => compiler.set_globals(&globals(*redirect)),
    }
}

/// What becomes of a request.
fn answer(table: &lb_route::Table, host: &str, path: &str) -> String {
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, host.parse().unwrap());
    let head = Head {
        method: &Method::GET,
        uri: &path.parse::<Uri>().unwrap(),
        version: Version::HTTP_11,
        headers: &headers,
    };
    let client = Client {
        address: "192.0.2.1:1".parse().unwrap(),
        port: 80,
        tls: None,
        random: 0,
        request_id: "id".to_owned(),
    };
    match table.decide(&head, &client) {
        Action::Answer(answer) => format!("{} {:?}", answer.status, answer.headers),
        Action::Forward(forward) => {
            let location = &forward.location;
            let Endpoints::At(endpoints) = &forward.upstream.endpoints else {
                panic!("no name of DNS is used");
            };
            format!(
                "{} {} {:?} {endpoints:?} canary {:?} errors {:?} users {:?}",
                location.ingress,
                forward.upstream.name,
                location.denied,
                location.canary.as_ref().map(|c| &c.upstream),
                location.errors,
                location.users.as_ref().map(|users| users.len()),
            )
        }
    }
}

/// All that a table answers, and all that is wrong.
fn view(compiler: &mut Compiler) -> Vec<String> {
    let table = compiler.compile();
    let mut out = Vec::new();
    for host in [
        "a.test",
        "www.a.test",
        "www.www.a.test",
        "b.test",
        "alias.test",
        "x.other",
    ] {
        for path in ["/", "/x", "/X/z", "/x/y/z"] {
            out.push(format!("{host}{path}: {}", answer(&table, host, path)));
        }
    }
    let upstreams = table.upstreams();
    let mut upstreams: Vec<_> = upstreams
        .map(|u| format!("{:?} {:?}", u.name, u.endpoints))
        .collect();
    upstreams.sort();
    out.extend(upstreams);
    out.extend(compiler.troubles().into_iter().map(|(name, mut all)| {
        all.sort_by(|a, b| a.message.cmp(&b.message));
        format!("{name}: {all:?}")
    }));
    out
}

proptest! {
    #[test]
    fn a_table_that_is_changed_is_one_that_is_made_anew(
        steps in prop::collection::vec(step(), 1..20),
        looks in prop::collection::vec(any::<bool>(), 20),
    ) {
        let mut changed = Compiler::new(Options::default());
        // The last of each object.
        let mut last: BTreeMap<String, Step> = BTreeMap::new();
        for (step, look) in steps.iter().zip(looks) {
            apply(&mut changed, step);
            if look {
                changed.compile();
            }
            let key = match step {
                Step::Ingress(ingress) => format!("ingress {}", ingress.key),
                Step::RemoveIngress(number) => format!("ingress {}", name(*number)),
                Step::Service(at, _) => format!("service {at}"),
                Step::Secret(_) => "secret".to_owned(),
                Step::Globals(_) => "globals".to_owned(),
            };
            last.insert(key, step.clone());
        }
        let mut anew = Compiler::new(Options::default());
        for step in last.values() {
            apply(&mut anew, step);
        }
        prop_assert_eq!(view(&mut changed), view(&mut anew));
    }
}

#[test]
fn whose_turn_it_is_outlives_a_change_of_endpoints() {
    let mut compiler = Compiler::new(Options::default());
    let path = IngressPath {
        path: "/".to_owned(),
        kind: PathType::Prefix,
        backend: Some(backend("one", 80)),
    };
    let rule = IngressRule {
        host: String::new(),
        paths: vec![path],
    };
    compiler.put_ingress(Arc::new(Ingress {
        key: name(0),
        mode: Mode::Specification,
        uid: "0".into(),
        created: 0,
        annotations: BTreeMap::new(),
        default_backend: None,
        rules: vec![rule],
        tls: vec![],
    }));
    compiler.put_service(&service_name(0), Some(Arc::new(service(&[1, 2]))));
    let before = compiler.compile();
    let turn = |table: &lb_route::Table| table.upstreams().next().unwrap().turn.clone();
    turn(&before).store(7, std::sync::atomic::Ordering::Relaxed);
    compiler.put_service(&service_name(0), Some(Arc::new(service(&[1]))));
    let after = compiler.compile();
    assert!(Arc::ptr_eq(&turn(&before), &turn(&after)));
    assert_eq!(turn(&after).load(std::sync::atomic::Ordering::Relaxed), 7);
    // The table before is as it was.
    let endpoints = |table: &lb_route::Table| match &table.upstreams().next().unwrap().endpoints {
        Endpoints::At(all) => all.len(),
        Endpoints::Named(..) => 0,
    };
    assert_eq!((endpoints(&before), endpoints(&after)), (2, 1));
}
