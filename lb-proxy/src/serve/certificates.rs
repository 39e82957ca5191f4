//! Which certificate a host shows, and which it asks of its clients, by a table.

use std::sync::Arc;

use lb_route::{Table, globals::Globals, settings::VerifyClient};

use crate::tls::{
    certificates::Loaded,
    hosts::{self, Certificates, Demand, Shows},
};

/// The certificates of the hosts of a table.
pub(super) fn certificates(
    previous: Option<&Certificates>,
    table: &Table,
    fallback: &Arc<Loaded>,
) -> Certificates {
    let hosts = table.hosts().map(|(name, host)| hosts::Host {
        name,
        shows: match (&host.passthrough, &host.certificate) {
            (Some(_), _) => Shows::Backend,
            (
                None,
                Some(lb_route::Certificate {
                    data: Some(data), ..
                }),
            ) => Shows::Secret(data.clone()),
            (None, _) => Shows::Default,
        },
        demand: host.client_cert.as_ref().and_then(|authority| {
            let settings = &authority.settings;
            (settings.verify != VerifyClient::Off).then(|| Demand {
                secret: authority.data.clone(),
                depth: settings.depth,
            })
        }),
    });
    let default = (table.default_certificate(), fallback);
    Certificates::build(previous, &tls_options(table.globals()), default, hosts)
}

fn tls_options(globals: &Globals) -> hosts::Options {
    hosts::Options {
        http2: globals.client.http2,
        tls12: globals.tls.v12,
        tls13: globals.tls.v13,
        tickets: globals.tls.tickets,
        session_timeout: globals.tls.session_timeout,
        session_cache: globals.tls.session_cache,
        reject_unknown: globals.tls.reject,
        ..hosts::Options::default()
    }
}
