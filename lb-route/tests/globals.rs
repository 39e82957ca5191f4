//! The ConfigMap: every key that is served, its default and its bad value. Expected values are
//! those of ingress-nginx v1.15.1 (internal/ingress/controller/config/config.go and
//! docs/user-guide/nginx-configuration/configmap.md).

use std::{collections::BTreeMap, fmt::Debug};

use lb_route::{
    globals::Globals,
    input::Name,
    trouble::{Severity, Trouble, reason},
};

fn read(data: &[(&str, &str)]) -> (Globals, Vec<Trouble>) {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Globals::read(&data.iter().map(own).collect())
}

fn d(what: impl Debug) -> String {
    format!("{what:?}")
}

/// A key, what is looked at, its default, a value and what it makes, and a bad value.
type Case = (
    &'static str,
    fn(&Globals) -> String,
    &'static str,
    (&'static str, &'static str),
    &'static str,
);

fn check(cases: &[Case]) {
    let (default, troubles) = read(&[]);
    assert_eq!(troubles, []);
    for (key, look, by_default, (value, expected), bad) in cases {
        assert_eq!(&look(&default), by_default, "{key}");
        let (globals, troubles) = read(&[(key, value)]);
        assert_eq!(
            (&*look(&globals), troubles),
            (*expected, vec![]),
            "{key}: {value}"
        );
        let (globals, troubles) = read(&[(key, "")]);
        assert_eq!(
            (&*look(&globals), troubles),
            (*by_default, vec![]),
            "{key} is empty"
        );
        if bad.is_empty() {
            continue;
        }
        let (globals, troubles) = read(&[(key, bad)]);
        assert_eq!(&look(&globals), by_default, "{key}: {bad}");
        assert_eq!(troubles.len(), 1, "{key}: {bad}");
        let told = (troubles[0].reason, troubles[0].severity);
        assert_eq!(told, (reason::CONFIG_INVALID, Severity::Warning), "{key}");
        assert!(troubles[0].message.contains(key), "{troubles:?}");
    }
}

#[rustfmt::skip]
const DEFAULTS_OF_INGRESSES: &[Case] = &[
    ("ssl-redirect", |g| d(g.defaults.redirect.ssl), "true", ("false", "false"), "no"),
    ("force-ssl-redirect", |g| d(g.defaults.redirect.force_ssl), "false", ("true", "true"), "x"),
    ("http-redirect-code", |g| d(g.defaults.redirect.ssl_code.as_u16()), "308", ("301", "301"),
        "303"),
    ("preserve-trailing-slash", |g| d(g.defaults.redirect.preserve_trailing_slash), "false",
        ("true", "true"), "x"),
    ("relative-redirects", |g| d(g.defaults.redirect.relative), "false", ("true", "true"), "x"),
    ("use-port-in-redirects", |g| d(g.defaults.redirect.use_port), "false", ("true", "true"), "x"),
    ("load-balance", |g| d(&g.defaults.upstream.balance), "RoundRobin", ("ewma", "Ewma"),
        "least_conn"),
    ("service-upstream", |g| d(g.defaults.upstream.service_upstream), "false", ("true", "true"),
        "x"),
    ("proxy-http-version", |g| d(g.defaults.upstream.http10), "false", ("1.0", "true"), "2"),
    ("proxy-connect-timeout", |g| d(g.defaults.upstream.connect_timeout), "5s", ("10", "10s"),
        "10s"),
    ("proxy-read-timeout", |g| d(g.defaults.upstream.read_timeout), "60s", ("10", "10s"), "-1"),
    ("proxy-send-timeout", |g| d(g.defaults.upstream.send_timeout), "60s", ("10", "10s"), "x"),
    ("proxy-next-upstream", |g| next(g), "error timeout {} false 3 None",
        ("http_503", " {503} false 3 None"), "http_200"),
    ("proxy-next-upstream-tries", |g| next(g), "error timeout {} false 3 None",
        ("1", "error timeout {} false 1 None"), "x"),
    ("proxy-next-upstream-timeout", |g| next(g), "error timeout {} false 3 None",
        ("9", "error timeout {} false 3 Some(9s)"), "9s"),
    ("retry-non-idempotent", |g| next(g), "error timeout {} false 3 None",
        ("true", "error timeout {} true 3 None"), "x"),
    ("proxy-body-size", |g| d(g.defaults.body_size), "Some(1048576)", ("0", "None"), "1mb"),
    ("proxy-request-buffering", |g| d(g.defaults.upstream.request_buffering), "true",
        ("off", "false"), "x"),
    ("proxy-cookie-domain", |g| d(&g.defaults.response.cookie_domain), "None",
        ("a b", "Some((\"a\", \"b\"))"), "a"),
    ("proxy-cookie-path", |g| d(&g.defaults.response.cookie_path), "None",
        ("/a /b", "Some((\"/a\", \"/b\"))"), "a b c"),
    ("custom-http-errors", |g| d(&g.defaults.errors.intercept), "{}", ("404, 503", "{404, 503}"),
        "299"),
    ("disable-proxy-intercept-errors", |g| d(g.defaults.errors.passed_on), "false",
        ("true", "true"), "x"),
    ("limit-rate", |g| d(g.defaults.limits.rate), "None", ("10", "Some(10)"), "10k"),
    ("limit-rate-after", |g| d(g.defaults.limits.rate_after), "0", ("10", "10"), "10k"),
    ("limit-req-status-code", |g| d(g.rate_status.as_u16()), "503", ("429", "429"), "200"),
    ("global-rate-limit-status-code", |g| d(g.overall_status.as_u16()), "429", ("503", "503"), "200"),
    ("limit-conn-status-code", |g| d(g.connections_status.as_u16()), "503", ("429", "429"), "600"),
];

