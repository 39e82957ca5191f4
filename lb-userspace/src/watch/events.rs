//! Kubernetes Events on objects that cannot be served as written: where the users
//! of an object look for them.
//!
//! The agents of all nodes find the same. An Event's name comes from what it says
//! and of which version of the object, so that the first agent writes it and the
//! others find it there, as does an agent that starts again. Nothing waits for an
//! Event: what comes too fast is left to the log, the metrics and `bascule status`.

use std::{
    fmt::Debug,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::{Duration, SystemTime},
};

use k8s_openapi::{
    api::{
        core::v1::{
            ConfigMap as ApiConfigMap, Node as ApiNode, ObjectReference, Secret as ApiSecret,
            Service as ApiService,
        },
        discovery::v1::EndpointSlice as ApiSlice,
        events::v1::Event,
        networking::v1::{Ingress as ApiIngress, IngressClass as ApiClass},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::mpsc,
    time::{self, Instant},
};

use super::{reflect, trouble::unreachable};
use crate::{
    backoff::Backoff,
    change::{Kind, Notice, ObjectKey},
};

/// What could not be done.
const ACTION: &str = "Serve";
/// Where Events on objects without a namespace are: client-go, tools/events.
const NO_NAMESPACE: &str = "default";
/// Bytes of a note: kubernetes v1.36.3, pkg/apis/core/validation/events.go.
const NOTE: usize = 1024;
/// Characters of an object's name that go into an Event's, of 253.
const NAME: usize = 200;
/// Events that are written at once, and then one each [`EVERY`]; client-go allows
/// an object 25, then one in 5 minutes (tools/record/events_cache.go).
const BURST: u32 = 25;
const EVERY: Duration = Duration::from_secs(10);
/// Agents that find the same at once write at different times within this, so that
/// all but the first find it written.
const SPREAD: Duration = Duration::from_secs(2);
/// Pauses while the API server does not take an Event.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Writes Events for as long as there are notices.
///
/// `reporter` is who finds what they say: `bascule-agent`.
pub async fn write(
    settings: reflect::Settings,
    reporter: &'static str,
    mut notices: mpsc::Receiver<Notice>,
) {
    // Who follows the cluster says what is wrong with its configuration.
    let Ok((client, url)) = reflect::client(&settings).await else {
        return;
    };
    let writer = Writer {
        client,
        url,
        reporter: [reporter.to_owned(), settings.node_name],
    };
    let mut budget = Budget::new();
    // Between one and two of them, less one.
    let mut spread = Backoff::new(2 * SPREAD, 2 * SPREAD);
    while let Some(notice) = notices.recv().await {
        time::sleep(spread.pause().saturating_sub(SPREAD)).await;
        budget.take().await;
        writer.insist(&notice).await;
    }
}

struct Writer {
    client: Client,
    url: String,
    /// Who it is, and where.
    reporter: [String; 2],
}

impl Writer {
    /// Writes an Event, again and again while the server does not take it.
    async fn insist(&self, notice: &Notice) {
        let mut backoff = Backoff::new(PAUSE, PAUSE_MAX);
        let mut told = false;
        while let Err(error) = self.write(notice).await {
            let message = match &error {
                kube::Error::Api(status) if status.is_forbidden() => format!(
                    "{}: let the agent's ServiceAccount create events of events.k8s.io",
                    status.message
                ),
                kube::Error::Api(status) if status.code < 500 && status.code != 429 => {
                    tracing::warn!(object = %notice.object, "{}: the Event is not written: {}", self.url, status.message);
                    return;
                }
                error => unreachable(&self.url, error),
            };
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(
                    "Events cannot be written: {message}; what they would say is here and in `bascule status`"
                );
            }
            time::sleep(backoff.pause()).await;
        }
    }

    async fn write(&self, notice: &Notice) -> kube::Result<()> {
        // An object that is gone needs no Event.
        let Some(meta) = self.meta(&notice.object).await? else {
            return Ok(());
        };
        let event = event(notice, meta, &self.reporter);
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let api = Api::<Event>::namespaced(self.client.clone(), &namespace);
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => Ok(()),
            // Another node's agent, or this one's predecessor, has said it.
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn meta(&self, key: &ObjectKey) -> kube::Result<Option<ObjectMeta>> {
        let (client, namespace) = (self.client.clone(), &key.namespace);
        match key.kind {
            Kind::Service => meta(Api::<ApiService>::namespaced(client, namespace), key).await,
            Kind::EndpointSlice => meta(Api::<ApiSlice>::namespaced(client, namespace), key).await,
            Kind::Node => meta(Api::<ApiNode>::all(client), key).await,
            Kind::Ingress => meta(Api::<ApiIngress>::namespaced(client, namespace), key).await,
            Kind::IngressClass => meta(Api::<ApiClass>::all(client), key).await,
            Kind::Secret => meta(Api::<ApiSecret>::namespaced(client, namespace), key).await,
            Kind::ConfigMap => meta(Api::<ApiConfigMap>::namespaced(client, namespace), key).await,
        }
    }
}

/// What an object is, by a list of one: the agent need not be allowed to `get`.
async fn meta<K>(api: Api<K>, key: &ObjectKey) -> kube::Result<Option<ObjectMeta>>
where
    K: Clone + DeserializeOwned + Debug,
{
    let one = ListParams::default().fields(&format!("metadata.name={}", key.name));
    let found = api.list_metadata(&one).await?;
    Ok(found.items.into_iter().next().map(|object| object.metadata))
}

/// The Event that says a notice of an object.
fn event(notice: &Notice, meta: ObjectMeta, [reporter, place]: &[String; 2]) -> Event {
    let key = &notice.object;
    let mut digest = DefaultHasher::new();
    (
        &meta.uid,
        &meta.resource_version,
        notice.reason,
        &notice.message,
    )
        .hash(&mut digest);
    let stem: String = key.name.chars().take(NAME).collect();
    let namespace = match &*key.namespace {
        "" => NO_NAMESPACE.to_owned(),
        namespace => namespace.to_owned(),
    };
    let regarding = ObjectReference {
        api_version: Some(api_version(key.kind).to_owned()),
        kind: Some(key.kind.name().to_owned()),
        name: meta.name,
        namespace: meta.namespace,
        uid: meta.uid,
        resource_version: meta.resource_version,
        ..ObjectReference::default()
    };
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{stem}.{:016x}", digest.finish())),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        regarding: Some(regarding),
        type_: Some("Warning".to_owned()),
        reason: Some(notice.reason.to_owned()),
        action: Some(ACTION.to_owned()),
        note: Some(cut(&notice.message, NOTE).to_owned()),
        event_time: Timestamp::try_from(SystemTime::now()).ok().map(MicroTime),
        reporting_controller: Some(reporter.clone()),
        reporting_instance: Some(cut(place, 128).to_owned()),
        ..Event::default()
    }
}

