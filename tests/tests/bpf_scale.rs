//! Programming at the size of a large cluster: 10,000 services with 100,000
//! endpoints. The bounds are for a debug build on a busy machine; run with
//! `--release -- --nocapture` for the figures.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bascule_tests::netns::Node;
use lb_common::{
    Addr, Backend, Be16, Be32, Frontend, FrontendKey, backend_flags,
    hash::{filter_bit, filter_kind},
    proto, scope,
};
use lb_plan::model::{Protocol, ServiceKey, ServicePortKey};
use lb_plan::op::{Batch, Op};
use lb_userspace::agent::state::{ServiceNames, StateDir};
use lb_userspace::bpf::{Datapath, MapSizes, Settings};
use lb_userspace::cli::args::Paths;
use lb_userspace::cli::top::{rates::Seen, read::read, state::View};

const SERVICES: u32 = 10_000;
const ENDPOINTS: u32 = 10;
/// Slots of a service: the next prime above 100 for each endpoint.
const SLOTS: u32 = 1009;

fn backend(id: u32) -> Backend {
    Backend {
        addr: Addr::v4(Be32::new(0x0a00_0000 + id)),
        port: Be16::new(8080),
        proto: proto::TCP,
        reserved: 0,
        flags: backend_flags::LIVE,
    }
}

fn vip(service: u32) -> Addr {
    Addr::v4(Be32::new(0x0a60_0000 + service))
}

fn key(service: u32, port: u16, scope: u8) -> FrontendKey {
    let protocol = if port == 0 { 0 } else { proto::TCP };
    FrontendKey {
        addr: vip(service),
        port: Be16::new(port),
        proto: protocol,
        scope,
    }
}

fn table(service: u32) -> Arc<[u32]> {
    let first = service * ENDPOINTS + 1;
    (0..SLOTS).map(|slot| first + slot % ENDPOINTS).collect()
}

/// A frontend, and the entry of its vip, in both scopes.
fn put_frontends(service: u32) -> impl Iterator<Item = Op> {
    let (slots, len) = (service * SLOTS, SLOTS);
    let value = Frontend {
        service: service + 1,
        flags: 0,
        slots,
        len,
        affinity: 0,
    };
    let alone = Frontend {
        slots: 0,
        len: 0,
        ..value
    };
    [scope::INTERNAL, scope::EXTERNAL]
        .into_iter()
        .flat_map(move |scope| {
            let vip = Op::PutFrontend {
                key: key(service, 0, scope),
                value: alone,
            };
            [
                Op::PutFrontend {
                    key: key(service, 80, scope),
                    value,
                },
                vip,
            ]
        })
}

fn set_bits(service: u32) -> impl Iterator<Item = Op> {
    let vip = (filter_kind::VIP, Be16::new(0), 0);
    let frontend = (filter_kind::FRONTEND, Be16::new(80), proto::TCP);
    [vip, frontend]
        .into_iter()
        .map(move |(kind, port, protocol)| {
            Op::SetFilterBit(filter_bit(kind, self::vip(service), port, protocol))
        })
}

/// As planning emits it: backends, tables, filter, frontends.
fn cluster() -> Batch {
    let backends = 1..=SERVICES * ENDPOINTS;
    let tables = |service| Op::PutSlots {
        start: service * SLOTS,
        slots: table(service),
    };
    let mut ops: Vec<Op> = backends.clone().map(Op::ResetBackendCounter).collect();
    ops.extend(backends.map(|id| Op::PutBackend {
        id,
        backend: backend(id),
    }));
    ops.extend((0..SERVICES).map(tables));
    ops.extend((0..SERVICES).flat_map(set_bits));
    ops.extend((0..SERVICES).flat_map(put_frontends));
    Batch { ops }
}

/// One endpoint of a service is replaced: a new table at a new place.
fn change(number: u32) -> Batch {
    let service = number * 37 % SERVICES;
    let id = SERVICES * ENDPOINTS + 1 + number;
    let mut slots = table(service).to_vec();
    slots
        .iter_mut()
        .step_by(ENDPOINTS as usize)
        .for_each(|slot| *slot = id);
    let start = (SERVICES + number) * SLOTS;
    let mut ops = vec![
        Op::ResetBackendCounter(id),
        Op::PutBackend {
            id,
            backend: backend(id),
        },
        Op::PutSlots {
            start,
            slots: slots.into(),
        },
        Op::SetFilterBit(number),
    ];
    for scope in [scope::INTERNAL, scope::EXTERNAL] {
        let value = Frontend {
            service: service + 1,
            flags: 0,
            slots: start,
            len: SLOTS,
            affinity: 0,
        };
        ops.push(Op::PutFrontend {
            key: key(service, 80, scope),
            value,
        });
    }
    let old = service * ENDPOINTS + 1;
    ops.push(Op::DeleteBackend {
        id: old,
        backend: backend(old),
    });
    Batch { ops }
}

