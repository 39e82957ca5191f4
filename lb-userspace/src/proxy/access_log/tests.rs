use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{HeaderValue, StatusCode};
use lb_proxy::Record;
use lb_route::{
    Table,
    request::Tls,
    variables::{Escape, Template},
};
use proptest::prelude::*;

use super::*;
use crate::proxy::testing::{attempt, ingress, record, set, shop};

const AGENT: (&str, &[u8]) = ("user-agent", b"curl/8.5.0");

fn table() -> Table {
    shop().compile()
}

/// A line of the default format.
fn default_line(record: &Record) -> String {
    filled(record, &Globals::default().log.format, Escape::Default)
}

fn filled(record: &Record, format: &Template, escape: Escape) -> String {
    let asked = record.asked(&Globals::default());
    format.log_line(&Line::new(record, &asked, "node-1"), escape)
}

fn value(record: &Record, name: &str) -> String {
    filled(record, &Template::parse(name).unwrap(), Escape::Default)
}

/// The lines have the form of the page "Log format" of ingress-nginx, with its default
/// `log-format-upstream`.
#[test]
fn lines_of_the_default_format() {
    let table = table();
    let mut one = record(&table, "/api/x?y=1", &[AGENT, ("referer", b"http://a/")]);
    one.attempts.push(attempt(2, 200, 8));
    assert_eq!(
        default_line(&one),
        "198.51.100.7 - - [04/Mar/2021:05:06:09 +0000] \"GET /api/x?y=1 HTTP/1.1\" 200 45 \
         \"http://a/\" \"curl/8.5.0\" 321 1.234 [default-api-80] [] 192.0.2.2:8080 45 0.008 200 \
         0123456789abcdef0123456789abcdef"
    );
    // printf Aladdin:open-sesame | base64
    let basic: (&str, &[u8]) = ("authorization", b"Basic QWxhZGRpbjpvcGVuLXNlc2FtZQ==");
    let mut canary = record(&table, "/", &[("x-canary", b"always"), basic]);
    canary.attempts = vec![attempt(9, 502, 1), attempt(3, 201, 1001)];
    canary.status = StatusCode::CREATED;
    assert_eq!(
        default_line(&canary),
        "198.51.100.7 - Aladdin [04/Mar/2021:05:06:09 +0000] \"GET / HTTP/1.1\" 201 45 \"-\" \"-\" \
         321 1.234 [default-web-80] [default-beta-80] 192.0.2.9:8080, 192.0.2.3:8080 0, 45 \
         0.001, 1.001 502, 201 0123456789abcdef0123456789abcdef"
    );
    let left = Record {
        status: StatusCode::from_u16(499).unwrap(),
        ..record(&table, "/", &[("x-request-id", b"mine")])
    };
    assert_eq!(
        default_line(&left),
        "198.51.100.7 - - [04/Mar/2021:05:06:09 +0000] \"GET / HTTP/1.1\" 499 45 \"-\" \"-\" \
         321 1.234 [default-web-80] [] - - - - mine"
    );
    let unknown = record(&table, "/", &[("host", b"other.example")]);
    assert_eq!(
        default_line(&unknown),
        "198.51.100.7 - - [04/Mar/2021:05:06:09 +0000] \"GET / HTTP/1.1\" 404 45 \"-\" \"-\" \
         321 1.234 [upstream-default-backend] [] - - - - 0123456789abcdef0123456789abcdef"
    );
}

#[test]
fn every_variable_of_a_request_that_is_over() {
    let mut forwarded = record(&table(), "/api", &[]);
    forwarded.attempts = vec![attempt(9, 504, 5000), attempt(2, 404, 40)];
    forwarded.client.tls = Some(Arc::new(Tls {
        protocol: "TLSv1.3",
        ..Tls::default()
    }));
    for (name, expected) in [
        ("$status", "200"),
        ("$body_bytes_sent", "45"),
        ("$bytes_sent", "145"),
        ("$request_length", "321"),
        ("$request_time", "1.234"),
        ("$connection", "12"),
        ("$connection_requests", "3"),
        ("$hostname", "node-1"),
        // 1614834367.890 + 1.234567, cut as nginx does.
        ("$msec", "1614834369.124"),
        ("$time_iso8601", "2021-03-04T05:06:09+00:00"),
        ("$time_local", "04/Mar/2021:05:06:09 +0000"),
        ("$upstream_addr", "192.0.2.9:8080, 192.0.2.2:8080"),
        ("$upstream_status", "504, 404"),
        ("$upstream_connect_time", "-, 0.010"),
        ("$upstream_header_time", "-, 0.020"),
        ("$upstream_response_time", "5.000, 0.040"),
        ("$upstream_response_length", "0, 45"),
        ("$namespace/$ingress_name", "default/shop"),
        ("$service_name:$service_port", "api:80"),
        ("$location_path", "/api"),
        ("$server_name", "shop.example"),
        ("$scheme$ssl_protocol", "httpsTLSv1.3"),
        ("$remote_addr:$remote_port", "198.51.100.7:40000"),
        ("$http_host", "shop.example"),
    ] {
        assert_eq!(value(&forwarded, name), expected, "{name}");
    }
    let of_nobody = record(&table(), "/", &[("host", b"other.example")]);
    for (name, expected) in [
        ("$namespace$ingress_name$service_name$location_path", ""),
        ("$server_name", "_"),
        ("$proxy_upstream_name", "upstream-default-backend"),
        ("$upstream_connect_time", "-"),
    ] {
        assert_eq!(value(&of_nobody, name), expected, "{name}");
    }
    let malformed = Record {
        status: StatusCode::BAD_REQUEST,
        ..of_nobody
    };
    assert_eq!(value(&malformed, "$proxy_upstream_name"), "-");
}