fn api_version(kind: Kind) -> &'static str {
    match kind {
        Kind::Service | Kind::Node | Kind::Secret | Kind::ConfigMap => "v1",
        Kind::Ingress | Kind::IngressClass => "networking.k8s.io/v1",
        Kind::EndpointSlice => "discovery.k8s.io/v1",
    }
}

/// The longest start of a text that has at most so many bytes.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// How many Events may be written.
struct Budget {
    left: u32,
    /// When the next one is added.
    next: Instant,
}

impl Budget {
    fn new() -> Self {
        let (left, next) = (BURST, Instant::now() + EVERY);
        Self { left, next }
    }

    /// Waits for one.
    async fn take(&mut self) {
        if self.left == 0 {
            time::sleep_until(self.next).await;
        }
        while self.next <= Instant::now() {
            self.left = (self.left + 1).min(BURST);
            self.next += EVERY;
        }
        self.left -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(message: &str) -> Notice {
        Notice {
            object: ObjectKey {
                kind: Kind::EndpointSlice,
                namespace: "shop".into(),
                name: "web-x7".into(),
            },
            reason: "UnknownProtocol",
            message: message.to_owned(),
        }
    }

    fn reporter(node: &str) -> [String; 2] {
        ["bascule-agent", node].map(str::to_owned)
    }

    fn meta(version: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some("web-x7".into()),
            namespace: Some("shop".into()),
            uid: Some("0f".into()),
            resource_version: Some(version.into()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn two_agents_name_the_same_event_alike_and_another_version_otherwise() {
        let name = |message, version, node| {
            let event = event(&notice(message), meta(version), &reporter(node));
            event.metadata.name.unwrap()
        };
        let first = name("is bad", "7", "n1");
        assert!(first.starts_with("web-x7."), "{first}");
        assert_eq!(first, name("is bad", "7", "n2"));
        assert_ne!(first, name("is bad", "8", "n1"));
        assert_ne!(first, name("is worse", "7", "n1"));
    }

    #[test]
    fn an_event_is_beside_its_object_and_short_enough() {
        let event = event(&notice(&"ä".repeat(2000)), meta("7"), &reporter("n1"));
        assert_eq!(event.metadata.namespace.as_deref(), Some("shop"));
        let regarding = event.regarding.unwrap();
        assert_eq!(regarding.kind.as_deref(), Some("EndpointSlice"));
        assert_eq!(regarding.uid.as_deref(), Some("0f"));
        assert_eq!(event.note.unwrap().len(), NOTE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_written_at_once_and_then_one_now_and_then() {
        let mut budget = Budget::new();
        let start = Instant::now();
        for _ in 0..BURST {
            budget.take().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        budget.take().await;
        budget.take().await;
        assert_eq!(start.elapsed(), 2 * EVERY);
        time::sleep(100 * EVERY).await;
        let rested = Instant::now();
        for _ in 0..BURST {
            budget.take().await;
        }
        assert_eq!(rested.elapsed(), Duration::ZERO);
    }
}
