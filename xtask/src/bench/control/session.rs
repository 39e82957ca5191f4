//! One proxy from its start to its end: what it takes to start, to change, and to start again.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::super::api::LAST;
use super::load::Client;
use super::net::{CLIENT_ADDR, World};
use super::proxy::{Kind, Means, Proxy, forget};
use super::rows::Figure;
use super::server::{CHANGING, STEADY, Server};

/// Connections a second beside which changes are measured.
const RATE: u32 = 2000;
/// Connections a second during a restart.
const RESTART_RATE: u32 = 200;
/// Changes a second of a busy cluster.
const CHURN: u32 = 100;
/// How often a command is given.
const COMMANDS: u32 = 7;
/// kube-proxy writes at most once a second (`minSyncPeriod`); the pause before a change is
/// longer, and not always the same, so that a change finds it idle.
const PAUSE: Duration = Duration::from_millis(1100);
/// The agent has no such period. Its pause lets a hundred changes be measured in a few seconds.
const SHORT: Duration = Duration::from_millis(40);

/// How long each part may take, in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// Until a proxy that starts serves.
    pub(super) start: u64,
    /// One change.
    pub(super) change: u64,
    /// Changes, one after the other.
    pub(super) changes: f64,
    /// The load during a restart.
    pub(super) restart: f64,
    /// Changes of a busy cluster; none for 0.
    pub(super) churn: f64,
}

/// What was measured.
pub(super) type Figures = HashMap<Figure, f64>;

/// What a session needs.
pub(super) struct Scene<'a> {
    pub(super) server: &'a mut Server,
    pub(super) means: &'a Means<'a>,
    pub(super) loadgen: &'a Path,
}

/// What runs in a session.
struct Session<'a, 'b> {
    scene: &'a mut Scene<'b>,
    kind: Kind,
    times: Times,
    world: World,
    /// Dials until another server answers.
    prober: Client,
    /// Opens connections at a rate.
    load: Client,
    /// Who is to answer, by number.
    now: usize,
    figures: Figures,
}

/// How long the first start takes, on a node that nobody has used before.
///
/// # Errors
/// The proxy ends, or does not serve in time.
pub(super) fn start_only(scene: &mut Scene<'_>, kind: Kind, times: Times) -> Result<Figures> {
    let mut session = Session::new(scene, kind, times)?;
    let proxy = session.cold()?;
    drop(proxy);
    session.end()
}

/// All of it.
///
/// # Errors
/// The proxy ends, or does not serve in time.
pub(super) fn run(scene: &mut Scene<'_>, kind: Kind, times: Times) -> Result<Figures> {
    let mut session = Session::new(scene, kind, times)?;
    let proxy = session.cold()?;
    let all = session
        .changes(&proxy)
        .and_then(|()| session.beside_load(&proxy))
        .and_then(|()| session.churn(&proxy))
        .and_then(|()| session.commands(&proxy));
    all.map_err(|e| proxy.failed(&e))?;
    let proxy = session.restart(proxy)?;
    drop(proxy);
    session.end()
}

impl<'a, 'b> Session<'a, 'b> {
    fn new(scene: &'a mut Scene<'b>, kind: Kind, times: Times) -> Result<Self> {
        forget(scene.means.dir)?;
        let cgroup = scene.means.cgroup;
        let world = World::make(cgroup, scene.loadgen)?;
        scene.server.change(0)?;
        scene.server.api.sent()?;
        Ok(Self {
            prober: Client::start(scene.loadgen, cgroup)?,
            load: Client::start(scene.loadgen, cgroup)?,
            scene,
            kind,
            times,
            world,
            now: 0,
            figures: Figures::new(),
        })
    }

    fn end(self) -> Result<Figures> {
        forget(self.scene.means.dir)?;
        Ok(self.figures)
    }

    fn set(&mut self, figure: Figure, value: f64) {
        self.figures.insert(figure, value);
    }

    /// From a node without any state to the first right answer.
    fn cold(&mut self) -> Result<Proxy> {
        let before = self.world.received()?;
        let proxy = Proxy::start(self.kind, self.scene.means)?;
        let measured = self.measure_cold(&proxy, before);
        measured.map_err(|e| proxy.failed(&e))?;
        Ok(proxy)
    }

    fn measure_cold(&mut self, proxy: &Proxy, before: f64) -> Result<()> {
        self.prober.until(STEADY.1, 0, self.times.start)?;
        let answered = self.prober.answered().context("no right answer")?;
        self.set(Figure::Cold, seconds(proxy.started_ns, answered));
        let cpu = proxy.rest()?;
        self.set(Figure::ColdCpu, cpu);
        self.set(Figure::ColdMemory, proxy.memory()?);
        self.set(
            Figure::Listed,
            (self.world.received()? - before) / 1048576.0,
        );
        if self.kind == Kind::Bascule {
            self.set(Figure::Maps, proxy.maps());
        }
        Ok(())
    }