#[test]
fn defaults_of_ingresses() {
    check(DEFAULTS_OF_INGRESSES);
    let both = [
        ("proxy-redirect-from", "http://a/"),
        ("proxy-redirect-to", "/b"),
    ];
    let (globals, troubles) = read(&both);
    assert_eq!(
        globals.defaults.response.redirect,
        Some(("http://a/".into(), "/b".into()))
    );
    assert_eq!(troubles, []);
    assert_eq!(read(&both[..1]).0.defaults.response.redirect, None);
    assert_eq!(
        read(&[("proxy-redirect-from", "{}")]).1[0].reason,
        reason::CONFIG_INVALID
    );
    assert_eq!(Globals::default().defaults.limits.burst_multiplier, 5);
}

fn next(globals: &Globals) -> String {
    let n = &globals.defaults.upstream.next;
    let words = [(n.error, "error"), (n.timeout, "timeout")];
    let words = words
        .into_iter()
        .filter(|(is_on, _)| *is_on)
        .map(|(_, word)| word);
    let words: Vec<&str> = words.collect();
    format!(
        "{} {:?} {} {} {:?}",
        words.join(" "),
        n.statuses,
        n.non_idempotent,
        n.tries,
        n.within
    )
}

#[rustfmt::skip]
const CLIENTS_AND_TLS: &[Case] = &[
    ("keep-alive", |g| d(g.client.keep_alive), "75s", ("0", "0ns"), "75s"),
    ("keep-alive-requests", |g| d(g.client.keep_alive_requests), "1000", ("5", "5"), "0"),
    ("client-header-timeout", |g| d(g.client.header_timeout), "60s", ("5", "5s"), "x"),
    ("client-body-timeout", |g| d(g.client.body_timeout), "60s", ("5", "5s"), "x"),
    ("large-client-header-buffers", |g| d(g.client.header_buffers), "(4, 8192)",
        ("8 16k", "(8, 16384)"), "16k"),
    ("use-http2", |g| d(g.client.http2), "true", ("false", "false"), "x"),
    ("http2-max-concurrent-streams", |g| d(g.client.http2_streams), "128", ("5", "5"), "0"),
    ("enable-underscores-in-headers", |g| d(g.client.underscores), "false", ("true", "true"), "x"),
    ("ignore-invalid-headers", |g| d(g.client.ignore_invalid), "true", ("false", "false"), "x"),
    ("use-proxy-protocol", |g| d(g.client.proxy_protocol), "false", ("true", "true"), "x"),
    ("proxy-protocol-header-timeout", |g| d(g.client.proxy_protocol_timeout), "5s",
        ("1m1.5s", "61.5s"), "5"),
    ("ssl-protocols", |g| d((g.tls.v12, g.tls.v13)), "(true, true)", ("TLSv1.3", "(false, true)"),
        "TLSv1.1"),
    ("ssl-reject-handshake", |g| d(g.tls.reject), "false", ("true", "true"), "x"),
    ("ssl-session-cache", |g| d(g.tls.session_cache), "true", ("false", "false"), "x"),
    ("ssl-session-tickets", |g| d(g.tls.tickets), "false", ("true", "true"), "x"),
    ("ssl-session-timeout", |g| d(g.tls.session_timeout), "600s", ("1h 30m", "5400s"), "10x"),
    ("no-tls-redirect-locations", |g| d(&g.tls.no_redirect), "[\"/.well-known/acme-challenge\"]",
        ("/a, /b", "[\"/a\", \"/b\"]"), ""),
    ("hsts", |g| d(g.tls.hsts.header()), "Some(\"max-age=31536000; includeSubDomains\")",
        ("false", "None"), "x"),
    ("hsts-max-age", |g| d(g.tls.hsts.max_age), "31536000", ("10", "10"), "1y"),
    ("hsts-include-subdomains", |g| d(g.tls.hsts.header()),
        "Some(\"max-age=31536000; includeSubDomains\")", ("false", "Some(\"max-age=31536000\")"),
        "x"),
    ("hsts-preload", |g| d(g.tls.hsts.header()), "Some(\"max-age=31536000; includeSubDomains\")",
        ("true", "Some(\"max-age=31536000; includeSubDomains; preload\")"), "x"),
];

