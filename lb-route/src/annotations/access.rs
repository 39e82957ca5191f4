//! Who may ask: addresses, names and passwords.

use ipnet::IpNet;

use super::{Group, Reader, Risk::*, served};
use crate::{
    settings::BasicAuth,
    trouble::{Severity, reason},
    values::{self, Parsed},
};

pub(super) const GROUP: Group = Group {
    name: "access",
    on_canary: false,
    annotations: &[
        served(
            "allowlist-source-range",
            Medium,
            "Addresses and networks of clients; others are refused (403). Its older name is \
             whitelist-source-range.",
        ),
        served(
            "denylist-source-range",
            Medium,
            "Addresses and networks of clients that are refused (403).",
        ),
        served(
            "auth-type",
            Low,
            "basic: a name and a password are asked for. digest is refused, and with it every \
             request.",
        ),
        served("auth-secret", Medium, "The Secret with the users."),
        served(
            "auth-secret-type",
            Low,
            "auth-file: the users are in the key auth, as htpasswd writes them; auth-map: each is \
             a key.",
        ),
        served(
            "auth-realm",
            Medium,
            "What users are told that they sign in to.",
        ),
        served(
            "satisfy",
            Low,
            "any: one of addresses, password and auth-url is enough; or all.",
        ),
    ],
    read,
};

fn read(reader: &mut Reader<'_>) {
    if let Some(allow) = aliased_ranges(reader) {
        reader.settings.access.allow = allow;
    } else if let Some(why) = &reader.globals.allow_unreadable {
        reader.deny_by_config(why);
    }
    if reader.raw("denylist-source-range").is_some() {
        let deny = ranges(reader, "denylist-source-range");
        reader.settings.access.deny = deny;
    }
    read_basic(reader);
    let any = |value: &str| values::word(value, &[("any", true), ("all", false)], "any or all");
    reader.set("satisfy", any, |s| &mut s.access.any);
}

/// Ranges by the name in use, else by the older one, of which an empty one is none.
fn aliased_ranges(reader: &mut Reader<'_>) -> Option<Vec<IpNet>> {
    let (name, alias) = ("allowlist-source-range", "whitelist-source-range");
    if reader.has(alias) && !reader.has(name) {
        return Some(ranges(reader, alias));
    }
    if reader.has(alias) {
        let rest = format!("does not count beside {name}; remove it");
        reader.tell(alias, Severity::Warning, reason::WITHOUT_EFFECT, &rest);
    }
    reader.raw(name)?;
    Some(ranges(reader, name))
}

/// An empty list is denied here as ingress-nginx does: nobody can tell whom it means.
fn ranges(reader: &mut Reader<'_>, name: &str) -> Vec<IpNet> {
    if !reader.has(name) {
        reader.deny(name, "is empty; it has to have addresses or networks");
    }
    reader.guard(name, values::networks).unwrap_or_default()
}

fn read_basic(reader: &mut Reader<'_>) {
    if !reader.has("auth-type") {
        let names = ["auth-secret", "auth-secret-type", "auth-realm"];
        reader.without("auth-type: basic", &names);
        return;
    }
    if reader.guard("auth-type", kind).is_none() {
        return;
    }
    let map = |value: &str| {
        let words = [("auth-file", false), ("auth-map", true)];
        values::word(value, &words, "auth-file or auth-map")
    };
    let map = reader.guard("auth-secret-type", map).unwrap_or(false);
    if !reader.has("auth-secret") {
        reader.deny(
            "auth-type",
            "is set without auth-secret; name the Secret with the users",
        );
        return;
    }
    let (own, others) = (&*reader.ingress.namespace, reader.globals.cross_namespace);
    let object = |value| values::object(value, own, others);
    let Some(secret) = reader.guard("auth-secret", object) else {
        return;
    };
    let realm = |value| values::text(value, values::BASIC).map(str::to_owned);
    let realm = reader.value("auth-realm", realm).unwrap_or_default();
    reader.settings.access.basic = Some(BasicAuth { secret, map, realm });
}

fn kind(value: &str) -> Parsed<()> {
    match value.trim() {
        "basic" => Ok(()),
        "digest" => Err("basic; digest authentication is not offered".into()),
        _ => Err("basic".into()),
    }
}