    /// Changes of a node that has nothing else to do.
    fn changes(&mut self, proxy: &Proxy) -> Result<()> {
        let (cpu, received) = (proxy.cpu()?, self.world.received()?);
        let took = self.change_for(self.times.changes)?;
        let count = took.len() as f64;
        self.set(Figure::ChangeCpu, (proxy.cpu()? - cpu) * 1000.0 / count);
        let received = self.world.received()? - received;
        self.set(Figure::Watched, received / 1024.0 / count);
        self.set(Figure::Change, percentile(&took, 50));
        self.set(Figure::Change99, percentile(&took, 99));
        Ok(())
    }

    /// The same, while others dial another service.
    fn beside_load(&mut self, proxy: &Proxy) -> Result<()> {
        proxy.rest()?;
        let seconds = self.times.changes;
        self.load.load(STEADY.1, RATE, seconds + 1.0)?;
        // The load has begun by then, and goes on after the last change.
        std::thread::sleep(Duration::from_millis(300));
        let took = self.change_for(seconds - 0.3)?;
        let load = self.load.loaded()?;
        self.set(Figure::Beside, percentile(&took, 50));
        self.set(Figure::Beside99, percentile(&took, 99));
        self.set(Figure::Latency, load.latency_us.p999 / 1000.0);
        self.set(Figure::BesideFailed, load.failed() as f64);
        Ok(())
    }

    /// Changes one after the other for some time; at least two. Milliseconds of each.
    fn change_for(&mut self, seconds: f64) -> Result<Vec<f64>> {
        let pause = match self.kind {
            Kind::Bascule => SHORT,
            _ => PAUSE,
        };
        let start = Instant::now();
        let mut took = Vec::new();
        while took.len() < 2 || start.elapsed().as_secs_f64() < seconds {
            std::thread::sleep(pause + pause / 40 * (took.len() as u32 * 7 % 11));
            took.push(self.change()?);
        }
        Ok(took)
    }

    /// Milliseconds from the request of a change to the first connection that the new
    /// endpoint answers.
    fn change(&mut self) -> Result<f64> {
        self.now = 1 - self.now;
        self.prober.until(CHANGING.1, self.now, self.times.change)?;
        self.scene.server.change(self.now)?;
        let sent = self.scene.server.api.sent()?;
        let answered = self.prober.answered().context("the change is not served")?;
        Ok(seconds(sent, answered) * 1000.0)
    }

    /// Many changes a second, all over the cluster.
    fn churn(&mut self, proxy: &Proxy) -> Result<()> {
        if self.times.churn == 0.0 {
            return Ok(());
        }
        let before = proxy.rest()?;
        let (_, seconds) = self.scene.server.api.churn(CHURN, self.times.churn)?;
        self.set(Figure::ChurnCpu, (proxy.rest()? - before) * 60.0 / seconds);
        Ok(())
    }

    /// What an operator waits for: commands that read the maps.
    fn commands(&mut self, proxy: &Proxy) -> Result<()> {
        if self.kind != Kind::Bascule {
            return Ok(());
        }
        proxy.rest()?;
        // The name is the last in the agent's list.
        let to = format!("svc/{LAST}/{}:80", STEADY.0);
        let commands: [(Figure, &[&str]); 3] = [
            (Figure::Explain, &["explain", CLIENT_ADDR, &to]),
            (Figure::Status, &["status"]),
            (Figure::List, &["service", "list"]),
        ];
        for (figure, arguments) in commands {
            let took = (0..COMMANDS).map(|_| self.scene.means.ask(arguments));
            let took = took.collect::<Result<Vec<_>>>()?;
            self.set(figure, percentile(&took, 50));
        }
        Ok(())
    }

    /// A crash, a change while nobody is there, and the start of the next one.
    fn restart(&mut self, proxy: Proxy) -> Result<Proxy> {
        self.load.load(STEADY.1, RESTART_RATE, self.times.restart)?;
        std::thread::sleep(Duration::from_millis(300));
        proxy.kill();
        self.now = 1 - self.now;
        self.scene.server.change(self.now)?;
        self.scene.server.api.sent()?;
        let proxy = Proxy::start(self.kind, self.scene.means)?;
        let measured = self.measure_restart(&proxy);
        measured.map_err(|e| proxy.failed(&e))?;
        Ok(proxy)
    }

    fn measure_restart(&mut self, proxy: &Proxy) -> Result<()> {
        self.prober.until(CHANGING.1, self.now, self.times.start)?;
        let answered = self.prober.answered().context("not in sync")?;
        self.set(Figure::Restart, seconds(proxy.started_ns, answered));
        let cpu = proxy.rest()?;
        self.set(Figure::RestartCpu, cpu);
        self.set(Figure::RestartMemory, proxy.memory()?);
        let failed = self.load.loaded()?.failed();
        self.set(Figure::RestartFailed, failed as f64);
        Ok(())
    }
}

fn seconds(from_ns: u64, to_ns: u64) -> f64 {
    to_ns.saturating_sub(from_ns) as f64 / 1e9
}

/// The least value that so many in a hundred do not exceed.
fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(
            [50, 99, 100].map(|p| percentile(&values, p)),
            [100.0, 198.0, 200.0]
        );
        assert_eq!(percentile(&[3.0, 1.0], 50), 1.0);
    }
}
