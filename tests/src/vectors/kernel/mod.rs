//! The programs in the kernel, run by `BPF_PROG_TEST_RUN` in a network
//! namespace of their own.

mod namespace;
mod object;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, TestRun as _,
    programs::{Program, SchedClassifier, TestRunOptions, TestRunResult, Xdp},
};
use lb_datapath::{Outcome, Verdict};

pub use namespace::{Namespace, in_namespace};
pub use object::{Maps, load};

use super::{
    dump::State,
    frame::udp,
    net::{Family, POD0, UP0, at},
    vector::{At, Exchange, Lane, Vector, untouched},
    world::{Front, World},
};

/// The loaded object.
pub struct Kernel {
    ebpf: Ebpf,
    maps: Maps,
    sockets: Vec<namespace::Socket>,
    /// The clock's reading, in ticks, and when it was read.
    clock: Option<(Instant, u32)>,
}

/// Words of `struct __sk_buff` (include/uapi/linux/bpf.h).
pub(super) const SKB_WORDS: usize = 48;
/// Words of its fields.
const SKB_IFINDEX: usize = 10;
const SKB_GSO_SEGS: usize = 41;
const SKB_GSO_SIZE: usize = 44;
/// Words of `struct xdp_md`.
const XDP_WORDS: usize = 6;
const XDP_DATA_END: usize = 1;
const XDP_INGRESS: usize = 3;

/// Room for a frame that comes back.
const OUT: usize = 4096;

fn program(at: At, lane: Lane) -> &'static str {
    match (at, lane) {
        (At::Pod, _) => "lb_pod_ingress",
        (At::Uplink, Lane::Tc) => "lb_up_ingress",
        (At::Uplink, Lane::Xdp) => "lb_xdp",
        (At::ToPod | At::ToNet, _) => "lb_egress",
    }
}

/// The device by which a packet comes or goes.
fn device(at: At) -> u32 {
    match at {
        At::Pod | At::ToPod => POD0.ifindex,
        At::Uplink | At::ToNet => UP0.ifindex,
    }
}

/// The context of a packet: `struct __sk_buff`.
pub(super) fn skb(x: &Exchange) -> Vec<u32> {
    let mut ctx = vec![0; SKB_WORDS];
    ctx[SKB_IFINDEX] = device(x.at);
    if x.gso_size != 0 {
        ctx[SKB_GSO_SIZE] = x.gso_size;
        ctx[SKB_GSO_SEGS] = (x.input.len() as u32).div_ceil(x.gso_size);
    }
    ctx
}

/// Whether `BPF_PROG_TEST_RUN` takes a frame. It wants a link header, and makes
/// no skb of a frame whose IP header is cut (net/bpf/test_run.c).
#[must_use]
pub fn takes(x: &Exchange, lane: Lane) -> bool {
    let header = match x.input.get(12..14) {
        None => return false,
        Some([8, 0]) => 20,
        Some([0x86, 0xdd]) => 40,
        Some(_) => 0,
    };
    program(x.at, lane) == "lb_xdp" || x.input.len() >= 14 + header
}

/// What the program of a hook returns for an outcome (`enum xdp_action`, and
/// `TC_ACT_*` of include/uapi/linux/pkt_cls.h).
#[must_use]
pub fn action(x: &Exchange, lane: Lane, outcome: Outcome) -> i32 {
    let same_device = outcome.ifindex == device(x.at);
    match (x.at, lane, outcome.verdict) {
        (At::Uplink, Lane::Xdp, Verdict::Drop) => 1,
        (At::Uplink, Lane::Xdp, Verdict::Pass) => 2,
        (At::Uplink, Lane::Xdp, Verdict::TurnAround) => 3,
        (At::Uplink, Lane::Xdp, Verdict::Redirect) if same_device => 3,
        (At::Uplink, Lane::Xdp, Verdict::Redirect) => 4,
        (At::Uplink, Lane::Xdp, Verdict::RedirectNeigh) => 0,
        (_, _, Verdict::Pass) => -1,
        (_, _, Verdict::Drop) => 2,
        (_, _, Verdict::TurnAround | Verdict::Redirect | Verdict::RedirectNeigh) => 7,
        (.., Verdict::Portless) => unreachable!("the whole pipeline decides"),
    }
}

