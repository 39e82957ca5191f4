//! Places in traces: what is read of a client's headers, what is kept, and what the backend gets.
//! Headers are those of the tests of the W3C (w3c/trace-context, test/test.py); samplers, and what
//! is read of ours, are asked of OpenTelemetry's SDK.

mod common;

use std::{
    collections::HashMap,
    num::{NonZeroU64, NonZeroU128},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use lb_route::trace::{Sampler, Span, Tracing};
use opentelemetry::{
    Context,
    propagation::TextMapPropagator as _,
    trace::{SpanKind, TraceContextExt as _, TraceId},
};
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{Sampler as Known, SamplingDecision, ShouldSample as _},
};
use proptest::prelude::*;

const TRACE: NonZeroU128 = NonZeroU128::new(0xfeed).unwrap();
const ID: NonZeroU64 = NonZeroU64::new(0xbead).unwrap();
const CLIENTS: u128 = 0x1234_5678_9012_3456_7890_1234_5678_9012;
const PARENT: &str = "00-12345678901234567890123456789012-1234567890123456-01";

fn tracing() -> Tracing {
    Tracing {
        on: true,
        trust: true,
        name: None,
        sampler: Sampler::AlwaysOn,
        parent_based: true,
    }
}

fn begin(settings: &Tracing, headers: &[(&'static str, &str)]) -> Span {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).expect("it is a value");
        map.append(HeaderName::from_static(name), value);
    }
    Span::begin(settings, &map, (TRACE, ID))
}

#[test]
fn only_a_good_traceparent_is_continued() {
    let rest = PARENT.strip_prefix("00").expect("it is of version 0");
    let of = |version: &str, more: &str| format!("{version}{rest}{more}");
    let cases: &[(String, bool)] = &[
        (PARENT.to_owned(), true),
        (of("00", "."), false),
        (of("00", "-what-the-future-will-be-like"), false),
        (of("cc", ""), true),
        (of("cc", "-what-the-future-will-be-like"), true),
        (of("cc", ".what-the-future-will-be-like"), false),
        (of("ff", ""), false),
        (of(".0", ""), false),
        (of("0.", ""), false),
        (of("+0", ""), false),
        (of("000", ""), false),
        (of("0", ""), false),
        (PARENT.replace("00-1", "00-."), false),
        (PARENT.replace("00-1", "00-A"), false),
        (PARENT.replace("9012-", "901-"), false),
        (PARENT.replace("9012-", "90123-"), false),
        (
            "00-00000000000000000000000000000000-1234567890123456-01".to_owned(),
            false,
        ),
        (
            "00-12345678901234567890123456789012-0000000000000000-01".to_owned(),
            false,
        ),
        (PARENT.replace("-01", "-.0"), false),
        (PARENT.replace("-01", "-001"), false),
        (PARENT.replace("-01", "-1"), false),
        (PARENT.replace("-01", ""), false),
        (PARENT.replace('-', ""), false),
        (String::new(), false),
    ];
    for (value, is_good) in cases {
        let span = begin(&tracing(), &[("traceparent", value), ("tracestate", "a=1")]);
        let state = HeaderValue::from_static("a=1");
        let expected = match is_good {
            true => (CLIENTS, NonZeroU64::new(0x1234_5678_9012_3456), Some(state)),
            // What is not continued has no state of its client's either.
            false => (TRACE.get(), None, None),
        };
        let found = (span.trace.get(), span.parent, span.state);
        assert_eq!(found, expected, "{value}");
        assert_eq!((span.id, span.sampled), (ID, true), "{value}");
    }
    let other = PARENT.replace("00-1", "00-2");
    let two = [("traceparent", PARENT), ("traceparent", &other)];
    assert_eq!(begin(&tracing(), &two).trace, TRACE);
    assert_eq!(begin(&tracing(), &[]).trace, TRACE);
}

#[test]
fn what_others_added_is_passed_on_as_it_came() {
    let cases: &[(&[&str], Option<&str>)] = &[
        (&["foo=1,bar=2"], Some("foo=1,bar=2")),
        (&["foo=1", "bar=2"], Some("foo=1,bar=2")),
        (&["foo=1", "", "bar=2", "c=3"], Some("foo=1,bar=2,c=3")),
        (&["foo@=1"], Some("foo@=1")),
        (&[""], None),
        (&[], None),
    ];
    for (values, expected) in cases {
        let mut headers = vec![("traceparent", PARENT)];
        headers.extend(values.iter().map(|value| ("tracestate", *value)));
        let state = begin(&tracing(), &headers).state;
        let state = state.as_ref().and_then(|state| state.to_str().ok());
        assert_eq!(state, *expected, "{values:?}");
    }
}

#[test]
fn who_says_what_is_kept() {
    let not = PARENT.replace("-01", "-00");
    let all = PARENT.replace("-01", "-ff");
    let odd = PARENT.replace("-01", "-02");
    let (on, off) = (Sampler::AlwaysOn, Sampler::AlwaysOff);
    // Sampler, trusted, parent based, traceparent; whether it is kept, and continued.
    type Case<'c> = (Sampler, bool, bool, Option<&'c str>, (bool, bool));
    let cases: &[Case<'_>] = &[
        (on, true, true, None, (true, false)),
        (off, true, true, None, (false, false)),
        (on, true, true, Some(&not), (false, true)),
        (on, true, true, Some(&odd), (false, true)),
        (off, true, true, Some(PARENT), (true, true)),
        (off, true, true, Some(&all), (true, true)),
        (on, true, false, Some(&not), (true, true)),
        (off, true, false, Some(PARENT), (false, true)),
        (on, false, true, Some(&not), (true, false)),
        (off, false, true, Some(PARENT), (false, false)),
        (Sampler::Ratio(0.0), true, true, None, (false, false)),
        (Sampler::Ratio(1.0), true, true, None, (true, false)),
    ];
    for (sampler, trust, parent_based, parent, expected) in cases {
        let settings = Tracing {
            sampler: *sampler,
            trust: *trust,
            parent_based: *parent_based,
            ..tracing()
        };
        let parent = parent.map(|parent| ("traceparent", parent));
        let span = begin(&settings, parent.as_slice());
        let found = (span.sampled, span.parent.is_some());
        assert_eq!(
            found, *expected,
            "{sampler:?} {trust} {parent_based} {parent:?}"
        );
    }
}

