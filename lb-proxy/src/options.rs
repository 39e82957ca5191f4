//! What counts for all connections and requests alike.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, StatusCode};
use lb_route::{
    Table,
    globals::{Client, Globals, Pool},
    headers::Headers,
    trace::Tracing,
};

/// Settings of the whole proxy: those of the ConfigMap that the data path reads itself.
#[derive(Clone, Debug)]
pub struct Options {
    /// Connections of clients.
    pub client: Client,
    /// How long a client may take between two reads of an answer (`send_timeout` of nginx, which
    /// has no key in the ConfigMap).
    pub send_timeout: Duration,
    /// Connections to endpoints.
    pub pool: Pool,
    /// Value of `Server` in answers; `None` for none at all, unless `backend_server`.
    pub server: Option<HeaderValue>,
    /// Whether `Server` of a backend goes to the client.
    pub backend_server: bool,
    /// Headers of backends that clients do not get.
    pub hidden: Vec<HeaderName>,
    /// Headers that every answer has.
    pub answer_headers: Headers,
    /// The settings that their variables follow.
    pub globals: Arc<Globals>,
    /// `Strict-Transport-Security`, of answers by TLS.
    pub hsts: Option<HeaderValue>,
    /// How requests are traced that no rule has.
    pub tracing: Tracing,
    /// Status of requests that come too fast.
    pub rate_status: StatusCode,
    /// Status of requests of which there are too many at once.
    pub connections_status: StatusCode,
    /// Status of requests that come too fast for all proxies together.
    pub overall_status: StatusCode,
}

/// What stands in `Server`, where that is wanted.
const SERVER: HeaderValue = HeaderValue::from_static("bascule");

impl From<&Arc<Globals>> for Options {
    fn from(globals: &Arc<Globals>) -> Self {
        Self {
            client: globals.client.clone(),
            send_timeout: Duration::from_secs(60),
            pool: globals.pool.clone(),
            server: globals.headers.server.then_some(SERVER),
            backend_server: globals.headers.backend_server,
            hidden: globals.headers.hidden.clone(),
            answer_headers: Vec::new(),
            globals: globals.clone(),
            hsts: globals.tls.hsts.header(),
            tracing: globals.defaults.tracing.clone(),
            rate_status: globals.rate_status,
            connections_status: globals.connections_status,
            overall_status: globals.overall_status,
        }
    }
}

impl From<&Table> for Options {
    fn from(table: &Table) -> Self {
        Self {
            answer_headers: table.answer_headers().clone(),
            ..Self::from(table.globals())
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::from(&Arc::new(Globals::default()))
    }
}
