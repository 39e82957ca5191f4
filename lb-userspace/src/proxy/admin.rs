//! What the admin address answers: health, metrics, and the status page.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use tokio::task::block_in_place;

use super::{
    metrics::Exposition,
    page::{self, Status},
    state::State,
};
use crate::http::{Answer, Handler, Place, serve};

/// Serves health and metrics.
///
/// # Errors
/// The address cannot be bound.
pub async fn run(address: SocketAddr, state: Arc<State>) -> anyhow::Result<()> {
    let answers = Answers::new(state);
    // With many thousand paths that takes its time, which other tasks of the thread do not have.
    let handler: Handler = Arc::new(move |path| block_in_place(|| answers.answer(path)));
    let place = Place::new("health and metrics", "--admin", address);
    serve(place, true, handler).await
}

/// What is answered.
pub struct Answers {
    state: Arc<State>,
    exposition: Exposition,
}

impl Answers {
    /// Of a proxy.
    pub fn new(state: Arc<State>) -> Self {
        let exposition = Exposition::new(&state);
        Self { state, exposition }
    }

    fn status(&self) -> Status {
        Status::of(&self.state, SystemTime::now())
    }

    /// What a path is answered; `None` where there is nothing.
    pub fn answer(&self, path: &str) -> Option<Answer> {
        Some(match path {
            "/healthz" | "/readyz" if self.state.is_ready() => Answer::text(200, "ok"),
            "/healthz" | "/readyz" => {
                Answer::text(503, "it does not serve: not yet, or not any more")
            }
            "/livez" => Answer::text(200, "ok"),
            "/metrics" => Answer {
                status: 200,
                content_type: "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
                headers: Vec::new(),
                body: self.exposition.text(),
            },
            "/" => page::answer(&self.status()),
            "/status.json" => Answer::json(200, self.status().json()),
            _ => return None,
        })
    }
}
