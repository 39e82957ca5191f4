//! Requests over real connections, and what comes to a collector of them.

mod collector;
mod world;

use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};

use super::queue::Fate;
use collector::{Answers, Collector, attribute};
use world::{World, nobody};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0bd902c7-01";
const ON: (&str, &str) = ("enable-opentelemetry", "true");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn has(span: &Span, attributes: &[(&str, &str)]) {
    for (key, expected) in attributes {
        let found = attribute(&span.attributes, key);
        assert_eq!(&found, expected, "{key} of {span:#?}");
    }
}

fn is_error(span: &Span) -> bool {
    let status = span.status.as_ref();
    status.is_some_and(|status| status.code() == StatusCode::Error)
}

/// Trace, span, and whether it is kept, of `traceparent`.
fn parts(traceparent: &str) -> (&str, &str, bool) {
    let parts: Vec<_> = traceparent.split('-').collect();
    assert_eq!((parts.len(), parts[0]), (4, "00"), "{traceparent}");
    (parts[1], parts[2], parts[3] == "01")
}

/// Of a request for `/api/x`.
const OF_REQUEST: &[(&str, &str)] = &[
    ("http.request.method", "GET"),
    ("url.scheme", "http"),
    ("url.path", "/api/x"),
    ("url.query", "a=1&sig=REDACTED"),
    ("server.address", "shop.example"),
    ("client.address", "127.0.0.1"),
    ("network.peer.address", "127.0.0.1"),
    ("network.protocol.version", "1.1"),
    ("user_agent.original", "probe/1"),
    ("http.response.status_code", "200"),
    ("http.route", "/api"),
    ("bascule.namespace", "default"),
    ("bascule.ingress", "shop"),
    ("bascule.service", "web"),
    ("error.type", ""),
];

/// Of the attempt at an endpoint, beside its address.
const OF_ATTEMPT: &[(&str, &str)] = &[
    ("http.request.method", "GET"),
    ("server.address", "127.0.0.1"),
    ("http.response.status_code", "200"),
    ("http.request.resend_count", ""),
    ("error.type", ""),
];

/// Of the proxy.
const OF_RESOURCE: &[(&str, &str)] = &[
    ("service.name", "edge"),
    ("service.instance.id", "proxy-0"),
    ("k8s.pod.name", "proxy-0"),
    ("k8s.namespace.name", "ingress"),
];

#[tokio::test]
async fn a_request_has_a_span_and_so_has_its_attempt() {
    let collector = Collector::start().await;
    let more = [ON, ("otel-service-name", "edge")];
    let world = World::start(collector.address, &more, &[]).await;
    let agent = "user-agent: probe/1\r\n";
    let answer = world.get("/api/x?a=1&sig=secret", agent).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let spans = collector.spans(2).await;
    let (server, attempt) = (&spans[0], &spans[1]);
    assert_eq!((server.kind(), &*server.name), (SpanKind::Server, "/api"));
    has(server, OF_REQUEST);
    assert!(server.parent_span_id.is_empty() && !is_error(server));
    assert_eq!((attempt.kind(), &*attempt.name), (SpanKind::Client, "GET"));
    has(attempt, OF_ATTEMPT);
    let port = world.backend.address.port().to_string();
    let url = format!("http://127.0.0.1:{port}/api/x?a=1&sig=REDACTED");
    has(attempt, &[("server.port", &port), ("url.full", &url)]);
    assert_eq!(attempt.parent_span_id, server.span_id);
    assert_eq!(attempt.trace_id, server.trace_id);
    assert!(server.start_time_unix_nano <= attempt.start_time_unix_nano);
    assert!(attempt.start_time_unix_nano < attempt.end_time_unix_nano);
    assert!(attempt.end_time_unix_nano <= server.end_time_unix_nano);
    // The backend goes on where the attempt is.
    let heads = world.backend.heads();
    let (trace, span, is_kept) = parts(heads[0]["traceparent"].to_str().unwrap());
    let ids = (hex(&attempt.trace_id), hex(&attempt.span_id));
    assert_eq!((trace, span, is_kept), (&*ids.0, &*ids.1, true));
    let requests = collector.requests();
    let resource = requests[0].resource_spans[0].resource.as_ref().unwrap();
    for (key, expected) in OF_RESOURCE {
        assert_eq!(&attribute(&resource.attributes, key), expected);
    }
    world
        .counted([(Fate::Sent, 2), (Fate::Lost, 0), (Fate::Rejected, 0)])
        .await;
}