#[test]
fn clients_and_tls() {
    check(CLIENTS_AND_TLS);
    // Older versions beside newer ones are told of, and are not offered.
    let (globals, troubles) = read(&[("ssl-protocols", "TLSv1 TLSv1.2")]);
    assert_eq!(
        (globals.tls.v12, globals.tls.v13, troubles.len()),
        (true, false, 1)
    );
}

#[rustfmt::skip]
const FORWARDING_AND_HEADERS: &[Case] = &[
    ("use-forwarded-headers", |g| d(g.forwarded.trust), "false", ("true", "true"), "x"),
    ("enable-real-ip", |g| d(g.forwarded.real_ip), "false", ("true", "true"), "x"),
    ("forwarded-for-header", |g| d(&g.forwarded.header), "\"x-forwarded-for\"",
        ("CF-Connecting-IP", "\"cf-connecting-ip\""), "a b"),
    ("compute-full-forwarded-for", |g| d(g.forwarded.full), "false", ("true", "true"), "x"),
    ("proxy-real-ip-cidr", |g| d(&g.forwarded.proxies), "[0.0.0.0/0]",
        ("10.0.0.0/8,::1", "[10.0.0.0/8, ::1/128]"), "x"),
    ("proxy-add-original-uri-header", |g| d(g.forwarded.original_uri), "false", ("true", "true"),
        "x"),
    ("generate-request-id", |g| d(g.forwarded.request_id), "true", ("false", "false"), "x"),
    ("proxy-set-headers", |g| name(&g.headers.requests), "-", ("a/b", "a/b"), "b"),
    ("add-headers", |g| name(&g.headers.answers), "-", ("a/b", "a/b"), "a/b/c"),
    ("hide-headers", |g| d(&g.headers.hidden), "[]", ("Server, X-A", "[\"server\", \"x-a\"]"),
        "a:b"),
    ("global-allowed-response-headers", |g| d(&g.headers.allowed), "[]", ("X-A", "[\"x-a\"]"),
        "a b"),
    ("server-tokens", |g| d(g.headers.server), "false", ("true", "true"), "x"),
    ("allow-backend-server-header", |g| d(g.headers.backend_server), "false", ("true", "true"),
        "x"),
    ("upstream-keepalive-connections", |g| d(g.pool.connections), "320", ("5", "5"), "x"),
    ("upstream-keepalive-requests", |g| d(g.pool.requests), "10000", ("5", "5"), "x"),
    ("upstream-keepalive-timeout", |g| d(g.pool.timeout), "60s", ("5", "5s"), "5s"),
    ("upstream-keepalive-time", |g| d(g.pool.time), "3600s", ("2m", "120s"), "x"),
    ("worker-shutdown-timeout", |g| d(g.drain), "240s", ("10s", "10s"), "10q"),
];

