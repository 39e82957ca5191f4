//! Random clusters: services with random shapes, and what happens to them.

use std::collections::BTreeMap;

use lb_plan::{Limits, Planner, ServicePlan, model::*, op::Op, plan_service};
use proptest::prelude::*;

use super::{
    endpoint, ips, key, local, maps::Maps, node, port, serving_terminating, slice, unready,
};

/// Room for everything, in small batches.
pub(crate) fn roomy() -> Limits {
    Limits {
        slots: 30_000,
        grace: 1,
        batch_slots: 600,
        ..Limits::default()
    }
}

/// Services that a world may have.
pub(crate) const SERVICES: u8 = 6;

/// What varies about a service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    /// Host part and state of each endpoint.
    pub(crate) endpoints: Vec<(u8, u8)>,
    pub(crate) internal_local: bool,
    pub(crate) external_local: bool,
    pub(crate) node_port: bool,
    /// A load-balancer IP, and which source ranges.
    pub(crate) load_balancer: Option<u8>,
    /// An external IP that other services may claim too.
    pub(crate) shared: Option<u8>,
    pub(crate) affinity: bool,
    pub(crate) udp: bool,
    pub(crate) dual_stack: bool,
    pub(crate) weighted: bool,
}

pub(crate) fn shape() -> impl Strategy<Value = Shape> {
    let endpoints = prop::collection::vec((0..7u8, 0..8u8), 0..5);
    let flags = (any::<[bool; 4]>(), any::<[bool; 3]>());
    let lb = prop::option::of(0..4u8);
    (endpoints, flags, lb).prop_map(
        |(endpoints, ([a, b, c, d], [e, f, g]), load_balancer)| Shape {
            endpoints,
            internal_local: a,
            external_local: b,
            node_port: c,
            load_balancer,
            shared: None,
            affinity: d,
            udp: e,
            dual_stack: f,
            weighted: g,
        },
    )
}

/// A shape with an external IP that is the same for many services.
pub(crate) fn contested() -> impl Strategy<Value = Shape> {
    (shape(), 0..2u8).prop_map(|(shape, ip)| Shape {
        shared: Some(ip),
        ..shape
    })
}

fn shape_endpoint(host: u8, state: u8, weighted: bool) -> Endpoint {
    let addr = format!("10.1.0.{}", host + 1);
    let ep = if state & 1 == 0 {
        endpoint(&addr)
    } else {
        local(&addr)
    };
    let ep = Endpoint {
        weight: if weighted { u32::from(state) } else { 1 },
        ..ep
    };
    match state >> 1 {
        2 => serving_terminating(ep),
        3 => unready(ep),
        _ => ep,
    }
}

fn v6(ep: &Endpoint) -> Endpoint {
    let last = ep.addresses[0]
        .to_string()
        .rsplit('.')
        .next()
        .unwrap_or("1")
        .to_owned();
    Endpoint {
        addresses: ips(&[&format!("fd01::{last}")]),
        ..ep.clone()
    }
}

/// The plan of the service with a number and a shape.
pub(crate) fn plan(number: u8, shape: &Shape) -> ServicePlan {
    let name = format!("ns/s{number}");
    let endpoints: Vec<_> = shape
        .endpoints
        .iter()
        .map(|&(host, state)| shape_endpoint(host, state, shape.weighted))
        .collect();
    let ports = ["a:8080/TCP", "b:5353/UDP"];
    let mut slices = vec![slice(&name, "four", &ports, endpoints.clone())];
    if shape.dual_stack {
        slices.push(slice(
            &name,
            "six",
            &ports,
            endpoints.iter().map(v6).collect(),
        ));
    }
    let slices: Vec<_> = slices.iter().collect();
    plan_service(&shape_service(&name, number, shape), &slices, &node())
}

