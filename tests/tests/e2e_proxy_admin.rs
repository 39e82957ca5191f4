//! What a proxy tells of itself: its access log, its metrics and its status page.

use std::{net::SocketAddr, path::PathBuf, process::Command, time::Duration};

use bascule_tests::{
    e2e::{eventually, netns::Netns},
    ingress::{
        certificates::Certificates,
        client::{Answer, Way, ask},
        proxy::Proxy,
        services,
    },
};
use regex::Regex;
use serde_json::{Value, json};
use tempfile::TempDir;

const PROXY: [u8; 4] = [10, 79, 0, 1];
const PATIENCE: Duration = Duration::from_secs(20);

fn ingress(name: &str, annotations: &Value, paths: &[(&str, &str)]) -> Value {
    let path = |(path, service): &(&str, &str)| {
        json!({
            "path": path, "pathType": "Prefix",
            "backend": {"service": {"name": service, "port": {"number": 80}}},
        })
    };
    let host = format!("{name}.test");
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "spec": {
            "ingressClassName": "nginx",
            "tls": [{"hosts": [host], "secretName": if name == "shop" { "tls" } else { "bad" }}],
            "rules": [{
                "host": host, "http": {"paths": paths.iter().map(path).collect::<Vec<_>>()},
            }],
        },
    })
}

fn manifests(certificates: &Certificates) -> String {
    let mut all = services::manifests();
    all.extend(certificates.secrets());
    let limited = json!({
        "nginx.ingress.kubernetes.io/ssl-redirect": "false",
        "nginx.ingress.kubernetes.io/limit-rpm": "1",
        "nginx.ingress.kubernetes.io/limit-burst-multiplier": "1",
        "nginx.ingress.kubernetes.io/no-such-thing": "<script>alert(1)</script>",
    });
    let plain = json!({"nginx.ingress.kubernetes.io/ssl-redirect": "false"});
    let format =
        r#"line $status $host "$request" [$proxy_upstream_name] $upstream_addr "$http_user_agent""#;
    all.extend([
        ingress(
            "shop",
            &plain,
            &[("/", "one"), ("/api", "none"), ("/half", "half-refused")],
        ),
        ingress("limited", &limited, &[("/", "two")]),
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "bad", "namespace": "default"},
            "stringData": {"tls.crt": "nonsense", "tls.key": "nonsense"},
        }),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "settings", "namespace": "default"},
            "data": {"log-format-upstream": format, "skip-access-log-urls": "/quiet"},
        }),
    ]);
    let documents = all.iter().map(Value::to_string);
    documents.collect::<Vec<_>>().join("\n---\n")
}

fn get(to: SocketAddr, host: &str, target: &str, more: &str) -> Answer {
    let head = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{more}");
    ask(to, &head, "").unwrap_or_else(|error| panic!("{host}{target}: {error}"))
}

/// Runs a proxy in a namespace of its own.
fn with_proxy(name: &str, test: impl FnOnce(&Proxy, SocketAddr, &Certificates) + Send) {
    let netns = Netns::new(&format!("proxy-{name}-{}", std::process::id()));
    netns.ip("addr add 10.79.0.1/16 dev lo\n");
    netns.inside(|| {
        let certificates = Certificates::new();
        services::serve(&certificates);
        let flags = ["--configmap", "default/settings"];
        let proxy = Proxy::start(PROXY, &manifests(&certificates), &flags);
        test(&proxy, (PROXY, 10254).into(), &certificates);
    });
}

/// The value of a series of the text of a scrape, by its name and some of its labels.
fn value(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let mut lines = text.lines();
    let line = lines.find(|line| {
        let is_it = line
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(['{', ' ']));
        is_it && labels.iter().all(|label| line.contains(label))
    })?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn requests_are_logged_and_counted() {
    with_proxy("counts", |proxy, admin, certificates| {
        for _ in 0..3 {
            assert_eq!(get(proxy.http, "shop.test", "/x", "").status, 200);
        }
        let agent = "user-agent: a\"b\\c\r\n";
        assert_eq!(get(proxy.http, "shop.test", "/api/y?z", agent).status, 503);
        assert_eq!(get(proxy.http, "shop.test", "/quiet", "").status, 200);
        assert_eq!(get(proxy.http, "elsewhere.test", "/", "").status, 404);
        let limits = [0, 1, 2].map(|_| get(proxy.http, "limited.test", "/", "").status);
        // One, and a burst of one.
        assert_eq!(limits, [200, 200, 503]);
        // Of the two endpoints one is nobody: one of two requests begins with it.
        for _ in 0..2 {
            assert_eq!(get(proxy.http, "shop.test", "/half", "").status, 200);
        }
        let tls = |host: &str| Way {
            tls: Some((certificates.client(None), host.to_owned())),
            ..Way::plain(proxy.https)
        };
        let head = "GET /tls HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n";
        let answer = tls("shop.test").ask(head, "", certificates);
        assert_eq!(answer.expect("it answers").status, 200);
        assert!(tls("limited.test").ask(head, "", certificates).is_err());
        logged(proxy);
        let metrics = eventually(PATIENCE, || {
            let metrics = get(admin, "admin", "/metrics", "");
            // Troubles are told once a second.
            match metrics.body.contains("bascule_proxy_troubles{") {
                true => Ok(metrics),
                false => Err(metrics.body),
            }
        });
        counted(&metrics);
    });
}