#[test]
fn forwarding_and_headers() {
    check(FORWARDING_AND_HEADERS);
}

fn name(name: &Option<Name>) -> String {
    name.as_ref().map_or("-".to_owned(), ToString::to_string)
}

#[rustfmt::skip]
const COMPRESSION: &[Case] = &[
    ("use-gzip", |g| d(g.compression.gzip.on), "false", ("true", "true"), "on"),
    ("gzip-level", |g| d(g.compression.gzip.level), "1", ("9", "9"), "0"),
    ("gzip-min-length", |g| d(g.compression.gzip.min_length), "256", ("1k", "1024"), "x"),
    ("gzip-types", |g| d(g.compression.gzip.types.len()), "17", ("Text/CSS *", "2"), "text"),
    ("gzip-disable",
        |g| d(g.compression.gzip_disabled.as_ref().map(|r| r.as_str().to_owned())), "None",
        ("msie6", "Some(\"(?i)MSIE [4-6]\\\\.\")"), "("),
    ("enable-brotli", |g| d(g.compression.brotli.on), "false", ("true", "true"), "on"),
    ("brotli-level", |g| d(g.compression.brotli.level), "4", ("0", "0"), "12"),
    ("brotli-min-length", |g| d(g.compression.brotli.min_length), "20", ("1k", "1024"), "x"),
    ("brotli-types", |g| d(g.compression.brotli.types.len()), "18", ("Text/CSS *", "2"), "text"),
];

#[test]
fn compression() {
    check(COMPRESSION);
}

#[rustfmt::skip]
const ACCESS: &[Case] = &[
    ("denylist-source-range", |g| d(&g.defaults.access.deny), "[]", ("10.0.0.1", "[10.0.0.1/32]"),
        "x"),
    ("block-cidrs", |g| d(&g.block.clients), "[]", ("10.0.0.0/8", "[10.0.0.0/8]"), "x"),
    ("block-user-agents", |g| d(g.block.agents.len()), "0", ("~curl,Bad Bot", "2"), "~("),
    ("block-referers", |g| d(g.block.referers.len()), "0", ("~*evil", "1"), "~*["),
    ("no-auth-locations", |g| d(&g.no_auth), "[\"/.well-known/acme-challenge\"]",
        ("/a,/b", "[\"/a\", \"/b\"]"), ""),
    ("allow-cross-namespace-resources", |g| d(g.cross_namespace), "false", ("true", "true"), "x"),
    ("annotation-value-word-blocklist", |g| d(&g.blocked_words), "[]",
        ("{, root", "[\"{\", \"root\"]"), ""),
    ("annotations-risk-level", |g| d(g.risk), "High", ("Critical", "Critical"), "Huge"),
    ("strict-validate-path-type", |g| d(g.strict_paths), "true", ("false", "false"), "x"),
];

#[test]
fn access() {
    check(ACCESS);
    let (globals, _) = read(&[("block-user-agents", "~*^bad,Good Bot")]);
    let agents = globals.block.agents;
    let is_blocked = |agent: &str| agents.iter().any(|one| one.is_match(agent.as_bytes()));
    assert!(is_blocked("BADBOT") && is_blocked("good bot"));
    assert!(!is_blocked("a bad one") && !is_blocked("Good Bots"));

    // Ranges that can be read count; without any nobody passes.
    let (globals, troubles) = read(&[("whitelist-source-range", "10.0.0.0/8, x")]);
    assert_eq!(d(&globals.defaults.access.allow), "[10.0.0.0/8]");
    assert_eq!((globals.allow_unreadable, troubles.len()), (None, 1));
    let (globals, troubles) = read(&[("whitelist-source-range", "x")]);
    assert!(globals.allow_unreadable.is_some() && troubles.len() == 1);
}

const LINE: &str = "$remote_addr - $remote_user [$time_local] \"$request\" $status \
    $body_bytes_sent \"$http_referer\" \"$http_user_agent\" $request_length \
    $request_time [$proxy_upstream_name] [$proxy_alternative_upstream_name] \
    $upstream_addr $upstream_response_length $upstream_response_time \
    $upstream_status $req_id";

