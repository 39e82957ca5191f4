//! How connections end.

use std::time::Duration;

use tokio::sync::watch;

/// How far the end of the proxy is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Phase {
    /// It works.
    #[default]
    Open,
    /// There are no new connections, and those that are there end.
    Draining,
    /// They have ended.
    Over,
}

/// The connections of a proxy, which end when they are told to.
#[derive(Debug)]
pub(crate) struct Draining(watch::Sender<Phase>);

impl Default for Draining {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Open))
    }
}

impl Draining {
    /// What a connection has to hear; as long as there is one, it has not ended.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Phase> {
        self.0.subscribe()
    }

    /// Tells all to end after the request that they are at, and ends those that have not done so
    /// after a time (`worker-shutdown-timeout`). Whether there were none of them.
    pub(crate) async fn drain(&self, patience: Duration) -> bool {
        self.0.send_replace(Phase::Draining);
        let all = tokio::time::timeout(patience, self.0.closed()).await;
        self.0.send_replace(Phase::Over);
        all.is_ok()
    }
}
