//! `bascule affinity list`: which client is bound to which backend. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use lb_common::{Addr, frontend_flags};
use lb_datapath::socket::affinity_client;
use serde::Serialize;

use super::{
    rows::{Held, scope_name},
    text::{Side, Table, duration},
};
use crate::bpf::views::AffinityView;

/// A binding of session affinity.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct AffinityRow {
    /// The service, or `#id`.
    pub service: String,
    /// The client; `null` for local sockets, which have no address yet when they connect.
    pub client: Option<IpAddr>,
    /// The cookie of the network namespace whose sockets it is for.
    pub namespace: Option<u64>,
    /// `internal` or `external`.
    pub scope: &'static str,
    /// The backend.
    pub backend: String,
    /// Seconds since it was used last.
    pub idle: u64,
    /// Seconds after which it ends; `null` where no frontend has affinity any more.
    pub timeout: Option<u32>,
    /// Whether the client's next connection goes to the backend.
    pub bound: bool,
}

impl AffinityRow {
    fn new(binding: &AffinityView, held: &Held, timeout: Option<u32>) -> Self {
        let key = &binding.key;
        let namespace = namespace(key.client);
        Self {
            service: held.name(key.service),
            client: namespace.is_none().then(|| key.client.into()),
            namespace,
            scope: scope_name(key.scope as u8),
            backend: held.backend(binding.backend),
            idle: binding.idle,
            timeout,
            bound: held.backends.contains_key(&binding.backend)
                && timeout.is_some_and(|seconds| binding.idle <= u64::from(seconds)),
        }
    }

    /// The order of the list.
    pub fn order(&self) -> impl Ord + use<> {
        (
            self.service.clone(),
            self.client,
            self.namespace,
            self.scope,
        )
    }
}

/// Bindings among what the maps hold.
pub fn affinity_rows(held: &Held, bindings: &[AffinityView]) -> Vec<AffinityRow> {
    let sticky = held.frontends.iter().filter(|(_, value)| {
        let vip = value.flags & frontend_flags::VIP != 0;
        !vip && value.affinity > 0
    });
    let timeouts: BTreeMap<(u32, u32), u32> = sticky
        .map(|(key, value)| ((value.service, u32::from(key.scope)), value.affinity))
        .collect();
    let row = |binding: &AffinityView| {
        let timeout = timeouts.get(&(binding.key.service, binding.key.scope));
        AffinityRow::new(binding, held, timeout.copied())
    };
    bindings.iter().map(row).collect()
}

/// The cookie of the network namespace that stands for a client.
fn namespace(client: Addr) -> Option<u64> {
    let [.., high, low] = client.0;
    let cookie = u64::from(high.get()) << 32 | u64::from(low.get());
    let is = |v4| client == affinity_client(cookie, v4);
    (is(true) || is(false)).then_some(cookie)
}

/// Bindings as text.
pub fn affinities_text(rows: &[AffinityRow]) -> String {
    let mut table = Table::new(&[
        ("SERVICE", Side::Left),
        ("CLIENT", Side::Left),
        ("SCOPE", Side::Left),
        ("BACKEND", Side::Left),
        ("IDLE", Side::Right),
        ("ENDS", Side::Left),
    ]);
    for row in rows {
        let client = match (row.client, row.namespace) {
            (Some(client), _) => client.to_string(),
            (None, cookie) => format!("netns cookie {}", cookie.unwrap_or_default()),
        };
        let left = row.timeout.map(|s| u64::from(s).saturating_sub(row.idle));
        let ends = match left {
            Some(left) if row.bound => format!("in {}", duration(left)),
            _ => "ended".to_owned(),
        };
        table.row(vec![
            row.service.clone(),
            client,
            row.scope.to_owned(),
            row.backend.clone(),
            duration(row.idle),
            ends,
        ]);
    }
    table.render()
}