impl Kernel {
    /// Loads the object, in a namespace that has the network of the vectors.
    ///
    /// # Errors
    /// The object is missing or the kernel refuses it.
    pub fn new(_in: &Namespace) -> Result<Self> {
        let mut ebpf = load()?;
        let maps = Maps::take(&mut ebpf)?;
        Ok(Self {
            ebpf,
            maps,
            sockets: Vec::new(),
            clock: None,
        })
    }

    /// Gives the maps the content of a world, and opens its sockets.
    ///
    /// # Errors
    /// The kernel refuses a write or a socket.
    pub fn fill(&mut self, world: &World) -> Result<()> {
        self.sockets.clear();
        for (proto, at) in &world.sockets {
            self.sockets.push(namespace::Socket::open(*proto, *at)?);
        }
        let now = self.now()?;
        self.maps.fill(world, now)
    }

    /// The datapath's clock, in ticks: it counts jiffies, which user space cannot
    /// read, so a packet is sent and its conntrack entry looked at.
    fn now(&mut self) -> Result<u32> {
        /// A tick is longer.
        const GOOD_FOR: Duration = Duration::from_millis(200);
        if let Some((at, now)) = self.clock
            && at.elapsed() < GOOD_FOR
        {
            return Ok(now);
        }
        let (client, front) = (at(Family::V4.client(1), 1), at(Family::V4.vip(1), 1));
        let backend = at(Family::V4.pod(1, 1), 1);
        let world = World::new()
            .backend(1, backend, 17, true)
            .front(&Front::new(1, front, 17).table(&[1]));
        self.maps.fill(&world, 0)?;
        let input = udp(client, front);
        let vector = Vector::new("", "", world).packet(At::Uplink, &input, untouched(&[]));
        self.run(&vector.exchanges[0], Lane::Tc)?;
        let now = self.maps.created().context("a packet that opens a flow")?;
        self.clock = Some((Instant::now(), now));
        Ok(now)
    }

    /// The clock's reading when the maps were filled: vectors take less than a tick.
    fn now_of_fill(&self) -> u32 {
        self.clock.map_or(0, |(_, now)| now)
    }

    /// What the datapath has written.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn state(&mut self) -> Result<State> {
        let now = self.now_of_fill();
        self.maps.state(now)
    }

    /// Runs the program of a packet's hook: what it returns, and the frame.
    ///
    /// # Errors
    /// The kernel cannot run it.
    pub fn run(&mut self, x: &Exchange, lane: Lane) -> Result<(i32, Vec<u8>)> {
        let name = program(x.at, lane);
        let mut out = vec![0; OUT.max(x.input.len())];
        let xdp = name == "lb_xdp";
        let ctx = if xdp {
            let mut ctx = vec![0u32; XDP_WORDS];
            ctx[XDP_DATA_END] = u32::try_from(x.input.len())?;
            ctx[XDP_INGRESS] = device(x.at);
            ctx
        } else {
            skb(x)
        };
        let mut options = TestRunOptions::new();
        options.data_in = Some(&x.input);
        options.data_out = Some(&mut out);
        options.ctx_in = Some(bytemuck::cast_slice(&ctx));
        let result = self.test_run(name, options)?;
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value.cast_signed(), out))
    }

    /// A program of the object.
    pub(super) fn program(&self, name: &str) -> Result<&Program> {
        let program = self.ebpf.program(name);
        program.with_context(|| format!("the object has no program {name}"))
    }

    fn test_run(&self, name: &str, options: TestRunOptions<'_>) -> Result<TestRunResult> {
        let program = self.program(name)?;
        let result = if name == "lb_xdp" {
            <&Xdp>::try_from(program)?.test_run(options)
        } else {
            <&SchedClassifier>::try_from(program)?.test_run(options)
        };
        result.with_context(|| format!("BPF_PROG_TEST_RUN of {name}"))
    }
}