#[test]
fn the_backend_gets_no_word_of_a_client_who_is_not_trusted() {
    let settings = Tracing {
        trust: false,
        ..tracing()
    };
    let span = begin(&settings, &[("traceparent", PARENT), ("tracestate", "a=1")]);
    let mut headers = HeaderMap::new();
    headers.append("traceparent", HeaderValue::from_static(PARENT));
    headers.append("traceparent", HeaderValue::from_static("x"));
    headers.append("tracestate", HeaderValue::from_static("a=1"));
    span.pass_on(
        &mut headers,
        NonZeroU64::new(0xf00d).expect("it is not zero"),
    );
    let all: Vec<_> = headers.iter().collect();
    let expected =
        HeaderValue::from_static("00-0000000000000000000000000000feed-000000000000f00d-01");
    assert_eq!(all, [(&HeaderName::from_static("traceparent"), &expected)]);
}

/// `Parse` of internal/ingress/annotations/opentelemetry/main.go, and
/// `buildOpentelemetryForLocation`, of ingress-nginx v1.15.1.
#[test]
#[rustfmt::skip]
fn an_ingress_says_for_itself() {
    const ON: (&str, &str) = ("enable-opentelemetry", "true");
    const OFF: (&str, &str) = ("enable-opentelemetry", "false");
    const TRUST: (&str, &str) = ("opentelemetry-trust-incoming-span", "true");
    const NOT: (&str, &str) = ("opentelemetry-trust-incoming-span", "false");
    const NAME: (&str, &str) = ("opentelemetry-operation-name", "my-shop_1");
    type Pairs<'p> = &'p [(&'p str, &'p str)];
    type Case<'c> = (Pairs<'c>, Pairs<'c>, (bool, bool, Option<&'c str>), usize);
    let cases: &[Case<'_>] = &[
        (&[], &[], (false, true, None), 0),
        (&[], &[ON], (true, true, None), 0),
        (&[], &[ON, NOT, NAME], (true, false, Some("my-shop_1")), 0),
        (&[ON], &[], (true, true, None), 0),
        (&[ON], &[OFF], (false, true, None), 0),
        (&[ON, NOT], &[], (true, false, None), 0),
        (&[ON, NOT], &[ON], (true, false, None), 0),
        (&[ON, NOT], &[ON, TRUST], (true, true, None), 0),
        (&[ON, ("opentelemetry-operation-name", "$uri")], &[ON], (true, true, Some("$uri")), 0),
        (&[ON, ("opentelemetry-operation-name", "$uri")], &[ON, NAME],
            (true, true, Some("my-shop_1")), 0),
        // Alone they do not count.
        (&[ON], &[NOT, NAME], (true, true, None), 2),
        (&[ON], &[OFF, NOT, NAME], (false, true, None), 2),
    ];
    for (globals, annotations, expected, troubles) in cases {
        let globals = [&[("otlp-collector-host", "otel.local")], *globals].concat();
        let read = common::read_with(&globals, annotations);
        let found = read.settings.tracing;
        let name = found.name.as_ref().map(|name| name.text());
        assert_eq!((found.on, found.trust, name), *expected, "{globals:?} {annotations:?}");
        assert_eq!(read.troubles.len(), *troubles, "{annotations:?} {:?}", read.troubles);
    }
    // Nobody gets its spans.
    assert_eq!(common::read(&[ON]).troubles.len(), 1);
}

