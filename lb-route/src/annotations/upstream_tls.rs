//! TLS towards backends.

use super::{Group, Reader, Risk::*, accepted, served};
use crate::{
    settings::UpstreamTls,
    values::{self, Parsed},
};

pub(super) const GROUP: Group = Group {
    name: "upstream TLS",
    on_canary: false,
    annotations: &[
        served(
            "proxy-ssl-secret",
            Medium,
            "Secret with tls.crt and tls.key to show, and ca.crt to verify backends by.",
        ),
        served(
            "proxy-ssl-verify",
            Low,
            "on: certificates of backends are verified.",
        ),
        served(
            "proxy-ssl-verify-depth",
            Low,
            "Certificates between a backend's and the root: 1.",
        ),
        served(
            "proxy-ssl-name",
            High,
            "The name that a backend's certificate has to have.",
        ),
        served("proxy-ssl-server-name", Low, "on: that name is sent (SNI)."),
        accepted(
            "proxy-ssl-ciphers",
            Medium,
            "the ciphers of TLS 1.2 and 1.3 without known weaknesses are offered.",
        ),
        accepted("proxy-ssl-protocols", Low, "TLS 1.2 and 1.3 are offered."),
    ],
    read,
};

/// What ingress-nginx reads only where there is a Secret.
const COMPANIONS: [&str; 4] = [
    "proxy-ssl-verify",
    "proxy-ssl-verify-depth",
    "proxy-ssl-name",
    "proxy-ssl-server-name",
];

fn read(reader: &mut Reader<'_>) {
    let (own, others) = (&*reader.ingress.namespace, reader.globals.cross_namespace);
    let object = |value| values::object(value, own, others);
    let Some(secret) = reader.guard("proxy-ssl-secret", object) else {
        if !reader.has("proxy-ssl-secret") {
            reader.without("proxy-ssl-secret", &COMPANIONS);
        }
        return;
    };
    reader.settings.upstream.tls = UpstreamTls {
        secret: Some(secret),
        verify: false,
        verify_depth: 1,
        name: None,
        server_name: false,
    };
    reader.set("proxy-ssl-verify", values::switch, |s| {
        &mut s.upstream.tls.verify
    });
    reader.set("proxy-ssl-verify-depth", verify_depth, |s| {
        &mut s.upstream.tls.verify_depth
    });
    let name = |value: &str| {
        let wanted = "the name of a host";
        let name = values::text(value.trim(), "-._").map_err(|_| wanted)?;
        Ok(Some(name.to_owned()))
    };
    reader.set("proxy-ssl-name", name, |s| &mut s.upstream.tls.name);
    reader.set("proxy-ssl-server-name", values::switch, |s| {
        &mut s.upstream.tls.server_name
    });
}

/// Certificates between one and its root; 0 is the default, 1.
pub(super) fn verify_depth(value: &str) -> Parsed<u32> {
    values::count(value).map(|depth| depth.max(1))
}