#[rustfmt::skip]
const LOGS: &[Case] = &[
    ("disable-access-log", |g| d((g.log.on, g.defaults.access_log)), "(true, true)",
        ("true", "(false, false)"), "x"),
    ("log-format-upstream", |g| g.log.format.text().to_owned(), LINE,
        ("$host $status", "$host $status"), "$host $nothing"),
    ("log-format-escape-json", |g| d(g.log.escape), "Default", ("true", "Json"), "x"),
    ("log-format-escape-none", |g| d(g.log.escape), "Default", ("true", "None"), "x"),
    ("skip-access-log-urls", |g| d(&g.log.skip), "[]", ("~^/health", "[Regex(\"^/health\")]"),
        "~("),
    ("enable-access-log-for-default-backend", |g| d(g.log.default_backend), "false",
        ("true", "true"), "x"),
];

#[test]
fn logs() {
    check(LOGS);
    let both = [
        ("log-format-escape-json", "true"),
        ("log-format-escape-none", "true"),
    ];
    assert_eq!(d(read(&both).0.log.escape), "None");
    // What the ConfigMap has off, no Ingress has on; see nginx.tmpl.
    let (off, _) = read(&[("disable-access-log", "true")]);
    let on = BTreeMap::from([("x/enable-access-log".to_owned(), "true".to_owned())]);
    let read = lb_route::annotations::read(&Name::new("a", "b"), &on, "x", &off);
    assert!(!read.settings.access_log);
}

fn span_name(g: &Globals) -> String {
    let name = g.defaults.tracing.name.as_ref();
    d(name.map(|name| name.text().to_owned()))
}

#[rustfmt::skip]
const TRACES: &[Case] = &[
    ("otlp-collector-host", |g| g.collector.host.clone(), "", ("otel.local", "otel.local"), "a b"),
    ("otlp-collector-port", |g| d(g.collector.port), "4317", ("1", "1"), "70000"),
    ("otel-service-name", |g| g.collector.service.clone(), "nginx", ("x", "x"), ""),
    ("otel-sampler", |g| d(g.defaults.tracing.sampler), "AlwaysOn",
        ("TraceIdRatioBased", "Ratio(0.01)"), "x"),
    ("otel-sampler-ratio", |g| d(g.defaults.tracing.sampler), "AlwaysOn", ("0.5", "AlwaysOn"), "2"),
    ("otel-sampler-parent-based", |g| d(g.defaults.tracing.parent_based), "true",
        ("false", "false"), "x"),
    ("opentelemetry-trust-incoming-span", |g| d(g.defaults.tracing.trust), "true",
        ("false", "false"), "x"),
    ("opentelemetry-operation-name", span_name, "None",
        ("HTTP $request_method $uri", "Some(\"HTTP $request_method $uri\")"), "$nothing"),
    ("otel-max-queuesize", |g| d(g.collector.queue), "2048", ("10", "10"), "0"),
    ("otel-schedule-delay-millis", |g| d(g.collector.delay), "5s", ("10", "10ms"), "0"),
    ("otel-max-export-batch-size", |g| d(g.collector.batch), "512", ("10", "10"), "-1"),
];

#[test]
fn traces() {
    check(TRACES);
    let ratio = [
        ("otel-sampler", "TraceIdRatioBased"),
        ("otel-sampler-ratio", "0.5"),
    ];
    assert_eq!(d(read(&ratio).0.defaults.tracing.sampler), "Ratio(0.5)");
    let is_on = |data: &[(&str, &str)]| {
        let (globals, troubles) = read(data);
        let told = troubles.iter().map(|trouble| trouble.reason);
        (globals.defaults.tracing.on, told.collect::<Vec<_>>())
    };
    let on = ("enable-opentelemetry", "true");
    assert_eq!(is_on(&[]), (false, vec![]));
    assert_eq!(is_on(&[on, ("otlp-collector-host", "a")]), (true, vec![]));
    assert_eq!(is_on(&[on]), (true, vec![reason::CONFIG_WITHOUT_EFFECT]));
    assert_eq!(
        is_on(&[("enable-opentelemetry", "x")]),
        (false, vec![reason::CONFIG_INVALID])
    );
}
