//! A load: transactions as fast as they are answered, or at a rate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::http::Asks;
use super::measure::{Cpu, Tally};
use super::proto::{Mode, Outcome, Run};
use super::slot::{Slot, Step};
use super::sockets::Watcher;

/// How often it is looked for transactions that take too long.
const SWEEP: Duration = Duration::from_millis(10);
/// How long a slot rests after a failure: what fails at once would fail a million times.
const REST: Duration = Duration::from_millis(1);

/// Runs a load to its end.
///
/// # Errors
/// There are too few descriptors, or no /proc.
pub(crate) fn run(run: &Run) -> Result<Outcome> {
    Engine::new(run.clone())?.go()
}

/// Loads of several targets by turns. What is kept of each are its connections.
#[derive(Default)]
pub(crate) struct Turns {
    engines: Vec<Engine>,
}

impl Turns {
    /// A turn of a load, over the connections of its turn before. Another kind of load ends those
    /// of all others.
    ///
    /// # Errors
    /// There are too few descriptors, or no /proc.
    pub(crate) fn take(&mut self, run: &Run) -> Result<Outcome> {
        let target = run.target;
        let alike = |engine: &Engine| {
            let there = Run {
                target,
                ..engine.run.clone()
            };
            there == *run
        };
        self.engines.retain(alike);
        let found = self.engines.iter().position(|e| e.run.target == target);
        let at = match found {
            Some(at) => at,
            None => {
                self.engines.push(Engine::new(run.clone())?);
                self.engines.len() - 1
            }
        };
        self.engines[at].go()
    }
}

/// When something is due: the load's clock.
struct Schedule {
    start: Instant,
    /// From here on it is measured.
    from: Instant,
    /// Until here.
    to: Instant,
    rate: Option<u32>,
    /// Transactions that were due so far.
    begun: u64,
}

impl Schedule {
    fn new(run: &Run, now: Instant) -> Self {
        let from = now + Duration::from_secs_f64(run.warmup.max(0.0));
        Self {
            start: now,
            from,
            to: from + Duration::from_secs_f64(run.seconds.max(0.001)),
            rate: run.rate,
            begun: 0,
        }
    }

    /// When the next transaction is due; `None`: never again.
    fn next(&self, now: Instant) -> Option<Instant> {
        let due = match self.rate {
            Some(rate) => {
                self.start + Duration::from_nanos(self.begun * 1_000_000_000 / u64::from(rate))
            }
            None => now,
        };
        (due < self.to).then_some(due)
    }

    /// Whether a transaction is measured that began, or was due, and was answered then.
    fn counts(&self, since: Instant, answered: Instant) -> bool {
        let decisive = if self.rate.is_some() { since } else { answered };
        (self.from..self.to).contains(&decisive)
    }
}

struct Engine {
    run: Run,
    watcher: Watcher,
    schedule: Schedule,
    timeout: Duration,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Slots that failed, and when they may begin again.
    resting: Vec<(Instant, usize)>,
    tally: Tally,
    swept: Instant,
}

impl Engine {
    fn new(run: Run) -> Result<Self> {
        ensure!(run.connections > 0, "no connections: nothing would happen");
        ensure!(run.rate != Some(0), "a rate of 0: nothing would happen");
        let bulk_at_rate = run.mode == Mode::Bulk && run.rate.is_some();
        ensure!(!bulk_at_rate, "bytes have no rate of transactions");
        let now = Instant::now();
        let count = run.connections as usize;
        let asks = match run.mode {
            Mode::Get | Mode::Tls => {
                let with_tls = run.mode == Mode::Tls;
                Some(Arc::new(Asks::new(&run.host, &run.path, with_tls)?))
            }
            Mode::Crr | Mode::Rr | Mode::Urr | Mode::Bulk => None,
        };
        Ok(Self {
            watcher: Watcher::new()?,
            schedule: Schedule::new(&run, now),
            timeout: Duration::from_millis(run.timeout_ms),
            slots: (0..count)
                .map(|n| Slot::new(run.mode, n as u64, asks.as_ref(), now))
                .collect(),
            free: (0..count).rev().collect(),
            resting: Vec::new(),
            tally: Tally::new()?,
            swept: now,
            run,
        })
    }

