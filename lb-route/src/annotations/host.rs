//! What counts for a whole host.

use super::{Group, Reader, Risk::*, accepted, served};
use crate::{
    host,
    values::{self, Parsed},
};

pub(super) const GROUP: Group = Group {
    name: "host",
    on_canary: false,
    annotations: &[
        served(
            "server-alias",
            High,
            "More names of the host, with commas; one may begin with *.",
        ),
        served(
            "from-to-www-redirect",
            Low,
            "Whether the name with www. leads to the host, or the one without it.",
        ),
        served(
            "ssl-passthrough",
            Low,
            "Whether TLS of the host is its backend's; other annotations do not count then.",
        ),
        accepted(
            "ssl-ciphers",
            Low,
            "the ciphers of TLS 1.2 and 1.3 without known weaknesses are offered.",
        ),
        accepted(
            "ssl-prefer-server-ciphers",
            Low,
            "the order of the proxy counts.",
        ),
        accepted(
            "http2-push-preload",
            Low,
            "browsers do not take pushes any more.",
        ),
    ],
    read,
};

fn read(reader: &mut Reader<'_>) {
    reader.set("server-alias", aliases, |s| &mut s.host.aliases);
    reader.set("from-to-www-redirect", values::flag, |s| {
        &mut s.host.from_to_www
    });
    reader.set("ssl-passthrough", values::flag, |s| &mut s.host.passthrough);
}

fn aliases(value: &str) -> Parsed<Vec<String>> {
    let names: Option<Vec<String>> = values::list(value).map(alias).collect();
    let mut names = names.ok_or("names of hosts, with commas; expressions are not offered")?;
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// A name as hosts of rules are: `*.` and a name, or a name.
fn alias(name: &str) -> Option<String> {
    let (star, rest) = match name.strip_prefix("*.") {
        Some(rest) => ("*.", rest),
        None => ("", name),
    };
    let is_name = !rest.contains([':', '[']);
    let rest = is_name.then(|| host::normal(rest)).flatten()?;
    Some(format!("{star}{rest}"))
}
