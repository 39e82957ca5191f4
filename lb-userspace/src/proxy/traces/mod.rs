//! Traces: spans of requests, which are sent to a collector (`otlp-collector-host`).
//!
//! Where a request is in a trace, and whether its spans are kept, `lb-proxy` has found when it
//! came; here they are made when it is over, wait, and are sent together.

mod collector;
mod messages;
mod queue;
mod span;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use lb_proxy::Record;
use lb_route::globals::Globals;
use tokio::{sync::Mutex, time};

use self::{
    collector::{Collector, Error, Rejected, framed},
    messages::{KeyValue, Request, Resource, ResourceSpans, Scope, ScopeSpans},
    queue::{FATES, Fate, Queue},
};
use super::metrics::Identity;

/// Takes what is to be known of requests in traces, and has it sent.
#[derive(Debug)]
pub struct Traces {
    globals: ArcSwap<Globals>,
    identity: Identity,
    queue: Queue,
    exporter: Mutex<Exporter>,
}

/// Sends what waits.
#[derive(Debug, Default)]
struct Exporter {
    collector: Collector,
    /// What was taken from the queue, and has not been sent.
    batch: Option<Batch>,
    /// Whether it was said that the collector does not take spans.
    is_told: bool,
}

#[derive(Debug)]
struct Batch {
    message: Bytes,
    spans: u64,
}

impl Traces {
    /// Of a proxy, without a collector until [`Traces::set`].
    pub fn new(identity: Identity) -> Self {
        Self {
            globals: ArcSwap::from_pointee(Globals::default()),
            identity,
            queue: Queue::default(),
            exporter: Mutex::default(),
        }
    }

    /// From now on these settings count.
    pub fn set(&self, globals: Arc<Globals>) {
        self.globals.store(globals);
    }

    /// A request is over, at a machine of this name.
    pub fn done(&self, record: &Record, hostname: &str) {
        let Some(trace) = record.trace.as_ref().filter(|trace| trace.span.sampled) else {
            return;
        };
        let globals = self.globals.load();
        // The ConfigMap has a trouble then.
        if !globals.collector.host.is_empty() {
            let spans = span::of(record, trace, (&globals, hostname));
            self.queue.put(spans, &globals.collector);
        }
    }

    /// What has become of spans: by names, how many.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        FATES
            .map(|(name, fate)| (name, self.queue.counted(fate)))
            .into_iter()
    }

    /// Sends what comes, for ever.
    pub async fn run(&self) {
        let mut is_well = true;
        loop {
            let delay = time::sleep(self.globals.load().collector.delay);
            tokio::select! {
                () = self.queue.is_ready(), if is_well => {}
                () = delay => {}
            }
            is_well = self.flush().await;
        }
    }

    /// Sends what waits, if that takes no longer than `patience`; what is left is lost.
    pub async fn end(&self, patience: Duration) {
        // Whether or not it was in time: it ends.
        drop(time::timeout(patience, self.flush()).await);
        let batch = self.exporter.try_lock().ok();
        let batch = batch.and_then(|mut exporter| exporter.batch.take());
        let left = self.queue.take(usize::MAX).len() as u64;
        let left = left + batch.map_or(0, |batch| batch.spans);
        self.queue.count(Fate::Lost, left);
    }

    async fn flush(&self) -> bool {
        self.exporter.lock().await.flush(self).await
    }

    /// What is sent together, if something waits.
    fn batch(&self, globals: &Globals) -> Option<Batch> {
        let spans = self.queue.take(globals.collector.batch);
        let count = spans.len() as u64;
        let message = Request {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource(globals)),
                scope_spans: vec![ScopeSpans {
                    scope: Some(Scope {
                        name: "bascule".to_owned(),
                        version: env!("BASCULE_VERSION").to_owned(),
                    }),
                    spans,
                }],
            }],
        };
        (count > 0).then(|| Batch {
            message: framed(&message),
            spans: count,
        })
    }

    /// Who sends spans.
    fn resource(&self, globals: &Globals) -> Resource {
        let all = [
            ("service.name", &globals.collector.service),
            ("service.instance.id", &self.identity.pod),
            ("k8s.pod.name", &self.identity.pod),
            ("k8s.namespace.name", &self.identity.namespace),
        ];
        let all = all.into_iter().filter(|(_, value)| !value.is_empty());
        Resource {
            attributes: all.map(|(key, value)| KeyValue::text(key, value)).collect(),
        }
    }
}

impl Exporter {
    /// Sends until nothing waits; whether that is so, and the collector is not to be left alone.
    async fn flush(&mut self, traces: &Traces) -> bool {
        let globals = traces.globals.load_full();
        loop {
            self.batch = self.batch.take().or_else(|| traces.batch(&globals));
            let Some(batch) = &self.batch else {
                return true;
            };
            let message = batch.message.clone();
            let sent = self.collector.export(&globals.collector, message).await;
            let spans = batch.spans;
            match sent {
                Err(error) if error.is_passing() => {
                    self.tell(&globals, Err(&error));
                    return false;
                }
                Err(error) => {
                    traces.queue.count(Fate::Rejected, spans);
                    self.tell(&globals, Err(&error));
                }
                Ok(rejected) => {
                    let refused = rejected.spans.min(spans);
                    traces.queue.count(Fate::Rejected, refused);
                    traces.queue.count(Fate::Sent, spans - refused);
                    self.tell(&globals, Ok(&rejected));
                }
            }
            self.batch = None;
        }
    }

    /// Says once that spans are not taken, and once that they are again.
    fn tell(&mut self, globals: &Globals, sent: Result<&Rejected, &Error>) {
        let (host, port) = (&globals.collector.host, globals.collector.port);
        let is_well = sent.is_ok_and(|rejected| rejected.spans == 0);
        match sent {
            _ if is_well != self.is_told => {}
            Err(error) => tracing::warn!(
                "the collector of traces at {host}:{port} {error}; as long as that is so, spans \
                 beyond otel-max-queuesize are lost"
            ),
            Ok(rejected) if !is_well => {
                let Rejected { spans, why } = rejected;
                tracing::warn!(
                    "the collector of traces at {host}:{port} rejects {spans} spans: {why:?}"
                );
            }
            Ok(_) => tracing::info!("the collector of traces at {host}:{port} takes spans again"),
        }
        self.is_told = !is_well;
    }
}