fn logged(proxy: &Proxy) {
    let lines = eventually(PATIENCE, || {
        let log = proxy.log();
        let lines: Vec<_> = log
            .lines()
            .filter(|line| line.starts_with("line "))
            .collect();
        let lines: Vec<_> = lines.into_iter().map(str::to_owned).collect();
        match lines.len() {
            // What nobody has and what is skipped is not there.
            10 => Ok(lines),
            _ => Err(log),
        }
    });
    let one = r#"line 200 shop.test "GET /x HTTP/1.1" [default-one-80] 10.79.1.1:8080 "-""#;
    let none = r#"line 503 shop.test "GET /api/y?z HTTP/1.1" [default-none-80] - "a\x22b\x5Cc""#;
    let tls = r#"line 200 shop.test "GET /tls HTTP/1.1" [default-one-80] 10.79.1.1:8080 "-""#;
    assert_eq!(lines[..3], [one, one, one]);
    assert_eq!(lines[3], none);
    assert_eq!(lines[9], tls);
    let retried = "10.79.1.99:8080, 10.79.1.1:8080";
    assert_eq!(
        lines.iter().filter(|line| line.contains(retried)).count(),
        1,
        "{lines:#?}"
    );
}

type Row<'r> = (&'r str, &'r [&'r str], f64);

const ROOT: [&str; 4] = [
    r#"path="/""#,
    r#"host="shop.test""#,
    r#"status="200""#,
    r#"method="GET""#,
];

