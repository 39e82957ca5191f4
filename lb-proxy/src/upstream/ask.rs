//! One request to one endpoint.

use std::{io, sync::Arc, time::Duration};

use http::{Response, StatusCode};
use tokio::time::Instant;

use crate::upstream::{Connect, Download, Failed, Outgoing, Parts, Pool, Target, What};

/// What comes of a request.
pub(crate) enum Reply<C: Connect> {
    /// An answer.
    Answer(Response<Download<C>>),
    /// The endpoint has changed the protocol.
    Switched(Response<()>, Parts<C::Io>),
}

/// How an endpoint is asked, and what is measured.
pub(crate) struct How {
    /// For a connection.
    pub(crate) connect_timeout: Duration,
    /// Whether no connection is taken that waits.
    pub(crate) fresh: bool,
    /// Until there was a connection.
    pub(crate) connected: Option<Duration>,
}

impl<C: Connect> Pool<C> {
    /// Sends a request, and waits for the head of the answer.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        target: Target<C::Tls>,
        outgoing: Box<Outgoing>,
        how: &mut How,
    ) -> Result<Reply<C>, Failed> {
        if target.h2 {
            // What is seldom is not to make every request's future large: so is what connects.
            Box::pin(self.ask_h2(target, outgoing, how)).await
        } else {
            self.ask_h1(target, outgoing, how).await
        }
    }

    async fn ask_h1(
        self: &Arc<Self>,
        target: Target<C::Tls>,
        outgoing: Box<Outgoing>,
        how: &mut How,
    ) -> Result<Reply<C>, Failed> {
        let waiting = if how.fresh { None } else { self.take(&target) };
        let mut lane = match waiting {
            Some(lane) => {
                how.connected = Some(Duration::ZERO);
                lane
            }
            None => within(how, Box::pin(self.open(&target))).await?,
        };
        let patience = outgoing.patience();
        let response = lane.ask(outgoing.request, &patience).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Reply::Switched(response, lane.into_parts()));
        }
        Ok(Reply::Answer(response.map(|()| {
            if lane.sends() {
                return Download::detached(*lane, patience);
            }
            let pool = self.clone();
            Download::by_lane(lane, (target, pool), patience.read)
        })))
    }

    async fn ask_h2(
        self: &Arc<Self>,
        target: Target<C::Tls>,
        outgoing: Box<Outgoing>,
        how: &mut How,
    ) -> Result<Reply<C>, Failed> {
        let there = if how.fresh {
            None
        } else {
            self.stream(&target)
        };
        let mut stream = match there {
            Some(stream) => {
                how.connected = Some(Duration::ZERO);
                stream
            }
            None => within(how, self.open_stream(&target)).await?,
        };
        let patience = outgoing.read_timeout;
        let response = stream.ask(outgoing).await?;
        let body = |incoming| Download::by_stream(incoming, stream, patience);
        Ok(Reply::Answer(response.map(body)))
    }
}

/// A connection that is made in time.
async fn within<T>(
    how: &mut How,
    connect: impl Future<Output = io::Result<T>>,
) -> Result<T, Failed> {
    let begun = Instant::now();
    let made = tokio::time::timeout(how.connect_timeout, connect).await;
    let made = made.map_err(|_| Failed::unsent(What::Timeout))?;
    how.connected = Some(begun.elapsed());
    made.map_err(|error| match error.kind() {
        // Of the system, which may be less patient.
        io::ErrorKind::TimedOut => Failed::unsent(What::Timeout),
        _ => Failed::unsent(What::Error),
    })
}
