//! Logs.

use super::{Globals, Key, accepted, auth::patterns, put, served};
use crate::{
    values::{self, Parsed},
    variables::Escape,
};

const WRITES: &str = "logs are written to standard output.";

pub(super) const KEYS: &[Key] = &[
    served(
        "disable-access-log",
        "Whether there is no access log: false.",
        |g, v| put(&mut g.log.on, values::flag(v).map(|is_off| !is_off)),
    ),
    served(
        "log-format-upstream",
        "A line of the access log, with variables.",
        |g, v| put(&mut g.log.format, values::template(v)),
    ),
    served(
        "log-format-escape-json",
        "Whether values in it are escaped as in JSON: false.",
        |g, v| escape(g, v, Escape::Json),
    ),
    served(
        "log-format-escape-none",
        "Whether values in it are not escaped; it goes before the other: false.",
        |g, v| escape(g, v, Escape::None),
    ),
    served(
        "skip-access-log-urls",
        "Paths with their queries that are not logged; after ~ or ~* an expression: none.",
        |g, v| put(&mut g.log.skip, patterns(v)),
    ),
    served(
        "enable-access-log-for-default-backend",
        "Whether requests of the default backend are logged: false.",
        |g, v| put(&mut g.log.default_backend, values::flag(v)),
    ),
    accepted("access-log-params", WRITES),
    accepted("access-log-path", WRITES),
    accepted("http-access-log-path", WRITES),
    accepted("stream-access-log-path", WRITES),
    accepted("error-log-path", WRITES),
    accepted("error-log-level", "the proxy's flag says what it logs."),
    accepted(
        "enable-auth-access-log",
        "questions of auth-url are in traces.",
    ),
    accepted("log-format-stream", "TCP and UDP are not forwarded here."),
    accepted("disable-http-access-log", "disable-access-log counts."),
    accepted(
        "disable-stream-access-log",
        "TCP and UDP are not forwarded here.",
    ),
    accepted("enable-syslog", WRITES),
    accepted("syslog-host", WRITES),
    accepted("syslog-port", WRITES),
    accepted("debug-connections", "the proxy's flag says what it logs."),
];

/// Keys are read in the order of their names: `-none` after `-json`, and it counts.
fn escape(globals: &mut Globals, value: &str, escape: Escape) -> Parsed<()> {
    if values::flag(value)? {
        globals.log.escape = escape;
    }
    Ok(())
}
