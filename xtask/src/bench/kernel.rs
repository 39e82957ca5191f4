//! The programs in the kernel, and how one of them is run many times.

use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Map, MapData, PerCpuArray, ProgramArray, RingBuf};
use aya::programs::{ProgramFd, SchedClassifier, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use bytemuck::{NoUninit, Zeroable as _};
use lb_common::conntrack::{buckets, elements};
use lb_common::monitor::{CONTROL, Control, EVENTS, taken};
use lb_common::schema::name;
use lb_common::{PacketCounter, Reason, ServiceCounter};

use super::cases::Watched;
use super::frame::{Frame, Whole};
use super::world;

/// Conntrack's maps.
const CONNTRACK: [&str; 2] = [name::lb_ct4_v1, name::lb_ct6_v1];

/// Where a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// XDP.
    Xdp,
    /// TC.
    Tc,
}

/// The datapath under measurement, and the programs that it is compared with.
pub(super) struct Kernel {
    lb: Ebpf,
    bench: Ebpf,
}

/// What to run: a program of the datapath, or one of those it is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// Of the datapath.
    Datapath(&'static str),
    /// Of the benchmark.
    Bench(&'static str),
}

/// What a number of runs gave.
#[derive(Clone, Debug)]
pub(super) struct Runs {
    /// Nanoseconds a run.
    pub(super) ns: f64,
    /// What the last run returned.
    pub(super) verdict: u32,
    /// The frame as the last run left it.
    pub(super) frame: Vec<u8>,
}

impl Kernel {
    /// Loads both objects, with maps that nobody else sees: conntrack has room for so many
    /// entries of each family.
    ///
    /// # Errors
    /// An object is missing or the kernel refuses a program.
    pub(super) fn load(object: &Path, bench: &Path, conntrack: u32) -> Result<Self> {
        let open = |loader: &mut EbpfLoader<'_>, path: &Path| {
            loader
                .load_file(path)
                .with_context(|| format!("cannot load {}: `cargo xtask build`", path.display()))
        };
        let buckets = buckets(conntrack);
        let mut loader = EbpfLoader::new();
        loader.override_global("CT_BUCKETS", &buckets, true);
        for name in CONNTRACK {
            loader.map_max_entries(name, elements(buckets));
        }
        let mut kernel = Self {
            lb: open(&mut loader, object)?,
            bench: open(&mut EbpfLoader::new(), bench)?,
        };
        for name in ["lb_xdp", "lb_up_ingress", "lb_pod_ingress", "lb_egress"] {
            load(&mut kernel.lb, name)?;
        }
        let own: Vec<String> = kernel.bench.programs().map(|(n, _)| n.to_owned()).collect();
        for name in &own {
            load(&mut kernel.bench, name)?;
        }
        world::fill(&mut kernel.lb)?;
        Ok(kernel)
    }

    /// Instructions of a program of the datapath that the verifier went through: every path
    /// counts, so that it is what a program has grown to, and what a load takes.
    ///
    /// # Errors
    /// The kernel does not tell (before 5.16).
    pub(super) fn verified(&self, program: &str) -> Result<u32> {
        let found = self.lb.program(program);
        let info = found
            .with_context(|| format!("the object has no program {program}"))?
            .info()?;
        info.verified_instruction_count()
            .context("this kernel does not count the instructions that it verifies")
    }

    /// Runs a program `repeat` times behind the front program, on flows from 0 on.
    ///
    /// # Errors
    /// A program is missing, or the kernel refuses to run it.
    pub(super) fn run(
        &mut self,
        hook: Hook,
        program: Program,
        frame: &Frame,
        (flows, repeat): (u32, u32),
    ) -> Result<Runs> {
        self.set("bench_front", &frame.front(flows, 0)?)?;
        let front = front_program(hook, frame);
        self.run_behind((hook, &front), program, &frame.bytes()?, repeat)
    }

    /// Runs a program `repeat` times on a frame that is restored whole, as far as it has headers.
    ///
    /// # Errors
    /// As [`Kernel::run`].
    pub(super) fn run_whole(
        &mut self,
        hook: Hook,
        program: Program,
        frame: &[u8],
        repeat: u32,
    ) -> Result<Runs> {
        self.set("bench_whole", &Whole::of(frame)?)?;
        let front = match hook {
            Hook::Xdp => "xdp_whole",
            Hook::Tc => "tc_whole",
        };
        self.run_behind((hook, front), program, frame, repeat)
    }

    fn run_behind(
        &mut self,
        (hook, front): (Hook, &str),
        program: Program,
        frame: &[u8],
        repeat: u32,
    ) -> Result<Runs> {
        self.aim(hook, program)?;
        let mut out = vec![0; 4096];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            repeat,
            ..TestRunOptions::default()
        };
        let refused = || format!("the kernel refuses to run {program:?} behind {front}");
        let found = self.bench.program(front).with_context(refused)?;
        let result = match hook {
            Hook::Xdp => <&Xdp>::try_from(found)?.test_run(options),
            Hook::Tc => <&SchedClassifier>::try_from(found)?.test_run(options),
        }
        .with_context(refused)?;
        out.truncate(result.data_size_out as usize);
        Ok(Runs {
            ns: result.duration.as_nanos() as f64,
            verdict: result.return_value,
            frame: out,
        })
    }

    /// Makes the front program call a program.
    fn aim(&mut self, hook: Hook, program: Program) -> Result<()> {
        let (object, name) = match program {
            Program::Datapath(name) => (&self.lb, name),
            Program::Bench(name) => (&self.bench, name),
        };
        let fd: ProgramFd = object
            .program(name)
            .with_context(|| format!("the object has no program {name}"))?
            .fd()?
            .try_clone()?;
        let map = match hook {
            Hook::Xdp => "bench_xdp",
            Hook::Tc => "bench_tc",
        };
        let map = self
            .bench
            .map_mut(map)
            .with_context(|| format!("the object has no map {map}"))?;
        ProgramArray::try_from(map)?
            .set(0, &fd, 0)
            .with_context(|| format!("cannot call {name} from the front program"))
    }

    /// Writes what a front program restores: the only element of one of its maps.
    fn set<T: NoUninit>(&mut self, map: &str, value: &T) -> Result<()> {
        world::put(&mut self.bench, map, 0, value)
    }

    /// Empties conntrack.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn forget_flows(&mut self) -> Result<()> {
        for name in CONNTRACK {
            let map = self
                .lb
                .map_mut(name)
                .with_context(|| format!("the object has no map {name}"))?;
            let Map::Array(data) = map else {
                bail!("the map {name} is no array");
            };
            let info = data.info()?;
            let bytes = info.value_size() as usize * info.max_entries() as usize;
            super::sys::zero(data.fd().as_fd(), bytes)
                .with_context(|| format!("cannot empty the map {name}"))?;
        }
        Ok(())
    }

    /// Looks at packets as `bascule monitor` does, or at none.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn watch(&mut self, watched: Option<Watched>) -> Result<()> {
        let mut control = Control::zeroed();
        // An object of before there was a monitor can be measured, too.
        if watched.is_none() && self.lb.map(CONTROL.name).is_none() {
            return Ok(());
        }
        if let Some(watched) = watched {
            // A tick that does not come.
            control.until = u64::from(u32::MAX);
            control.over = taken::OVER;
            control.every = watched.every;
            control.budget = watched.budget;
            control.reasons = watched.reasons;
        }
        world::put(&mut self.lb, CONTROL.name, 0, &control)
    }

    /// Packets that the monitor was told of since this was asked last.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn told(&mut self) -> Result<u64> {
        let Some(map) = self.lb.map_mut(EVENTS.name) else {
            return Ok(0);
        };
        let mut ring = RingBuf::try_from(map)?;
        let mut events = 0;
        while ring.next().is_some() {
            events += 1;
        }
        Ok(events)
    }

    /// The maps of the datapath.
    pub(super) fn maps(&mut self) -> &mut Ebpf {
        &mut self.lb
    }

    /// How often something happened to packets since the programs were loaded.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn counted(&self, reason: Reason) -> Result<u64> {
        const BYTES: usize = size_of::<PacketCounter>();
        let map = self
            .lb
            .map(name::lb_reasons_v1)
            .context("the object has no map of reasons")?;
        let map: PerCpuArray<&MapData, [u8; BYTES]> = PerCpuArray::try_from(map)?;
        let counter = |value: &[u8; BYTES]| bytemuck::cast::<_, PacketCounter>(*value).packets;
        Ok(map.get(&(reason as u32), 0)?.iter().map(counter).sum())
    }

    /// What all services together carried since the programs were loaded.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn carried(&self, services: u32) -> Result<ServiceCounter> {
        const BYTES: usize = size_of::<ServiceCounter>();
        let map = self
            .lb
            .map(name::lb_svc_ctr_v1)
            .context("the object has no map of services' counters")?;
        let map: PerCpuArray<&MapData, [u8; BYTES]> = PerCpuArray::try_from(map)?;
        let mut sum = ServiceCounter::default();
        for id in 0..=services {
            for value in map.get(&id, 0)?.iter() {
                let counter: ServiceCounter = bytemuck::cast(*value);
                sum.packets += counter.packets;
                sum.bytes += counter.bytes;
                sum.connections += counter.connections;
            }
        }
        Ok(sum)
    }
}

fn load(object: &mut Ebpf, name: &str) -> Result<()> {
    let program = object
        .program_mut(name)
        .with_context(|| format!("the object has no program {name}"))?;
    let loaded = match program {
        aya::programs::Program::Xdp(p) => p.load(),
        aya::programs::Program::SchedClassifier(p) => p.load(),
        _ => bail!("the program {name} is of a kind that is not measured"),
    };
    loaded.with_context(|| format!("the kernel refuses the program {name}"))?;
    ensure!(program.fd().is_ok(), "the program {name} has no descriptor");
    Ok(())
}

fn front_program(hook: Hook, frame: &Frame) -> String {
    let hook = match hook {
        Hook::Xdp => "xdp",
        Hook::Tc => "tc",
    };
    let place = if frame.reply { "to" } else { "from" };
    let family = if frame.is_v6() { 6 } else { 4 };
    format!("{hook}_{place}{family}")
}
