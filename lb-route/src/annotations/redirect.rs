//! Answers that lead elsewhere, and what is changed in those of backends.

use http::StatusCode;

use super::{Group, Reader, Risk::*, served};
use crate::{
    values::{self, Parsed},
    variables::Template,
};

pub(super) const GROUP: Group = Group {
    name: "redirect",
    on_canary: false,
    annotations: &[
        served(
            "ssl-redirect",
            Low,
            "Whether HTTP is led to HTTPS where the host has a certificate.",
        ),
        served(
            "force-ssl-redirect",
            Medium,
            "Whether HTTP is led to HTTPS in any case.",
        ),
        served(
            "preserve-trailing-slash",
            Medium,
            "Whether a redirect to HTTPS keeps a slash at the path's end.",
        ),
        served(
            "relative-redirects",
            Low,
            "Whether redirects of the proxy have a path only.",
        ),
        served(
            "use-port-in-redirects",
            Low,
            "Whether redirects of the proxy name the port.",
        ),
        served(
            "permanent-redirect",
            Medium,
            "Where every request is led (301).",
        ),
        served(
            "permanent-redirect-code",
            Low,
            "Status of permanent-redirect: 300 to 308.",
        ),
        served(
            "temporal-redirect",
            Medium,
            "Where every request is led (302); it goes before permanent-redirect.",
        ),
        served(
            "temporal-redirect-code",
            Low,
            "Status of temporal-redirect: 300 to 307.",
        ),
        served(
            "proxy-redirect-from",
            Medium,
            "What Location and Refresh of backends begin with, to be replaced.",
        ),
        served(
            "proxy-redirect-to",
            Medium,
            "What replaces proxy-redirect-from.",
        ),
        served(
            "proxy-cookie-domain",
            Medium,
            "Domain of cookies that backends set: two texts, from and to.",
        ),
        served(
            "proxy-cookie-path",
            Medium,
            "Path of cookies that backends set: two texts, from and to.",
        ),
    ],
    read,
};

fn read(reader: &mut Reader<'_>) {
    reader.set("ssl-redirect", values::flag, |s| &mut s.redirect.ssl);
    reader.set("force-ssl-redirect", values::flag, |s| {
        &mut s.redirect.force_ssl
    });
    reader.set("preserve-trailing-slash", values::flag, |s| {
        &mut s.redirect.preserve_trailing_slash
    });
    // Where the ConfigMap says so, no Ingress says otherwise: nginx.tmpl has no `off`.
    if reader.value("relative-redirects", values::flag) == Some(true) {
        reader.settings.redirect.relative = true;
    }
    reader.set("use-port-in-redirects", values::flag, |s| {
        &mut s.redirect.use_port
    });
    read_targets(reader);
    read_responses(reader);
}

fn read_targets(reader: &mut Reader<'_>) {
    let code = |value: &str| values::status(value, 300..=308);
    let permanent = reader.value("permanent-redirect", |value| target(value, false));
    let permanent_code = reader.value("permanent-redirect-code", code);
    let code = |value: &str| values::status(value, 300..=307);
    let temporal = reader.value("temporal-redirect", |value| target(value, true));
    let temporal_code = reader.value("temporal-redirect-code", code);
    if !reader.has("permanent-redirect") {
        reader.without("permanent-redirect", &["permanent-redirect-code"]);
    }
    if !reader.has("temporal-redirect") {
        reader.without("temporal-redirect", &["temporal-redirect-code"]);
    }
    let temporal = temporal.map(|to| (temporal_code.unwrap_or(StatusCode::FOUND), to));
    let permanent_code = permanent_code.unwrap_or(StatusCode::MOVED_PERMANENTLY);
    let permanent = permanent.map(|to| (permanent_code, to));
    reader.settings.redirect.to = temporal.or(permanent);
}

/// `isValidURL` asks for a scheme in temporal-redirect only.
fn target(value: &str, absolute: bool) -> Parsed<Template> {
    let wanted = "an address such as https://example.com/path";
    let address = values::text(value, "-._~/:,?&=").map_err(|_| wanted)?;
    if absolute && values::host_of(address).is_err() {
        return Err(wanted.into());
    }
    values::template(address)
}

fn read_responses(reader: &mut Reader<'_>) {
    let text = |value| values::text(value, values::URL).map(str::to_owned);
    let from = reader.value("proxy-redirect-from", text);
    let to = reader.value("proxy-redirect-to", text);
    if from.is_some() || to.is_some() {
        let (old_from, old_to) = reader.settings.response.redirect.take().unzip();
        reader.settings.response.redirect = redirect_pair(from.or(old_from), to.or(old_to));
    }
    reader.set("proxy-cookie-domain", values::pair, |s| {
        &mut s.response.cookie_domain
    });
    reader.set("proxy-cookie-path", values::pair, |s| {
        &mut s.response.cookie_path
    });
}

/// `off` and `default` change nothing: what backends lead to is never the name that nginx has for
/// them.
pub(crate) fn redirect_pair(from: Option<String>, to: Option<String>) -> Option<(String, String)> {
    let from = from.filter(|from| from != "off" && from != "default");
    let to = to.filter(|to| to != "off");
    from.zip(to)
}
