//! Running vectors, and comparing.

use std::fmt::Write as _;

use lb_common::{PacketCounter, Reason};
use lb_datapath::{Hook, Outcome, Step, V4, V6, Verdict, egress::egress, ingress};

use super::{
    dry,
    dump::State,
    kernel::Kernel,
    net,
    vector::{At, Exchange, Lane, Vector},
    world::World,
};
use crate::host::{Capacity, HostEnv, MemPacket, MemTables, Station};

/// Sizes of the maps in vectors, on the host and in the kernel.
pub const CAPACITY: Capacity = Capacity {
    conntrack: 1,
    services: 32,
    backends: 32,
    slots: 4096,
};

/// The host's clock, in ticks.
const NOW: u32 = 5_000_000;

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// The outcome.
    pub outcome: Outcome,
    /// The frame.
    pub bytes: Vec<u8>,
    /// The decisions on the way.
    pub steps: Vec<Step>,
}

/// The host, with the maps of a world.
#[derive(Debug)]
pub struct Host {
    /// The maps.
    pub tables: MemTables,
    world: World,
}

impl Host {
    /// A host.
    #[must_use]
    pub fn new(world: &World) -> Self {
        let mut tables = MemTables::new(CAPACITY);
        tables.filter = world.filter.iter().map(|(k, v)| (*k, *v)).collect();
        for bit in world.replies() {
            *tables.replies.get_mut().entry(bit / 64).or_default() |= 1 << (bit % 64);
        }
        tables.frontends = world.frontends.iter().map(|(k, v)| (*k, *v)).collect();
        tables.backends = world.backends.iter().map(|(k, v)| (*k, *v)).collect();
        tables.slots = world.slots.iter().map(|(k, v)| (*k, *v)).collect();
        tables.ranges.clone_from(&world.ranges);
        tables.node = Some(world.node);
        (tables.ct4, tables.ct6) = world.conntrack(NOW, CAPACITY.conntrack);
        tables.affinity = world
            .bindings(NOW)
            .into_iter()
            .collect::<std::collections::BTreeMap<_, _>>()
            .into();
        Self {
            tables,
            world: world.clone(),
        }
    }

    fn env<const DRY: bool>(&self, hook: Hook) -> HostEnv<DRY> {
        let mut env = HostEnv::new(hook, NOW);
        env.fib = net::fib();
        env.sockets.clone_from(&self.world.sockets);
        env
    }

    /// Runs a packet. With `DRY` it must leave no trace in the maps.
    pub fn run<const DRY: bool>(&self, x: &Exchange, lane: Lane) -> Ran {
        let hook = match (x.at, lane) {
            (At::Uplink, Lane::Xdp) => Hook::XDP,
            (At::Uplink | At::ToNet, _) => Hook::UPLINK,
            (At::Pod | At::ToPod, _) => Hook::POD,
        };
        let station = match (x.at, lane) {
            (At::Uplink, Lane::Tc) => Station::This(net::UP0.mac),
            (At::Uplink, Lane::Xdp) => Station::One,
            _ => Station::Any,
        };
        let env = self.env::<DRY>(hook);
        let mut p = MemPacket::new(&x.input)
            .gso(x.gso_size != 0)
            .station(station);
        let ether_type = x.input.get(12..14);
        let towards = matches!(x.at, At::Pod | At::Uplink);
        let t = &&self.tables;
        let outcome = match (ether_type, towards) {
            (Some([8, 0]), true) => ingress::ingress::<V4, _, _, _>(&mut p, t, &env),
            (Some([0x86, 0xdd]), true) => ingress::ingress::<V6, _, _, _>(&mut p, t, &env),
            (Some([8, 0]), false) => egress::<V4, _, _, _>(&mut p, t, &env),
            (Some([0x86, 0xdd]), false) => egress::<V6, _, _, _>(&mut p, t, &env),
            // What the programs' entry functions do.
            _ => Outcome::pass(Reason::NotOurs),
        };
        Ran {
            outcome,
            bytes: p.bytes().to_vec(),
            steps: env.steps.take(),
        }
    }

    /// What the dry program should say of a packet of TC: it takes none of another station's,
    /// and decides nothing about packets without ports.
    pub fn ask(&self, x: &Exchange) -> Ran {
        let (hook, device) = match x.at {
            At::Pod | At::ToPod => (Hook::POD, net::POD0),
            At::Uplink | At::ToNet => (Hook::UPLINK, net::UP0),
        };
        let env = self.env::<true>(hook);
        let mut p = MemPacket::new(&x.input)
            .gso(x.gso_size != 0)
            .station(Station::This(device.mac));
        let t = &&self.tables;
        let outcome = match x.input.get(12..14) {
            Some([8, 0]) => ingress::main::<V4, _, _, _>(&mut p, t, &env),
            _ => ingress::main::<V6, _, _, _>(&mut p, t, &env),
        };
        Ran {
            outcome,
            bytes: p.bytes().to_vec(),
            steps: env.steps.take(),
        }
    }