#[test]
fn what_is_logged() {
    let logged = |settings: &[(&str, &str)], target: &str, host: &'static [u8]| {
        let mut compiler = shop();
        let quiet = [("enable-access-log", "false")];
        let loud = [("enable-access-log", "true")];
        for (name, annotations) in [("quiet", quiet), ("loud", loud)] {
            let path = format!("/{name}");
            let one = ingress(name, "shop.example", &[(&path, "api")], &annotations);
            compiler.put_ingress(Arc::new(one));
        }
        set(&mut compiler, settings);
        let table = compiler.compile();
        is_logged(&record(&table, target, &[("host", host)]), table.globals())
    };
    const OURS: &[u8] = b"shop.example";
    const OTHER: &[u8] = b"other.example";
    let off = ("disable-access-log", "true");
    let of_default = ("enable-access-log-for-default-backend", "true");
    let skip = (
        "skip-access-log-urls",
        "/api/health,~^/web/[0-9]+$,~*\\.PNG",
    );
    assert!(logged(&[], "/", OURS));
    assert!(!logged(&[off], "/", OURS));
    assert!(!logged(&[], "/quiet", OURS));
    assert!(logged(&[], "/loud", OURS));
    assert!(!logged(&[off], "/loud", OURS));
    assert!(!logged(&[], "/", OTHER));
    assert!(logged(&[of_default], "/", OTHER));
    assert!(!logged(&[of_default, off], "/", OTHER));
    for (target, expected) in [
        ("/api/health", false),
        ("/API/health", false),
        ("/api/health?x", true),
        ("/api/healthy", true),
        ("/web/12", false),
        ("/web/12/", true),
        ("/a.png?b", false),
    ] {
        assert_eq!(logged(&[skip], target, OURS), expected, "{target}");
    }
}

#[test]
fn a_format_of_json() {
    let format = r#"{"time":"$time_iso8601","agent":"$http_user_agent","user":"$remote_user","status":$status,"upstream":"$upstream_addr"}"#;
    let agent: (&str, &[u8]) = ("user-agent", b"a\"b\\c\t\xe9");
    // printf 'a\nb:c' | base64
    let user: (&str, &[u8]) = ("authorization", b"Basic YQpiOmM=");
    let line = filled(
        &record(&table(), "/", &[agent, user]),
        &Template::parse(format).unwrap(),
        Escape::Json,
    );
    let read: serde_json::Value = serde_json::from_str(&line).unwrap();
    let expected = serde_json::json!({
        "time": "2021-03-04T05:06:09+00:00", "agent": "a\"b\\c\t\u{fffd}", "user": "a\nb",
        "status": 200, "upstream": "",
    });
    assert_eq!(read, expected);
}

/// Standard output, for tests.
#[derive(Clone, Default)]
struct Out(Arc<Mutex<Vec<u8>>>);

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_settings_of_the_moment_count() {
    let out = Out::default();
    let log = AccessLog::new(Writer::start(out.clone()).unwrap(), "node-1".to_owned());
    let mut compiler = shop();
    let one = record(&compiler.compile(), "/api", &[]);
    set(&mut compiler, &[("log-format-upstream", "$hostname $uri")]);
    log.set(compiler.compile().globals().clone());
    log.done(&one);
    set(&mut compiler, &[("log-format-upstream", "$request_uri")]);
    log.set(compiler.compile().globals().clone());
    log.done(&one);
    log.end(Duration::from_secs(20));
    let written = out.0.lock().unwrap().clone();
    assert_eq!(String::from_utf8(written).unwrap(), "node-1 /api\n/api\n");
    assert_eq!(log.lost(), 0);
}

proptest! {
    /// Whatever a client sends, its request is one line, and stays within the quotes around it.
    #[test]
    fn no_request_makes_lines_of_its_own(
        agent in proptest::collection::vec(any::<u8>(), 0..40),
        user in proptest::collection::vec(any::<u8>(), 0..20),
        path in "(/|%0[aAdD]|%22|%5c|[a-z\"']|é){0,12}",
    ) {
        use base64::Engine as _;
        let user = base64::engine::general_purpose::STANDARD.encode(&user);
        let user = format!("Basic {user}");
        let mut one = record(&table(), "/", &[("authorization", user.as_bytes())]);
        if let Ok(value) = HeaderValue::from_bytes(&agent) {
            one.headers.insert("user-agent", value);
        }
        if let Ok(uri) = format!("/{path}").parse() {
            one.uri = uri;
        }
        let format = r#"{"a":"$http_user_agent","b":"$uri","c":"$remote_user","d":"$request"}"#;
        let format = Template::parse(format).unwrap();
        for escape in [Escape::Default, Escape::Json, Escape::None] {
            let line = filled(&one, &format, escape);
            prop_assert!(!line.contains(['\n', '\r', '\u{1b}', '\0']), "{line:?}");
        }
        let line = filled(&one, &format, Escape::Json);
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(read.as_object().map(serde_json::Map::len), Some(4));
        let line = filled(&one, &format, Escape::Default);
        prop_assert_eq!(line.matches('"').count(), 16);
    }
}