/// CPU time of this thread: other work on the machine does not count.
fn cpu() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer leads to a timespec; the clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn program(datapath: &mut Datapath) {
    let batch = cluster();
    let before = resident();
    let (start, used) = (Instant::now(), cpu());
    let report = datapath.apply(&batch);
    let (full, used) = (start.elapsed(), cpu() - used);
    let grown = resident().saturating_sub(before) >> 20;
    assert!(report.is_complete(), "{:?}", &report.failed[..3]);
    let count = batch.ops.len();
    println!("{count} ops in {full:?}, {used:?} of CPU time; {grown} MiB more are resident");
    assert!(used.as_millis() < 3000, "{used:?}");
    assert!(grown < 24, "{grown} MiB");
}

fn change_endpoints(datapath: &mut Datapath) {
    let mut changes: Vec<Duration> = Vec::new();
    for number in 0..200 {
        let batch = change(number);
        let start = Instant::now();
        let report = datapath.apply(&batch);
        changes.push(start.elapsed());
        assert!(report.is_complete(), "{:?}", report.failed);
    }
    changes.sort_unstable();
    println!(
        "one change: median {:?}, 99th percentile {:?}",
        changes[100], changes[197]
    );
    assert!(changes[100].as_millis() < 5, "{:?}", changes[100]);
}

/// What `bascule top` reads every second.
fn watch(settings: &Settings) {
    let dir = tempfile::TempDir::new().unwrap();
    let paths = Paths {
        bpffs: settings.bpffs.clone(),
        state_dir: dir.path().to_owned(),
    };
    let name = |id: u32| ServicePortKey {
        service: ServiceKey {
            namespace: "default".into(),
            name: format!("service-{id}").into(),
        },
        port: "http".into(),
        protocol: Protocol::Tcp,
    };
    let names = ServiceNames {
        ports: (1..=SERVICES).map(|id| (id, name(id))).collect(),
        vips: Vec::new(),
    };
    StateDir::new(&paths.state_dir).write_names(&names).unwrap();
    let one = View::Backends {
        id: 5,
        name: String::new(),
    };
    for (view, count) in [
        (View::Services, SERVICES),
        (one, ENDPOINTS),
        (View::Node, 0),
    ] {
        let mut times: Vec<Duration> = Vec::new();
        for _ in 0..5 {
            let used = cpu();
            let reading = read(&paths, &view, Duration::ZERO).unwrap();
            times.push(cpu() - used);
            assert_eq!(reading.note, None);
            if let Seen::Counted(counted) = &reading.seen {
                assert_eq!(counted.len(), count as usize, "{view:?}");
                assert!(counted.iter().all(|c| !c.name.starts_with('#')), "{view:?}");
            }
        }
        times.sort_unstable();
        println!("{view:?} is read in {:?} of CPU time", times[2]);
        assert!(times[2].as_millis() < 500, "{view:?}: {times:?}");
    }
}

#[test]
fn a_large_cluster_is_programmed_at_once_and_changed_in_no_time() {
    let node = Node::new("scale").unwrap();
    let settings = Settings {
        sizes: MapSizes::default(),
        ..node.settings()
    };
    let (mut datapath, _) = node.load(&settings);
    program(&mut datapath);
    change_endpoints(&mut datapath);
    let views = node.views().unwrap();
    assert_eq!(views.frontends().unwrap().len(), 4 * SERVICES as usize);
    assert_eq!(
        views.backends().unwrap().len(),
        (SERVICES * ENDPOINTS) as usize
    );
    watch(&settings);
    drop(datapath);
    let start = Instant::now();
    let (_datapath, actual) = node.load(&settings);
    println!(
        "a restart reads {} frontends in {:?}",
        actual.frontends.len(),
        start.elapsed()
    );
    assert_eq!(actual.frontends.len(), 4 * SERVICES as usize);
    // One of these lies across two pieces of the mapping, of 2 MiB each.
    for service in [0, 259, 9999] {
        let mut found = vec![0; SLOTS as usize];
        actual.slots.read(service * SLOTS, &mut found);
        assert_eq!(found, *table(service), "{service}");
    }
}