    /// The load from its warm-up on; connections that it leaves are used by the next one.
    fn go(&mut self) -> Result<Outcome> {
        self.schedule = Schedule::new(&self.run, Instant::now());
        self.until(self.schedule.from)?;
        let (cpu, from) = (Cpu::now()?, Instant::now());
        self.until(self.schedule.to)?;
        let (cpu_seconds, seconds) = (cpu.busy_since()?, from.elapsed().as_secs_f64());
        // What is unanswered may be so for ever: that is a failure, and not the end of the
        // measurement.
        let patience = Instant::now() + self.timeout + SWEEP;
        while !self.is_done() && Instant::now() < patience {
            self.turn(patience)?;
        }
        while self.schedule.next(self.schedule.to).is_some() {
            self.schedule.begun += 1;
            self.tally.failed("timeout");
        }
        let tally = std::mem::replace(&mut self.tally, Tally::new()?);
        Ok(tally.outcome(seconds, cpu_seconds))
    }

    fn until(&mut self, end: Instant) -> Result<()> {
        while Instant::now() < end {
            self.turn(end)?;
        }
        Ok(())
    }

    /// Whether nothing is due or awaited any more.
    fn is_done(&self) -> bool {
        let due = self.schedule.next(Instant::now()).is_some();
        !due && !self.slots.iter().any(Slot::is_waiting)
    }

    /// Begins what is due, and waits for events, at most until `end`.
    fn turn(&mut self, end: Instant) -> Result<()> {
        let now = Instant::now();
        self.wake(now);
        self.begin(now);
        for number in self.watcher.wait(Some(self.patience(end)))? {
            let number = number as usize;
            let step = self.slots[number].go_on();
            self.account(number, step);
        }
        self.sweep(Instant::now());
        Ok(())
    }

    /// Until when nothing has to be done unless something happens.
    fn patience(&self, end: Instant) -> Duration {
        let now = Instant::now();
        let due = match self.free.is_empty() {
            true => None,
            false => self.schedule.next(now),
        };
        let resting = self.resting.iter().map(|(at, _)| *at).min();
        let next = [Some(end), Some(self.swept + SWEEP), due, resting];
        let next = next.into_iter().flatten().min().unwrap_or(end);
        next.saturating_duration_since(now)
    }

    fn begin(&mut self, now: Instant) {
        while let Some(due) = self.schedule.next(now).filter(|due| *due <= now) {
            let Some(number) = self.free.pop() else {
                return;
            };
            self.schedule.begun += 1;
            let slot = &mut self.slots[number];
            (slot.since, slot.until) = (due, now + self.timeout);
            let step = slot.begin(&self.watcher, self.run.target);
            self.account(number, step);
        }
    }

    fn account(&mut self, number: usize, step: Step) {
        let now = Instant::now();
        match step {
            Step::Goes => {}
            Step::Sent(bytes) => {
                if (self.schedule.from..self.schedule.to).contains(&now) {
                    self.tally.sent(bytes);
                }
            }
            Step::Answered(by) => {
                let since = self.slots[number].since;
                if self.schedule.counts(since, now) {
                    self.tally.answered(by, now.duration_since(since));
                    self.tally.sent(1);
                }
                self.free.push(number);
            }
            Step::Failed(kind) => {
                self.tally.failed(&kind);
                // A server may close a connection that waits for a question.
                self.free.retain(|free| *free != number);
                self.resting.push((now + REST, number));
            }
        }
    }

    fn wake(&mut self, now: Instant) {
        let free = &mut self.free;
        self.resting.retain(|(at, number)| {
            let rests = *at > now;
            if !rests {
                free.push(*number);
            }
            rests
        });
    }

    /// Gives up what takes too long.
    fn sweep(&mut self, now: Instant) {
        if now < self.swept + SWEEP {
            return;
        }
        self.swept = now;
        for number in 0..self.slots.len() {
            if self.slots[number].is_late(now) {
                let step = self.slots[number].fail("timeout");
                self.account(number, step);
            }
        }
    }
}

#[cfg(test)]
mod tests;