#[tokio::test]
async fn a_trusted_client_is_continued() {
    let collector = Collector::start().await;
    let world = World::start(collector.address, &[ON], &[]).await;
    let headers = format!("traceparent: {PARENT}\r\ntracestate: congo=t61\r\n");
    world.get("/", &headers).await;
    let spans = collector.spans(2).await;
    for span in &spans {
        assert_eq!(hex(&span.trace_id), TRACE);
        assert_eq!(span.trace_state, "congo=t61");
    }
    assert_eq!(hex(&spans[0].parent_span_id), "00f067aa0bd902c7");
    // Not kept by the client: nor here, and the backend hears of it.
    let not = headers.replace("-01\r", "-00\r");
    world.get("/", &not).await;
    let heads = world.backend.heads();
    for (head, expected) in heads.iter().zip([true, false]) {
        let (trace, span, is_kept) = parts(head["traceparent"].to_str().unwrap());
        assert_eq!((trace, is_kept), (TRACE, expected));
        assert_ne!(span, "00f067aa0bd902c7");
        assert_eq!(head["tracestate"], "congo=t61");
    }
    // A request that is kept comes after it.
    world.get("/", "").await;
    assert_ne!(hex(&collector.spans(4).await[2].trace_id), TRACE);
}

#[tokio::test]
async fn a_client_who_is_not_trusted_is_not_continued() {
    let collector = Collector::start().await;
    let settings = [ON, ("opentelemetry-trust-incoming-span", "false")];
    let world = World::start(collector.address, &settings, &[]).await;
    let headers = format!("traceparent: {PARENT}\r\ntracestate: congo=t61\r\n");
    world.get("/", &headers).await;
    let spans = collector.spans(2).await;
    assert_ne!(hex(&spans[0].trace_id), TRACE);
    assert!(spans[0].parent_span_id.is_empty());
    let heads = world.backend.heads();
    let (trace, ..) = parts(heads[0]["traceparent"].to_str().unwrap());
    assert_eq!(trace, hex(&spans[0].trace_id));
    assert!(!heads[0].contains_key("tracestate"));
}

#[tokio::test]
async fn what_no_sampler_takes_is_passed_on_and_not_sent() {
    let collector = Collector::start().await;
    let off = ("otel-sampler", "AlwaysOff");
    let world = World::start(collector.address, &[ON, off], &[]).await;
    world.get("/", "").await;
    let heads = world.backend.heads();
    assert!(!parts(heads[0]["traceparent"].to_str().unwrap()).2);
    // The parent goes before the sampler.
    world.get("/", &format!("traceparent: {PARENT}\r\n")).await;
    assert_eq!(hex(&collector.spans(2).await[0].trace_id), TRACE);
}

#[tokio::test]
async fn errors_of_servers_are_errors() {
    let collector = Collector::start().await;
    let world = World::start(collector.address, &[ON], &[]).await;
    for status in ["404", "503"] {
        world.get(&format!("/{status}"), "").await;
    }
    let spans = collector.spans(4).await;
    let (missing, broken) = (&spans[..2], &spans[2..]);
    for span in missing {
        has(span, &[("http.response.status_code", "404")]);
    }
    assert_eq!(
        [is_error(&missing[0]), is_error(&missing[1])],
        [false, true]
    );
    for span in broken {
        has(
            span,
            &[("http.response.status_code", "503"), ("error.type", "503")],
        );
        assert!(is_error(span));
    }
}

#[tokio::test]
async fn an_ingress_switches_them_for_itself() {
    let collector = Collector::start().await;
    let off = ("enable-opentelemetry", "false");
    let world = World::start(collector.address, &[ON], &[off]).await;
    world.get("/", &format!("traceparent: {PARENT}\r\n")).await;
    // What is not traced is not touched.
    assert_eq!(world.backend.heads()[0]["traceparent"], PARENT);
    // No rule has this: the ConfigMap counts.
    world.get_of("elsewhere.example", "/x").await;
    let spans = collector.spans(1).await;
    has(
        &spans[0],
        &[
            ("http.response.status_code", "404"),
            ("bascule.ingress", ""),
        ],
    );

    let name = ("opentelemetry-operation-name", "my-shop");
    let world = World::start(collector.address, &[], &[ON, name]).await;
    world.get("/", "").await;
    world.get_of("elsewhere.example", "/x").await;
    assert_eq!(collector.spans(3).await[1].name, "my-shop");
}

#[tokio::test]
async fn names_have_variables() {
    let collector = Collector::start().await;
    let name = "HTTP $request_method $service_name $uri $status";
    let settings = [ON, ("opentelemetry-operation-name", name)];
    let world = World::start(collector.address, &settings, &[]).await;
    world.get("/api/404", "").await;
    let spans = collector.spans(2).await;
    assert_eq!(spans[0].name, "HTTP GET web /api/404 404");
}

