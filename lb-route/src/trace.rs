//! The place of a request in a trace: W3C Trace Context
//! (<https://www.w3.org/TR/2021/REC-trace-context-1-20211123/>), and which requests are traced
//! (OpenTelemetry, "Sampling", <https://opentelemetry.io/docs/specs/otel/trace/sdk/#sampling>).

use std::num::{NonZeroU64, NonZeroU128};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::variables::Template;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The flag of `traceparent` that says that the caller keeps its span (section 3.2.2.5.1).
const SAMPLED: u8 = 1;

/// How requests are traced.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Tracing {
    /// Whether they are (`enable-opentelemetry`).
    pub on: bool,
    /// Whether spans of clients are continued (`opentelemetry-trust-incoming-span`).
    pub trust: bool,
    /// Name of the span; `None` for the path of the rule (`opentelemetry-operation-name`).
    pub name: Option<Template>,
    /// Which spans are kept (`otel-sampler`).
    pub sampler: Sampler,
    /// Whether what the client's span says goes before that (`otel-sampler-parent-based`).
    pub parent_based: bool,
}

/// Which spans are kept.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum Sampler {
    /// All.
    #[default]
    AlwaysOn,
    /// None.
    AlwaysOff,
    /// Those of this part of the traces (`otel-sampler-ratio`).
    Ratio(f64),
}

impl Sampler {
    /// Whether a trace is one of those that are kept: by its last 63 bits, so that whoever asks
    /// for the same part, or a larger one, keeps it too, as the SDKs of OpenTelemetry do.
    pub fn takes(self, trace: NonZeroU128) -> bool {
        const ALL: f64 = (1u64 << 63) as f64;
        match self {
            Self::AlwaysOn => true,
            Self::AlwaysOff => false,
            // The low half is what is meant.
            Self::Ratio(ratio) => ratio >= 1.0 || (trace.get() as u64 >> 1) < (ratio * ALL) as u64,
        }
    }
}

/// The span of a request: its place in a trace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Span {
    /// The trace.
    pub trace: NonZeroU128,
    /// The span.
    pub id: NonZeroU64,
    /// The client's span, if that is continued.
    pub parent: Option<NonZeroU64>,
    /// Whether it is kept.
    pub sampled: bool,
    /// What others have added to the trace (`tracestate`), which is passed on as it came.
    pub state: Option<HeaderValue>,
}

impl Span {
    /// Of a request with these headers, and random numbers for it: for a trace, if it begins one,
    /// and for the span.
    pub fn begin(
        settings: &Tracing,
        headers: &HeaderMap,
        (trace, id): (NonZeroU128, NonZeroU64),
    ) -> Self {
        let parent = settings.trust.then(|| parent(headers)).flatten();
        let (trace, parent, flags) = parent.map_or((trace, None, None), |(trace, id, flags)| {
            (trace, Some(id), Some(flags))
        });
        let sampled = match flags.filter(|_| settings.parent_based) {
            Some(flags) => flags & SAMPLED != 0,
            None => settings.sampler.takes(trace),
        };
        Self {
            trace,
            id,
            parent,
            sampled,
            state: parent.and_then(|_| state(headers)),
        }
    }

    /// Sets the headers for whoever is asked next, in place of the client's; `by` is the span that
    /// asks.
    pub fn pass_on(&self, headers: &mut HeaderMap, by: NonZeroU64) {
        let flags = u8::from(self.sampled);
        let text = format!("00-{:032x}-{by:016x}-{flags:02x}", self.trace);
        // Digits and dashes are a value.
        if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(text)) {
            headers.insert(TRACEPARENT, value);
        }
        match &self.state {
            Some(state) => drop(headers.insert(TRACESTATE, state.clone())),
            None => drop(headers.remove(TRACESTATE)),
        }
    }
}

/// The trace, the span and the flags of `traceparent`; none of one that is not as section 3.2 has
/// it, and of several.
fn parent(headers: &HeaderMap) -> Option<(NonZeroU128, NonZeroU64, u8)> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    let text = value.to_str().ok()?;
    let mut parts = text.splitn(5, '-');
    let mut digits = |length: usize| {
        let part = parts.next()?;
        let is_digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        let is_number = part.len() == length && part.bytes().all(is_digit);
        u128::from_str_radix(part, 16).ok().filter(|_| is_number)
    };
    let (version, trace, id, flags) = (digits(2)?, digits(32)?, digits(16)?, digits(2)?);
    // What versions to come add is behind another dash (section 4.3).
    let is_read = match version {
        0 => parts.next().is_none(),
        version => version != 0xff,
    };
    let trace = NonZeroU128::new(trace).filter(|_| is_read)?;
    let id = NonZeroU64::new(u64::try_from(id).ok()?)?;
    Some((trace, id, u8::try_from(flags).ok()?))
}

/// `tracestate`, of several headers together (section 3.3.1).
fn state(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut values = headers.get_all(TRACESTATE).iter();
    let filled = |value: &&HeaderValue| !value.is_empty();
    let mut values = values.by_ref().filter(filled);
    let first = values.next()?;
    let Some(second) = values.next() else {
        return Some(first.clone());
    };
    let all = [first, second].into_iter().chain(values);
    let all: Vec<_> = all.map(HeaderValue::as_bytes).collect();
    HeaderValue::from_bytes(&all.join(&b","[..])).ok()
}