fn shape_service(name: &str, number: u8, shape: &Shape) -> Service {
    let mut svc = super::service(name, &[&format!("10.96.0.{}", number + 1)]);
    if shape.dual_stack {
        svc.cluster_ips
            .extend(ips(&[&format!("fd10::{}", number + 1)]));
    }
    let node_port = if shape.node_port {
        30_000 + u16::from(number)
    } else {
        0
    };
    svc.ports = vec![port(&format!("a:80/TCP>{node_port}"))];
    if shape.udp {
        svc.ports.push(port("b:53/UDP"));
    }
    if let Some(ranges) = shape.load_balancer {
        svc.kind = ServiceType::LoadBalancer;
        let ip = ips(&[&format!("203.0.113.{number}")])[0];
        svc.load_balancer = vec![LoadBalancerIngress {
            ip,
            proxy_mode: false,
        }];
        svc.source_ranges = (0..ranges).map(|n| format!("198.51.{n}.0/24")).collect();
    }
    if let Some(ip) = shape.shared {
        svc.external_ips = ips(&[&format!("192.0.2.{ip}")]);
    }
    svc.affinity_seconds = shape.affinity.then_some(60);
    let policy = |local| {
        if local {
            TrafficPolicy::Local
        } else {
            TrafficPolicy::Cluster
        }
    };
    svc.internal_policy = policy(shape.internal_local);
    svc.external_policy = policy(shape.external_local);
    svc
}

/// What happens.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Upsert(u8, Shape),
    Remove(u8),
    Tick,
    /// A batch is executed.
    Apply,
    /// The agent dies after some writes of a batch, in per cent, and starts again.
    Crash(u8),
}

pub(crate) fn events(
    shapes: impl Strategy<Value = Shape>,
    crashes: bool,
) -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (0..SERVICES, shapes).prop_map(|(n, s)| Event::Upsert(n, s)),
        2 => (0..SERVICES).prop_map(Event::Remove),
        1 => Just(Event::Tick),
        4 => Just(Event::Apply),
        if crashes { 2 } else { 0 } => (0..=100u8).prop_map(Event::Crash),
    ];
    prop::collection::vec(event, 1..30)
}

/// A planner, the maps that its batches reach, and the services there are.
pub(crate) struct World {
    pub(crate) planner: Planner,
    pub(crate) maps: Maps,
    pub(crate) services: BTreeMap<u8, Shape>,
    limits: Limits,
    generation: u64,
}

impl World {
    pub(crate) fn new(limits: Limits) -> Self {
        let mut planner = Planner::new(limits);
        planner.finish_sync();
        let maps = Maps::new(limits);
        Self {
            planner,
            maps,
            services: BTreeMap::new(),
            limits,
            generation: 0,
        }
    }

    /// A world in which these services were there from the start.
    pub(crate) fn of(limits: Limits, services: &BTreeMap<u8, Shape>) -> Self {
        let mut world = Self::new(limits);
        world.services = services.clone();
        world.restart();
        world.drain();
        world
    }

    pub(crate) fn happen(&mut self, event: Event) {
        match event {
            Event::Upsert(n, shape) => {
                self.planner.upsert(plan(n, &shape));
                self.services.insert(n, shape);
            }
            Event::Remove(n) => {
                self.planner.remove(&key(&format!("ns/s{n}")));
                self.services.remove(&n);
            }
            Event::Tick => self.tick(),
            Event::Apply => {
                let batch = self.planner.take_batch();
                self.maps.execute(&batch);
                self.maps.check();
            }
            Event::Crash(percent) => {
                let batch = self.planner.take_batch();
                let done = batch.ops.len() * usize::from(percent) / 100;
                batch.ops[..done].iter().for_each(|op| self.maps.write(op));
                self.maps.check();
                self.restart();
            }
        }
    }

    pub(crate) fn tick(&mut self) {
        self.generation += 1;
        self.planner.tick(self.generation);
    }

    /// A new planner that knows nothing but the maps and the services.
    pub(crate) fn restart(&mut self) {
        self.planner = Planner::restore(self.limits, self.maps.actual());
        for (n, shape) in &self.services {
            self.planner.upsert(plan(*n, shape));
        }
        assert_eq!(
            self.planner.take_batch().ops,
            [],
            "no writes before the sync"
        );
        self.planner.finish_sync();
    }

    /// Executes batches until there are no more: every write that was made.
    pub(crate) fn drain(&mut self) -> Vec<Op> {
        let mut ops = Vec::new();
        for round in 0.. {
            assert!(round < 1000, "batches do not end");
            if !self.planner.has_pending() {
                break;
            }
            let batch = self.planner.take_batch();
            self.maps.execute(&batch);
            ops.extend(batch.ops);
        }
        self.maps.check();
        self.maps.are_expected(&self.planner);
        ops
    }
}