proptest! {
    #[test]
    fn samplers_are_those_of_the_sdk(trace: u128, ratio in 0.0..=1.0f64) {
        let trace = NonZeroU128::new(trace).unwrap_or(TRACE);
        for ratio in [ratio, 0.0, 0.5, 1.0] {
            let known = Known::TraceIdRatioBased(ratio);
            let id = TraceId::from(trace.get());
            let known = known.should_sample(None, id, "", &SpanKind::Server, &[], &[]);
            let is_kept = known.decision == SamplingDecision::RecordAndSample;
            prop_assert_eq!(Sampler::Ratio(ratio).takes(trace), is_kept, "{} {:x}", ratio, trace);
        }
    }

    #[test]
    fn the_sdk_reads_what_is_passed_on(trace: u128, by: u64, is_kept: bool) {
        let trace = NonZeroU128::new(trace).unwrap_or(TRACE);
        let by = NonZeroU64::new(by).unwrap_or(ID);
        let span = Span {
            trace,
            id: ID,
            parent: None,
            sampled: is_kept,
            state: Some(HeaderValue::from_static("foo=1,bar=2")),
        };
        let mut headers = HeaderMap::new();
        span.pass_on(&mut headers, by);
        let text = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.as_str().to_owned(), value.to_str().expect("it is text").to_owned())
        };
        let headers: HashMap<String, String> = headers.iter().map(text).collect();
        let read = TraceContextPropagator::new().extract_with_context(&Context::new(), &headers);
        let span = read.span();
        let read = span.span_context();
        prop_assert_eq!(read.trace_id(), TraceId::from(trace.get()));
        prop_assert_eq!(read.span_id().to_bytes(), by.get().to_be_bytes());
        prop_assert_eq!(read.is_sampled(), is_kept);
        prop_assert_eq!(read.trace_state().header(), "foo=1,bar=2");
    }
}