    /// What the datapath has written.
    #[must_use]
    pub fn state(&self) -> State {
        let t = &self.tables;
        let mut state = State::default();
        state.conntrack(NOW, &t.ct4, &t.ct6);
        state.replies(t.replies.borrow().clone());
        for (key, value) in t.affinity.borrow().iter() {
            state.bound(NOW, key, value);
        }
        for (reason, counter) in Reason::ALL.iter().zip(t.reasons.borrow().iter()) {
            state.reason(*reason, *counter);
        }
        for (id, counter) in t.services.borrow().iter() {
            state.counter("service", *id, *counter);
        }
        for (id, counter) in t.backend_counters.borrow().iter() {
            state.counter("backend", *id, *counter);
        }
        state.sorted()
    }
}

/// Runs a vector in a lane. Returns what differs, a text each.
pub fn run(vector: &Vector, lane: Lane, kernel: &mut Kernel) -> Vec<String> {
    let host = Host::new(&vector.world);
    let mut failures = Vec::new();
    if let Err(error) = kernel.fill(&vector.world) {
        failures.push(format!("the kernel's maps cannot be filled: {error:#}"));
    }
    for (index, x) in vector.exchanges.iter().enumerate() {
        let found = packet(x, lane, &host, kernel);
        failures.extend(found.map(|what| format!("packet {index}, {what}")));
    }
    let state = host.state();
    failures.extend(against_conntrack(vector, &state.conntrack));
    failures.extend(against_replies(&vector.world, &state));
    let title = vector.title();
    failures
        .into_iter()
        .map(|what| format!("{title} ({lane:?}): {what}"))
        .collect()
}

/// Runs a packet everywhere.
fn packet(
    x: &Exchange,
    lane: Lane,
    host: &Host,
    kernel: &mut Kernel,
) -> impl Iterator<Item = String> + use<> {
    let asked = dry::differences(x, lane, host, kernel);
    let dry = dry(x, lane, host);
    let before = host.tables.reasons.borrow().clone();
    let ran = host.run::<false>(x, lane);
    let counted = against_counters(x, lane, &before, &host.tables.reasons.borrow());
    let dry = dry.and_then(|dry| {
        let same = (dry.verdict, dry.reason) == (ran.outcome.verdict, ran.outcome.reason);
        let outcome = ran.outcome;
        (!same && !needs_record(outcome.reason))
            .then(|| format!("dry: {dry:?}, and then it is {outcome:?}"))
            .map_or(Ok(()), Err)
    });
    let on_host = against_expectation(x, lane, &ran);
    let in_kernel = against_kernel(x, lane, &ran, kernel);
    let maps = match kernel.state() {
        Ok(theirs) => differences(&host.state(), &theirs),
        Err(error) => Some(format!("the kernel's maps cannot be read: {error:#}")),
    };
    let on_host = on_host
        .into_iter()
        .chain(counted)
        .map(|what| format!("host: {what}"));
    let in_kernel = in_kernel.into_iter().map(|what| format!("kernel: {what}"));
    dry.err()
        .into_iter()
        .chain(on_host)
        .chain(asked)
        .chain(in_kernel)
        .chain(maps)
}

/// A dry run, which must leave the maps alone.
fn dry(x: &Exchange, lane: Lane, host: &Host) -> Result<Outcome, String> {
    let before = host.tables.writes.get();
    let ran = host.run::<true>(x, lane);
    if host.tables.writes.get() != before {
        return Err("dry: it writes to the maps".to_owned());
    }
    Ok(ran.outcome)
}

/// A packet counts once under its reason, with its bytes as it came; established
/// ones count by service and backend, and what is none of ours does not count.
fn against_counters(
    x: &Exchange,
    lane: Lane,
    before: &[PacketCounter],
    after: &[PacketCounter],
) -> Option<String> {
    let mut expected = before.to_vec();
    let reason = x.expected(lane).reason;
    let silent = [Reason::NotOurs, Reason::Established, Reason::Reply];
    if !silent.contains(&reason) {
        expected[reason as usize].packets += 1;
        expected[reason as usize].bytes += x.input.len() as u64;
    }
    let (is, be) = (after, &expected[..]);
    (is != be).then(|| {
        let reasons = Reason::ALL.iter().zip(is.iter().zip(be));
        let differs: Vec<String> = reasons
            .filter(|(_, (is, be))| is != be)
            .map(|(reason, (is, be))| format!("{reason:?} {is:?} instead of {be:?}"))
            .collect();
        format!("the counters: {}", differs.join(", "))
    })
}