/// After `nginx_ingress_controller_`.
const NGINX: [Row<'_>; 7] = [
    ("requests", &ROOT, 5.0),
    ("requests", &[r#"path="/api""#, r#"status="503""#], 1.0),
    ("requests", &[r#"host="_""#, r#"status="404""#], 1.0),
    ("request_duration_seconds_count", &ROOT, 5.0),
    ("connect_duration_seconds_count", &ROOT, 5.0),
    ("orphan_ingress", &[r#"ingress="shop""#], 1.0),
    ("config_last_reload_successful", &[], 1.0),
];

/// After `bascule_proxy_`.
const OWN: [Row<'_>; 10] = [
    ("ready", &[], 1.0),
    ("retries_total", &[], 1.0),
    ("attempts_total", &[r#"result="error""#], 1.0),
    (
        "limited_requests_total",
        &[r#"ingress="limited""#, r#"limit="requests""#],
        1.0,
    ),
    ("connections_total", &[r#"protocol="https""#], 2.0),
    ("handshakes_total", &[], 1.0),
    (
        "refused_connections_total",
        &[r#"reason="broken_certificate""#],
        1.0,
    ),
    ("broken_certificates", &[], 1.0),
    ("troubles", &[r#"reason="UnsupportedAnnotation""#], 1.0),
    ("access_log_lost_lines_total", &[], 0.0),
];

fn counted(metrics: &Answer) {
    let text = &metrics.body;
    let kind: Vec<_> = metrics.header("content-type").collect();
    assert!(kind[0].starts_with("text/plain; version=0.0.4"), "{kind:?}");
    let of_nginx = NGINX.map(|row| ("nginx_ingress_controller_", row));
    let own = OWN.map(|row| ("bascule_proxy_", row));
    for (prefix, (name, labels, expected)) in of_nginx.into_iter().chain(own) {
        let found = value(text, &format!("{prefix}{name}"), labels);
        assert_eq!(found, Some(expected), "{name} {labels:?}\n{text}");
    }
    let name = "nginx_ingress_controller_ssl_expire_time_seconds";
    let expires = value(text, name, &[r#"secret_name="tls""#]);
    assert!(expires.is_some_and(|at| at > 2e9), "{text}");
    assert!(!text.contains("elsewhere"), "{text}");
}

#[test]
fn the_status_page_shows_what_is_served() {
    with_proxy("page", |_, admin, _| {
        let status = eventually(PATIENCE, || {
            let answer = get(admin, "admin", "/status.json", "");
            let status: Value = serde_json::from_str(&answer.body).map_err(|e| e.to_string())?;
            // Troubles are told once a second.
            match status["troubles"].as_array() {
                Some(troubles) if !troubles.is_empty() => Ok(status),
                _ => Err(answer.body),
            }
        });
        let certificates = status["certificates"].as_array().expect("a list");
        let states: Vec<_> = certificates
            .iter()
            .map(|row| (&row["host"], &row["state"]))
            .collect();
        let expected = [
            ("limited.test", "broken"),
            ("_", "good"),
            ("shop.test", "good"),
        ];
        let expected = expected.map(|(host, state)| (json!(host), json!(state)));
        assert_eq!(
            states,
            expected.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>()
        );
        let hosts = status["hosts"].as_array().expect("a list");
        let shop = hosts
            .iter()
            .find(|host| host["name"] == "shop.test")
            .expect("it is there");
        let paths = shop["paths"].as_array().expect("a list");
        let paths: Vec<_> = paths
            .iter()
            .map(|path| (&path["path"], &path["endpoints"]))
            .collect();
        let expected = [("/half", 2), ("/api", 0), ("/", 1)];
        let expected = expected.map(|(path, endpoints)| (json!(path), json!(endpoints)));
        assert_eq!(
            paths,
            expected.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>()
        );
        page(&get(admin, "admin", "/", ""));
        assert_eq!(get(admin, "admin", "/favicon.ico", "").status, 404);
    });
}

fn page(answer: &Answer) {
    assert_eq!(answer.status, 200);
    let policy: Vec<_> = answer.header("content-security-policy").collect();
    assert!(
        policy[0].starts_with("default-src 'none'; style-src 'sha256-"),
        "{policy:?}"
    );
    let kind: Vec<_> = answer.header("content-type").collect();
    assert_eq!(kind, ["text/html; charset=utf-8"]);
    let html = &answer.body;
    for part in [
        "shop.test",
        "limited.test",
        "handshakes are refused",
        "no-such-thing",
        "serves",
    ] {
        assert!(html.contains(part), "{part}\n{html}");
    }
    assert!(!html.contains("<script"), "{html}");
    // Every tag that is begun is ended.
    let tags = Regex::new("<(/?)([a-z0-9]+)[^>]*>").expect("it is an expression");
    let mut open = Vec::new();
    for tag in tags.captures_iter(html) {
        let name = &tag[2];
        match (&tag[1], name) {
            (_, "meta" | "link" | "br") => {}
            ("", name) => open.push(name.to_owned()),
            (_, name) => assert_eq!(open.pop().as_deref(), Some(name), "{html}"),
        }
    }
    assert_eq!(open, Vec::<String>::new());
}

/// What chromium, without a window, writes of the page.
fn browse(to: SocketAddr, arguments: &[&str]) -> String {
    let dir = std::env::var_os("CHROMIUM_DIR").expect(
        "`cargo xtask test netns` fetches chromium, and sets CHROMIUM_DIR; by hand, set it to its directory",
    );
    let profile = TempDir::new().expect("a directory can be made");
    let quiet = [
        "--headless",
        // It runs as root here, where its sandbox does not.
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--enable-logging=stderr",
    ];
    let output = Command::new("timeout")
        .arg("60")
        .arg(PathBuf::from(dir).join("chromium"))
        .args(quiet)
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(arguments)
        .arg(format!("http://{to}/"))
        .output()
        .expect("it can be started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}: {said}", output.status);
    // Violations of the page's policy, and errors in it.
    assert!(!said.contains("CONSOLE"), "{said}");
    out
}

#[test]
fn a_browser_shows_the_status_page() {
    with_proxy("browser", |_, admin, _| {
        // Troubles are told once a second.
        eventually(PATIENCE, || {
            let body = get(admin, "admin", "/", "").body;
            body.contains("no-such-thing").then_some(()).ok_or(body)
        });
        let dom = browse(admin, &["--dump-dom"]);
        for part in [">shop.test<", "no-such-thing"] {
            assert!(dom.contains(part), "{part}\n{dom}");
        }
        assert!(!dom.contains("<script"), "{dom}");
        let dir = TempDir::new().expect("a directory can be made");
        for width in [1280u32, 400] {
            let file = dir.path().join(format!("{width}.png"));
            let shot = format!("--screenshot={}", file.display());
            let size = format!("--window-size={width},800");
            browse(admin, &[&shot, &size, "--hide-scrollbars"]);
            let png = std::fs::read(&file).expect("there is a picture");
            // The width is the first field of the first chunk (PNG, section 11.2.1).
            assert_eq!(&png[12..16], b"IHDR");
            assert_eq!(png[16..20], width.to_be_bytes());
            // An empty page has a few hundred.
            assert!(png.len() > 10_000, "{} bytes", png.len());
        }
    });
}
