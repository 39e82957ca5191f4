use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::Duration,
};

use http::Method;
use lb_proxy::Observe as _;
use lb_route::{Compiler, limits::Refused, trouble};
use tokio::sync::watch;

use super::*;
use crate::{
    change::{Kind, ObjectKey},
    proxy::{
        access_log::{AccessLog, Writer},
        testing::{attempt, ingress, put_service, record, set, shop},
    },
};

fn state() -> Arc<State> {
    let identity = Identity {
        namespace: "ingress-nginx".to_owned(),
        class: "k8s.io/ingress-nginx".to_owned(),
        pod: "controller-0".to_owned(),
    };
    let log = AccessLog::new(Writer::start(io::sink()).unwrap(), String::new());
    Arc::new(State::new(identity, log, watch::channel(false).1))
}

/// Compiles, and takes the table in.
fn take(state: &State, compiler: &mut Compiler) -> Arc<Table> {
    let table = Arc::new(compiler.compile());
    state.take(&table);
    table
}

fn text(state: &Arc<State>) -> String {
    Exposition::new(state).text()
}

/// The value of a series, by its labels in any order; `None` if there is none.
fn value(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let wanted: BTreeMap<_, _> = labels.iter().copied().collect();
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.find_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, rest) = series.split_once('{').unwrap_or((series, "}"));
        let pairs = rest.trim_end_matches('}').split(',');
        let pairs = pairs.filter_map(|pair| pair.split_once('='));
        let mut pairs: BTreeMap<_, _> = pairs
            .map(|(key, value)| (key, value.trim_matches('"')))
            .collect();
        pairs.retain(|key, _| !key.starts_with("controller_"));
        (found == name && pairs == wanted).then(|| value.parse().ok())?
    })
}

/// The labels of a request for `/api` of the shop.
fn api<'l>(more: &[(&'l str, &'l str)]) -> Vec<(&'l str, &'l str)> {
    let mut labels = vec![
        ("namespace", "default"),
        ("ingress", "shop"),
        ("service", "api"),
        ("canary", ""),
        ("host", "shop.example"),
        ("path", "/api"),
        ("method", "GET"),
        ("status", "200"),
    ];
    labels.retain(|(key, _)| !more.iter().any(|(other, _)| key == other));
    labels.extend(more);
    labels
}

const REQUESTS: &str = "nginx_ingress_controller_requests";

#[test]
fn requests_are_counted_by_path_method_and_status() {
    let state = state();
    let table = take(&state, &mut shop());
    let mut one = record(&table, "/api/x?y", &[]);
    one.attempts.push(attempt(2, 200, 40));
    state.begun();
    state.done(&one);
    state.begun();
    state.done(&one);
    one.method = Method::from_bytes(b"BREW").unwrap();
    state.begun();
    state.done(&one);
    let canary = record(&table, "/", &[("x-canary", b"always")]);
    state.done(&canary);
    state.done(&record(&table, "/", &[("host", b"elsewhere.example")]));
    let text = text(&state);
    assert_eq!(value(&text, REQUESTS, &api(&[])), Some(2.0), "{text}");
    let odd = [("method", "other")];
    assert_eq!(value(&text, REQUESTS, &api(&odd)), Some(1.0));
    let web = [
        ("service", "web"),
        ("path", "/"),
        ("canary", "default-beta-80"),
    ];
    assert_eq!(value(&text, REQUESTS, &api(&web)), Some(1.0));
    let nobody = [
        ("namespace", ""),
        ("ingress", ""),
        ("service", ""),
        ("path", ""),
        ("host", "_"),
        ("status", "404"),
    ];
    assert_eq!(value(&text, REQUESTS, &api(&nobody)), Some(1.0));
    assert!(
        !text.contains("elsewhere") && !text.contains("BREW"),
        "{text}"
    );
    assert!(text.contains("# TYPE nginx_ingress_controller_requests counter\n"));
    let controller = "controller_namespace=\"ingress-nginx\",controller_class=\"k8s.io/ingress-nginx\",controller_pod=\"controller-0\"";
    assert!(
        text.contains(&format!("{REQUESTS}{{{controller},")),
        "{text}"
    );
}