fn against_conntrack(vector: &Vector, found: &[String]) -> Option<String> {
    let mut expected: Vec<String> = vector
        .conntrack
        .as_ref()?
        .iter()
        .map(ToString::to_string)
        .collect();
    expected.sort_unstable();
    let (is, be) = (found.join("\n  "), expected.join("\n  "));
    (found != expected).then(|| format!("conntrack is\n  {is}\nand should be\n  {be}"))
}

/// The filter of replies has the bits of all flows, and no others but of flows before.
fn against_replies(world: &World, state: &State) -> Option<String> {
    let missing: Vec<_> = state.needed.difference(&state.replies).collect();
    let before = world.replies();
    let strange = state.replies.difference(&state.needed);
    let strange: Vec<_> = strange.filter(|bit| !before.contains(bit)).collect();
    (!missing.is_empty() || !strange.is_empty()).then(|| {
        format!("of the filter of replies bits {missing:?} are missing, and {strange:?} are set")
    })
}

/// What differs between the maps of the host and of the kernel.
#[must_use]
pub fn differences(ours: &State, theirs: &State) -> Option<String> {
    let all = |s: &State| [s.conntrack.clone(), s.rest.clone()].concat();
    let only = |a: &State, b: &State, who: &str| -> String {
        let others = all(b);
        all(a)
            .iter()
            .filter(|line| !others.contains(line))
            .map(|line| format!("  {who}: {line}\n"))
            .collect()
    };
    let text = only(ours, theirs, "host") + &only(theirs, ours, "kernel");
    (ours != theirs).then(|| {
        let bits = [ours, theirs].map(|s| &s.replies);
        format!("the kernel's maps differ:\n{text}replies (host, kernel): {bits:?}")
    })
}

/// Outcomes that only the write of the flow finds out, which a dry run leaves.
fn needs_record(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ConntrackFull | Reason::ConntrackBusy | Reason::SnatExhausted
    )
}

fn against_expectation(x: &Exchange, lane: Lane, ran: &Ran) -> Vec<String> {
    let expected = x.expected(lane);
    let outcome = Outcome {
        verdict: expected.verdict,
        reason: expected.reason,
        ifindex: expected.ifindex,
    };
    let mut failures = Vec::new();
    if ran.outcome != outcome {
        failures.push(format!("{:?} instead of {outcome:?}", ran.outcome));
    }
    if outcome.verdict != Verdict::Drop && ran.bytes != expected.output {
        failures.push(format!(
            "the frame differs:\n{}",
            hex_diff(&expected.output, &ran.bytes)
        ));
    }
    failures
}

/// What differs in the kernel from what the host did with a packet.
pub fn against_kernel(x: &Exchange, lane: Lane, ran: &Ran, kernel: &mut Kernel) -> Vec<String> {
    if !super::kernel::takes(x, lane) {
        return Vec::new();
    }
    let (action, bytes) = match kernel.run(x, lane) {
        Ok(result) => result,
        Err(error) => return vec![format!("the program cannot be run: {error:#}")],
    };
    let mut failures = Vec::new();
    let expected = super::kernel::action(x, lane, ran.outcome);
    if action != expected {
        failures.push(format!(
            "it returns {action}, and {:?} would be {expected}",
            ran.outcome
        ));
    }
    if ran.outcome.verdict != Verdict::Drop && bytes != ran.bytes {
        failures.push(format!(
            "the frame differs:\n{}",
            hex_diff(&ran.bytes, &bytes)
        ));
    }
    failures
}

/// Two frames beside each other, a row for every 16 bytes that differ.
#[must_use]
pub fn hex_diff(expected: &[u8], found: &[u8]) -> String {
    let mut text = String::new();
    if expected.len() != found.len() {
        let (e, f) = (expected.len(), found.len());
        let _ = writeln!(text, "  {f} bytes instead of {e}");
    }
    for start in (0..expected.len().max(found.len())).step_by(16) {
        let row = |bytes: &[u8]| -> String {
            let end = (start + 16).min(bytes.len());
            let row = bytes.get(start..end).unwrap_or_default();
            row.iter().map(|b| format!("{b:02x} ")).collect()
        };
        let (e, f) = (row(expected), row(found));
        if e != f {
            let _ = writeln!(text, "  {start:04x} expected {e:48}\n       found    {f}");
        }
    }
    text
}
