//! What is read from the maps at every scrape.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use lb_common::{Backend, PacketCounter, Reason, ServiceCounter, reason::Class};
use lb_plan::model::ServicePortKey;
use prometheus_client::{
    collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use crate::{bpf::failure::protocol_name, health::Health};

/// What the maps hold at one moment.
#[derive(Clone, Default, Debug)]
pub struct Readings {
    /// Packets and bytes by reason.
    pub reasons: Vec<(Reason, PacketCounter)>,
    /// What each service port carried.
    pub services: Vec<(ServicePortKey, ServiceCounter)>,
    /// Backends.
    pub backends: u64,
    /// What each backend carried.
    pub carried: Vec<(Backend, ServiceCounter)>,
}

/// Reads them, given the names of services.
pub type Reader = Box<dyn Fn(&BTreeMap<u32, ServicePortKey>) -> Readings + Send + Sync>;

/// Reads them, with the names of the moment.
pub type Source = Box<dyn Fn() -> Readings + Send + Sync>;

/// Turns readings into metrics.
pub(super) struct Collector {
    health: Arc<Health>,
    source: Source,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").finish_non_exhaustive()
    }
}

impl Collector {
    pub(super) fn new(health: Arc<Health>, source: Source) -> Self {
        Self { health, source }
    }

    fn health(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (name, answers) in [
            ("kubeproxy_proxy_healthz", &self.health.healthz),
            ("kubeproxy_proxy_livez", &self.health.livez),
        ] {
            let codes = ["200", "503"].into_iter().zip(answers);
            let values =
                codes.map(|(code, n)| (vec![("code", code.to_owned())], n.load(Ordering::Relaxed)));
            counters(encoder, name, "Answers to health checks, by status", values)?;
        }
        let now = SystemTime::now();
        let help = "1 for what /healthz of this agent is 503 for, by reason";
        let name = "bascule_unhealthy";
        let mut all = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (reason, is) in self.health.facts().faults(now) {
            let gauge = ConstGauge::new(i64::from(is));
            gauge.encode(all.encode_family(&[("reason", reason)])?)?;
        }
        let waiting = self.health.waiting_since().map_or(0.0, |since| {
            now.duration_since(since).map_or(0.0, |d| d.as_secs_f64())
        });
        let gauge = ConstGauge::new(waiting);
        let help = "Age in seconds of the oldest change that is not in the maps";
        gauge.encode(encoder.encode_descriptor(
            "bascule_sync_age_seconds",
            help,
            None,
            MetricType::Gauge,
        )?)
    }
}

impl collector::Collector for Collector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let readings = (self.source)();
        self.health(&mut encoder)?;
        reasons(&mut encoder, &readings.reasons)?;
        let of_services = readings.services.iter().map(|(key, c)| (service(key), *c));
        carried(&mut encoder, ("service", "a Service port"), of_services)?;
        let of_backends = readings.carried.iter().map(|(b, c)| (backend(b), *c));
        carried(&mut encoder, ("backend", "a backend"), of_backends)?;
        let help = "Backends that the maps hold";
        let backends = ConstGauge::new(readings.backends as i64);
        backends.encode(encoder.encode_descriptor(
            "bascule_backends",
            help,
            None,
            MetricType::Gauge,
        )?)
    }
}

type Labels = Vec<(&'static str, String)>;

fn counters(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = (Labels, u64)>,
) -> fmt::Result {
    let mut all = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in values {
        ConstCounter::new(value).encode(all.encode_family(&labels)?)?;
    }
    Ok(())
}

fn reasons(encoder: &mut DescriptorEncoder<'_>, all: &[(Reason, PacketCounter)]) -> fmt::Result {
    let class = |reason: Reason| match reason.class() {
        Class::Pass => "pass",
        Class::Refuse => "refuse",
        Class::Drop => "drop",
    };
    type Get = fn(&PacketCounter) -> u64;
    let both: [(&str, &str, Get); 2] = [
        (
            "bascule_packets",
            "Packets, by what was done with them and why",
            |c| c.packets,
        ),
        (
            "bascule_bytes",
            "Bytes, by what was done with them and why",
            |c| c.bytes,
        ),
    ];
    for (name, help, get) in both {
        let values = all.iter().map(|(reason, counter)| {
            let labels = vec![
                ("class", class(*reason).into()),
                ("reason", reason.label().into()),
            ];
            (labels, get(counter))
        });
        counters(encoder, name, help, values)?;
    }
    Ok(())
}

fn service(key: &ServicePortKey) -> Labels {
    vec![
        ("namespace", key.service.namespace.to_string()),
        ("service", key.service.name.to_string()),
        ("port", key.port.to_string()),
        ("protocol", format!("{:?}", key.protocol).to_uppercase()),
    ]
}

/// As `bascule backend list` writes it.
fn backend(backend: &Backend) -> Labels {
    let place = SocketAddr::new(backend.addr.into(), backend.port.get());
    vec![
        ("backend", place.to_string()),
        ("protocol", protocol_name(backend.proto).into_owned()),
    ]
}

/// What services or backends carried.
fn carried(
    encoder: &mut DescriptorEncoder<'_>,
    (name, noun): (&str, &str),
    all: impl Iterator<Item = (Labels, ServiceCounter)> + Clone,
) -> fmt::Result {
    type Get = fn(&ServiceCounter) -> u64;
    let three: [(&str, &str, Get); 3] = [
        ("packets", "Packets, both directions, of", |c| c.packets),
        ("bytes", "Bytes, both directions, of", |c| c.bytes),
        ("connections", "New flows of", |c| c.connections),
    ];
    for (what, help, get) in three {
        let values = all.clone().map(|(labels, c)| (labels, get(&c)));
        counters(
            encoder,
            &format!("bascule_{name}_{what}"),
            &format!("{help} {noun}"),
            values,
        )?;
    }
    Ok(())
}