#[test]
fn times_and_lengths_are_in_the_buckets_of_ingress_nginx() {
    let state = state();
    let table = take(&state, &mut shop());
    // 10, 20 and 40 ms; the request took 1.234567 s, had 321 bytes and 145 of answer.
    let mut one = record(&table, "/api", &[]);
    one.attempts = vec![attempt(2, 502, 9000), attempt(2, 200, 40)];
    state.done(&one);
    let mut instant = record(&table, "/api", &[]);
    instant.request_time = Duration::from_millis(5);
    instant.request_length = 10;
    state.done(&instant);
    let text = text(&state);
    let of = |name: &str, suffix: &str, le: Option<&str>| {
        let more: Vec<_> = le.map(|le| ("le", le)).into_iter().collect();
        let name = format!("nginx_ingress_controller_{name}_{suffix}");
        value(&text, &name, &api(&more))
    };
    for (name, le, expected) in [
        ("connect_duration_seconds", "0.005", 0.0),
        ("connect_duration_seconds", "0.01", 1.0),
        ("header_duration_seconds", "0.01", 0.0),
        ("header_duration_seconds", "0.025", 1.0),
        ("response_duration_seconds", "0.025", 0.0),
        ("response_duration_seconds", "0.05", 1.0),
        ("response_duration_seconds", "10.0", 1.0),
        ("request_duration_seconds", "0.005", 1.0),
        ("request_duration_seconds", "1.0", 1.0),
        ("request_duration_seconds", "2.5", 2.0),
        ("request_duration_seconds", "+Inf", 2.0),
        ("request_size", "10.0", 1.0),
        ("request_size", "100.0", 1.0),
        ("request_size", "+Inf", 2.0),
        ("response_size", "100.0", 0.0),
    ] {
        assert_eq!(of(name, "bucket", Some(le)), Some(expected), "{name} {le}");
    }
    assert_eq!(of("request_duration_seconds", "sum", None), Some(1.239_567));
    assert_eq!(of("request_duration_seconds", "count", None), Some(2.0));
    assert_eq!(of("response_duration_seconds", "count", None), Some(1.0));
    assert_eq!(of("request_size", "sum", None), Some(331.0));
    assert_eq!(of("response_size", "sum", None), Some(290.0));
    let attempts = |result| value(&text, "bascule_proxy_attempts_total", &[("result", result)]);
    assert_eq!(attempts("answered"), Some(1.0));
    assert_eq!(attempts("error"), Some(1.0));
    assert_eq!(value(&text, "bascule_proxy_retries_total", &[]), Some(1.0));
}

#[test]
fn series_go_with_their_paths_and_stay_with_them() {
    let state = state();
    let mut compiler = shop();
    let table = take(&state, &mut compiler);
    let old = record(&table, "/api", &[]);
    state.done(&old);
    state.done(&record(&table, "/", &[("x-canary", b"always")]));
    // Another path of the host: all of them are made anew.
    let more = ingress("more", "shop.example", &[("/more", "web")], &[]);
    compiler.put_ingress(Arc::new(more));
    let table = take(&state, &mut compiler);
    state.done(&record(&table, "/api", &[]));
    // One that began by the old table.
    state.done(&old);
    assert_eq!(value(&text(&state), REQUESTS, &api(&[])), Some(3.0));
    let web = [("service", "web"), ("path", "/")];
    let beta = [&web[..], &[("canary", "default-beta-80")]].concat();
    assert_eq!(value(&text(&state), REQUESTS, &api(&beta)), Some(1.0));
    // The canary goes.
    state.done(&record(&table, "/", &[]));
    compiler.remove_ingress(&lb_route::input::Name::new("default", "beta"));
    let table = take(&state, &mut compiler);
    assert_eq!(value(&text(&state), REQUESTS, &api(&beta)), None);
    assert_eq!(value(&text(&state), REQUESTS, &api(&web)), Some(1.0));
    // Endpoints are of no account.
    put_service(&mut compiler, "api", &[]);
    take(&state, &mut compiler);
    assert_eq!(value(&text(&state), REQUESTS, &api(&[])), Some(3.0));
    // All goes, and what was on its way is not counted any more.
    let late = record(&table, "/api", &[]);
    for name in ["shop", "more"] {
        compiler.remove_ingress(&lb_route::input::Name::new("default", name));
    }
    take(&state, &mut compiler);
    state.done(&late);
    assert!(!text(&state).contains("shop.example"), "{}", text(&state));
}

#[test]
fn backends_cannot_make_series_without_end() {
    let state = state();
    let table = take(&state, &mut shop());
    let mut one = record(&table, "/api", &[]);
    for status in 100..1000 {
        one.status = StatusCode::from_u16(status).unwrap();
        state.done(&one);
    }
    let text = text(&state);
    let series = text
        .lines()
        .filter(|line| line.starts_with(&format!("{REQUESTS}{{")));
    // 64 of their own, and those of 9 classes.
    assert!(series.count() <= 64 + 9);
    assert_eq!(
        value(&text, REQUESTS, &api(&[("status", "100")])),
        Some(1.0)
    );
    assert_eq!(
        value(&text, REQUESTS, &api(&[("status", "5xx")])),
        Some(100.0)
    );
}

