//! Certificates of clients, which are asked for by whole hosts.

use super::{Group, Reader, Risk::*, served, upstream_tls::verify_depth};
use crate::{
    settings::{ClientCert, VerifyClient},
    values::{self, Parsed},
    variables::Template,
};

pub(super) const GROUP: Group = Group {
    name: "client certificates",
    on_canary: false,
    annotations: &[
        served(
            "auth-tls-secret",
            Medium,
            "Secret with ca.crt, by which certificates of clients are verified; without one the \
             answer is 400.",
        ),
        served(
            "auth-tls-verify-client",
            Medium,
            "on, off, optional or optional_no_ca: when a client has to show a certificate.",
        ),
        served(
            "auth-tls-verify-depth",
            Low,
            "Certificates between a client's and the root: 1.",
        ),
        served(
            "auth-tls-error-page",
            High,
            "Where a client is led whose certificate does not do.",
        ),
        served(
            "auth-tls-pass-certificate-to-upstream",
            Low,
            "Whether the backend gets the certificate, in ssl-client-cert.",
        ),
        served(
            "auth-tls-match-cn",
            High,
            "An expression, CN= and more, that the certificate's subject has to match (403).",
        ),
    ],
    read,
};

const COMPANIONS: [&str; 5] = [
    "auth-tls-verify-client",
    "auth-tls-verify-depth",
    "auth-tls-error-page",
    "auth-tls-pass-certificate-to-upstream",
    "auth-tls-match-cn",
];

fn read(reader: &mut Reader<'_>) {
    let (own, others) = (&*reader.ingress.namespace, reader.globals.cross_namespace);
    // Unlike others, it is never without a namespace in ingress-nginx (`ParseNameNS`).
    let object = |value: &str| match value.contains('/') {
        true => values::object(value, own, others),
        false => Err("NAMESPACE/NAME".into()),
    };
    let Some(secret) = reader.guard("auth-tls-secret", object) else {
        if reader.has("auth-tls-secret") {
            deny_host(reader, "auth-tls-secret");
        } else {
            reader.without("auth-tls-secret", &COMPANIONS);
        }
        return;
    };
    let verify = reader.value("auth-tls-verify-client", verify_client);
    let depth = reader.value("auth-tls-verify-depth", verify_depth);
    let error_page = reader.value("auth-tls-error-page", error_page);
    let pass = "auth-tls-pass-certificate-to-upstream";
    let pass_to_upstream = reader.value(pass, values::flag).unwrap_or(false);
    let match_cn = reader.guard("auth-tls-match-cn", |value| {
        let is_name = value.starts_with("CN=");
        let expression = is_name.then(|| values::expression(value)).transpose()?;
        expression.ok_or("CN= and an expression".into())
    });
    if match_cn.is_none() && reader.has("auth-tls-match-cn") {
        deny_host(reader, "auth-tls-match-cn");
    }
    reader.settings.host.client_cert = Some(ClientCert {
        secret,
        verify: verify.unwrap_or_default(),
        depth: depth.unwrap_or(1),
        error_page,
        pass_to_upstream,
        match_cn,
    });
}

fn deny_host(reader: &mut Reader<'_>, name: &str) {
    let why = format!(
        "{}/{name} of {} cannot be read",
        reader.prefix(),
        reader.ingress
    );
    reader.settings.host.denied = Some(why);
}

fn verify_client(value: &str) -> Parsed<VerifyClient> {
    let words = [
        ("on", VerifyClient::On),
        ("off", VerifyClient::Off),
        ("optional", VerifyClient::Optional),
        ("optional_no_ca", VerifyClient::OptionalNoCa),
    ];
    values::word(value, &words, "on, off, optional or optional_no_ca")
}

/// `redirectRegex` of ingress-nginx, without its locations of nginx's configuration (`@name`).
fn error_page(value: &str) -> Parsed<Template> {
    let wanted = "a path or an address, without a query";
    let page = values::text(value.trim(), "-._/:").map_err(|_| wanted)?;
    let is_page = page.starts_with('/') || values::host_of(page).is_ok();
    let page = is_page.then(|| values::template(page)).transpose()?;
    page.ok_or(wanted.into())
}
