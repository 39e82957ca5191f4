//! A request that is over, as the variables of nginx have it.

use std::{
    borrow::Cow,
    fmt::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::StatusCode;
use jiff::{Timestamp, civil::DateTime, tz::Offset};
use lb_proxy::Record;
use lb_route::{
    action::Asked,
    context::Context,
    input::Name,
    request::Head,
    variables::{Named, Values, seconds},
};

/// The upstream of what no rule has, as ingress-nginx names it.
const DEFAULT_BACKEND: &str = "upstream-default-backend";
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Whether no Ingress has the request: it is the default backend's, which answers 404 where there
/// is none.
pub fn is_of_default_backend(record: &Record) -> bool {
    match &record.location {
        Some(location) => location.ingress.name.is_empty(),
        None => record.status == StatusCode::NOT_FOUND,
    }
}

/// A request that is over. [`Values`] of templates.
#[derive(Clone, Copy, Debug)]
pub struct Line<'r> {
    record: &'r Record,
    context: Context<'r>,
    hostname: &'r str,
}

impl<'r> Line<'r> {
    /// Of a record, with what it [`Record::asked`] for, and the machine's name.
    pub fn new(record: &'r Record, asked: &'r Asked, hostname: &'r str) -> Self {
        Self {
            record,
            context: record.answered(asked),
            hostname,
        }
    }

    /// When it was over: the time that nginx writes.
    fn end(&self) -> Duration {
        let end = self.record.time + self.record.request_time;
        end.duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    /// `NAMESPACE-SERVICE-PORT` of the path's backend, where the request has gone or not.
    fn upstream_name(&self) -> Cow<'r, str> {
        if is_of_default_backend(self.record) {
            return DEFAULT_BACKEND.into();
        }
        match &self.record.location {
            Some(location) if location.upstream.is_empty() => DEFAULT_BACKEND.into(),
            Some(location) => {
                let Name { namespace, name } = &location.service;
                format!("{namespace}-{name}-{}", location.port).into()
            }
            None => "-".into(),
        }
    }

    fn alternative_upstream_name(&self) -> &'r str {
        let forward = self.record.forward.as_ref().filter(|f| f.canary);
        forward.map_or("", |forward| &forward.upstream.name)
    }
}

impl Values for Line<'_> {
    fn head(&self) -> Head<'_> {
        self.context.head
    }

    fn group(&self, number: u8) -> &[u8] {
        self.context.group(number)
    }

    fn named(&self, name: Named) -> Option<Cow<'_, str>> {
        let record = self.record;
        Some(match name {
            Named::Status => record.status.as_str().into(),
            Named::BodyBytesSent => record.body_bytes_sent.to_string().into(),
            Named::BytesSent => (record.head_bytes_sent + record.body_bytes_sent)
                .to_string()
                .into(),
            Named::RequestLength => record.request_length.to_string().into(),
            Named::RequestTime => seconds(record.request_time).into(),
            Named::Connection => record.connection.to_string().into(),
            Named::ConnectionRequests => record.connection_requests.to_string().into(),
            Named::Hostname => self.hostname.into(),
            Named::Msec => seconds(self.end()).into(),
            Named::TimeLocal => time_local(self.end()).into(),
            Named::TimeIso8601 => time_iso8601(self.end()).into(),
            Named::ProxyUpstreamName => self.upstream_name(),
            Named::ProxyAlternativeUpstreamName => self.alternative_upstream_name().into(),
            Named::UpstreamAddr => record.of_attempts(|a| a.address.to_string())?,
            Named::UpstreamStatus => record.of_attempts(|a| a.status.as_str().to_owned())?,
            Named::UpstreamResponseLength => {
                record.of_attempts(|a| a.response_length.to_string())?
            }
            Named::UpstreamResponseTime => record.of_attempts(|a| seconds(a.response_time))?,
            Named::UpstreamConnectTime => {
                record.of_attempts(|a| seconds_or_none(a.connect_time))?
            }
            Named::UpstreamHeaderTime => record.of_attempts(|a| seconds_or_none(a.header_time))?,
            _ => return self.of_context(name),
        })
    }
}

impl Line<'_> {
    fn of_context(&self, name: Named) -> Option<Cow<'_, str>> {
        let value = self.context.named(name);
        value.or_else(|| match name {
            // The template of ingress-nginx sets them empty, where there is no Ingress.
            Named::Namespace
            | Named::IngressName
            | Named::ServiceName
            | Named::ServicePort
            | Named::LocationPath => Some("".into()),
            Named::ServerName => Some("_".into()),
            _ => None,
        })
    }
}

/// Seconds with milliseconds, as nginx writes times.
fn seconds_or_none(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".to_owned(), seconds)
}

fn utc(time: Duration) -> DateTime {
    let time = Timestamp::try_from(SystemTime::UNIX_EPOCH + time);
    Offset::UTC.to_datetime(time.unwrap_or_default())
}

/// The Common Log Format's, in UTC.
fn time_local(time: Duration) -> String {
    let at = utc(time);
    // Months count from 1.
    let month = MONTHS[at.month() as usize - 1];
    let mut out = String::with_capacity(26);
    // A String takes everything.
    let _ = write!(
        out,
        "{:02}/{month}/{:04}:{:02}:{:02}:{:02} +0000",
        at.day(),
        at.year(),
        at.hour(),
        at.minute(),
        at.second()
    );
    out
}

/// ISO 8601, in UTC.
fn time_iso8601(time: Duration) -> String {
    let at = utc(time);
    let (year, month, day) = (at.year(), at.month(), at.day());
    let (hour, minute, second) = (at.hour(), at.minute(), at.second());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}+00:00")
}