#[test]
fn paths_with_any_letters_are_labels() {
    let state = state();
    let mut compiler = shop();
    set(&mut compiler, &[("strict-validate-path-type", "false")]);
    let odd = ingress(
        "odd",
        "odd.example",
        &[("/a\"b\\c", "web")],
        &[("use-regex", "true")],
    );
    compiler.put_ingress(Arc::new(odd));
    let table = take(&state, &mut compiler);
    let hosts = table.hosts().filter(|(name, _)| name == "odd.example");
    let mut locations = hosts.flat_map(|(_, host)| host.locations());
    let location = locations.find(|location| &*location.path != "/").unwrap();
    let one = Record {
        location: Some(location.clone()),
        ..record(&table, "/api", &[])
    };
    state.done(&one);
    assert!(
        text(&state).contains(r#"path="/a\"b\\c""#),
        "{}",
        text(&state)
    );
}

/// Everything there is, once.
fn used() -> Arc<State> {
    let state = state();
    let mut compiler = shop();
    put_service(&mut compiler, "api", &[]);
    let table = take(&state, &mut compiler);
    let mut one = record(&table, "/api", &[]);
    one.attempts.push(attempt(2, 200, 40));
    one.limited = Some(Refused::Connections);
    state.begun();
    state.done(&one);
    state.begun();
    let ingress = ObjectKey {
        kind: Kind::Ingress,
        namespace: "default".into(),
        name: "shop".into(),
    };
    let trouble = trouble::Trouble {
        reason: "MissingService",
        severity: trouble::Severity::Warning,
        message: "there is no Service".to_owned(),
    };
    state.set_troubles(vec![(ingress, trouble)]);
    state.set_source("services", Some("it is away"));
    state
}

const NGINX: &str = "nginx_ingress_controller_";
const SHOP: [(&str, &str); 2] = [("namespace", "default"), ("ingress", "shop")];

fn of_shop<'l>(more: (&'l str, &'l str)) -> Vec<(&'l str, &'l str)> {
    [&SHOP[..], &[more]].concat()
}

#[test]
fn the_state_of_the_proxy_is_shown() {
    let state = used();
    let text = text(&state);
    for (name, labels, expected) in [
        ("ready", vec![], 0.0),
        ("active_requests", vec![], 1.0),
        ("paths", vec![], 2.0),
        ("upstreams", vec![], 3.0),
        ("endpoints", vec![], 2.0),
        ("tables_total", vec![], 1.0),
        ("troubles", vec![("reason", "MissingService")], 1.0),
        ("source_troubles", vec![], 1.0),
        (
            "limited_requests_total",
            of_shop(("limit", "connections")),
            1.0,
        ),
        (
            "limited_requests_total",
            of_shop(("limit", "requests")),
            0.0,
        ),
    ] {
        let found = value(&text, &format!("bascule_proxy_{name}"), &labels);
        assert_eq!(found, Some(expected), "{name} {labels:?}\n{text}");
    }
    for (name, labels, expected) in [
        ("orphan_ingress", of_shop(("type", "no-service")), 1.0),
        ("config_last_reload_successful", vec![], 1.0),
        ("success", vec![], 1.0),
        ("nginx_process_requests_total", vec![], 2.0),
        ("nginx_process_connections", vec![("state", "writing")], 1.0),
    ] {
        let found = value(&text, &format!("{NGINX}{name}"), &labels);
        assert_eq!(found, Some(expected), "{name} {labels:?}\n{text}");
    }
}

#[test]
fn what_is_well_again_is_not_shown() {
    let state = used();
    state.set_source("services", None);
    state.set_troubles(Vec::new());
    let text = text(&state);
    assert_eq!(
        value(&text, "bascule_proxy_source_troubles", &[]),
        Some(0.0)
    );
    let orphan = format!("{NGINX}orphan_ingress");
    let of = |kind| value(&text, &orphan, &of_shop(("type", kind)));
    assert_eq!((of("no-endpoint"), of("no-service")), (Some(1.0), None));
}

/// `docs/metrics.md` lists them under a heading of the proxy's; those of the process are there
/// for both.
#[test]
fn the_page_has_every_metric_and_no_other() {
    let text = text(&used());
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let found: BTreeSet<String> = types
        .filter_map(|line| line.split_once(' '))
        .map(|(name, kind)| format!("| `{name}` | {kind} |"))
        .collect();
    let page = include_str!("../../../../docs/metrics.md");
    let (agents, proxys) = page.split_once("\n## The Ingress proxy\n").unwrap();
    let of_process = agents
        .lines()
        .filter(|line| line.starts_with("| `process_"));
    let rows = proxys.lines().filter(|line| line.starts_with("| `"));
    let listed: BTreeSet<String> = of_process
        .chain(rows)
        .map(|row| row.splitn(4, '|').take(3).collect::<Vec<_>>().join("|") + "|")
        .collect();
    assert_eq!(listed, found);
}