#[tokio::test]
async fn each_attempt_has_a_span() {
    let collector = Collector::start().await;
    let world = World::with_dead_endpoint(collector.address, &[ON]).await;
    // One of two requests begins with the dead one.
    world.get("/", "").await;
    world.get("/", "").await;
    let spans = collector.spans(5).await;
    let of = |kind| spans.iter().filter(move |span| span.kind() == kind);
    let servers: Vec<_> = of(SpanKind::Server).collect();
    let retried = |server: &&&Span| {
        let attempts = of(SpanKind::Client).filter(|span| span.parent_span_id == server.span_id);
        attempts.count() == 2
    };
    let server = servers
        .iter()
        .find(retried)
        .expect("one of them was retried");
    let attempts: Vec<_> = of(SpanKind::Client)
        .filter(|span| span.parent_span_id == server.span_id)
        .collect();
    let port = world.dead.expect("there is one").port().to_string();
    has(
        attempts[0],
        &[
            ("server.port", &port),
            ("error.type", "connection"),
            ("http.response.status_code", ""),
        ],
    );
    has(
        attempts[1],
        &[("http.request.resend_count", "1"), ("error.type", "")],
    );
    assert_eq!(
        [is_error(attempts[0]), is_error(attempts[1])],
        [true, false]
    );
    assert_ne!(attempts[0].span_id, attempts[1].span_id);
    has(server, &[("http.response.status_code", "200")]);
    assert!(!is_error(server));
}

#[tokio::test]
async fn the_question_of_authentication_has_a_span() {
    let collector = Collector::start().await;
    let asked = world::Backend::start().await;
    let url = format!("http://127.0.0.1:{}/auth?q=1", asked.address.port());
    let world = World::start(collector.address, &[ON], &[("auth-url", &url)]).await;
    let answer = world.get("/", "").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let spans = collector.spans(3).await;
    let question = &spans[1];
    has(
        question,
        &[("url.full", &url), ("http.response.status_code", "200")],
    );
    assert_eq!(question.parent_span_id, spans[0].span_id);
    let heads = asked.heads();
    let (_, span, _) = parts(heads[0]["traceparent"].to_str().unwrap());
    assert_eq!(span, hex(&question.span_id));
    assert!(question.end_time_unix_nano <= spans[2].start_time_unix_nano);
}

#[tokio::test]
async fn a_collector_that_is_away_is_waited_for_by_nobody() {
    let address = nobody().await;
    let settings = [
        ON,
        ("otel-max-queuesize", "4"),
        ("otel-max-export-batch-size", "2"),
    ];
    let world = World::start(address, &settings, &[]).await;
    for _ in 0..10 {
        assert!(world.get("/", "").await.starts_with("HTTP/1.1 200"));
    }
    // Of 20 spans 4 wait, and 2 more if they were taken to be sent.
    let lost = world.count_of(Fate::Lost, 14).await;
    assert!(lost <= 16, "{lost}");
    let collector = Collector::start_at(address).await;
    let kept = 20 - usize::try_from(lost).unwrap();
    let requests = collector.spans(kept).await;
    assert_eq!(requests.len(), kept);
    world
        .counted([
            (Fate::Sent, kept as u64),
            (Fate::Lost, lost),
            (Fate::Rejected, 0),
        ])
        .await;
    assert!(
        collector
            .requests()
            .iter()
            .all(|request| { request.resource_spans[0].scope_spans[0].spans.len() <= 2 })
    );
    // It goes, with its connection, and comes back.
    collector.end().await;
    world.get("/", "").await;
    let collector = Collector::start_at(address).await;
    collector.spans(2).await;
}

#[tokio::test]
async fn what_the_collector_does_not_want_is_not_sent_again() {
    let collector = Collector::start().await;
    let world = World::start(collector.address, &[ON], &[]).await;
    // INVALID_ARGUMENT.
    *collector.answers.lock().unwrap() = Answers::Status(3);
    world.get("/", "").await;
    world
        .counted([(Fate::Sent, 0), (Fate::Lost, 0), (Fate::Rejected, 2)])
        .await;
    *collector.answers.lock().unwrap() = Answers::AllBut(1);
    world.get("/", "").await;
    world
        .counted([(Fate::Sent, 1), (Fate::Lost, 0), (Fate::Rejected, 3)])
        .await;
    // UNAVAILABLE: these come another time.
    *collector.answers.lock().unwrap() = Answers::Status(14);
    world.get("/", "").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    *collector.answers.lock().unwrap() = Answers::All;
    world
        .counted([(Fate::Sent, 3), (Fate::Lost, 0), (Fate::Rejected, 3)])
        .await;
}

#[tokio::test]
async fn the_end_sends_what_waits_and_waits_for_nobody() {
    let long = ("otel-schedule-delay-millis", "3600000");
    let collector = Collector::start().await;
    let world = World::start(collector.address, &[ON, long], &[]).await;
    world.get("/", "").await;
    world.done(1).await;
    assert_eq!(collector.now().len(), 0);
    world.state.end(Duration::from_secs(20)).await;
    assert_eq!(collector.now().len(), 2);
    *collector.answers.lock().unwrap() = Answers::Nothing;
    let world = World::start(collector.address, &[ON, long], &[]).await;
    world.get("/", "").await;
    world.done(1).await;
    world.state.end(Duration::from_millis(50)).await;
    world
        .counted([(Fate::Sent, 0), (Fate::Lost, 2), (Fate::Rejected, 0)])
        .await;
}
