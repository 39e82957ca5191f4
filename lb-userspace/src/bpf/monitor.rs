//! The programs tell of packets and of sockets' calls (`lb_common::monitor`), for as long as
//! somebody looks.

use std::{fs, io, path::PathBuf};

use aya::maps::{Map, MapData, RingBuf};
use bytemuck::{Zeroable as _, bytes_of};
use lb_common::monitor::{
    self, CONTROL, CallEvent, Control, EVENTS, Event, MonitorMap, WATCH, Watch,
};

use super::{
    clock::{now, uptime},
    error::{Error, chain},
    map::BpfMap,
    pins::{Pins, open_map, pin_error, remove},
    settings::Settings,
    store::values_of,
};

/// Ticks for which the programs go on telling when they are not told again: whoever looks
/// may be killed.
const GRACE: u64 = 3;

/// What is told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Of so many packets one is looked at, on each CPU.
    pub every: u32,
    /// Most events in a second, of all CPUs.
    pub limit: u32,
    /// Bits of the reasons.
    pub reasons: u64,
    /// Packets that end a TCP connection too, whatever their reason.
    pub closed: bool,
}

/// What the programs tell of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// A packet.
    Packet(Box<Event>),
    /// A call of a local socket.
    Call(CallEvent),
}

impl Record {
    /// Nanoseconds of the kernel's monotonic clock.
    pub fn time(&self) -> u64 {
        match self {
            Self::Packet(event) => event.time,
            Self::Call(event) => event.time,
        }
    }
}

/// Events that nobody will hear of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lost {
    /// There was no room in the ring.
    pub full: u64,
    /// They were more than the limit allows.
    pub over: u64,
}

impl Lost {
    /// What was lost since an earlier count.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            full: self.full.wrapping_sub(earlier.full),
            over: self.over.wrapping_sub(earlier.over),
        }
    }

    /// Events, all together.
    pub fn total(self) -> u64 {
        self.full + self.over
    }
}

/// A look at packets and calls. It ends when this is dropped.
pub struct Monitor {
    wanted: Wanted,
    control: BpfMap,
    watch: BpfMap,
    ring: RingBuf<MapData>,
    before: Lost,
    pin: PathBuf,
    // One at a time: the kernel unlocks it whichever way this process ends.
    _turn: fs::File,
}

impl Monitor {
    /// Begins to look.
    ///
    /// # Errors
    /// No agent has run there, or one of another version, somebody else looks, or the kernel
    /// refuses.
    pub fn start(settings: &Settings, wanted: Wanted) -> Result<Self, Error> {
        let pins = Pins::existing(settings.pin_dir());
        let control = open(&pins, CONTROL)?;
        let watch = open(&pins, WATCH)?;
        let turn = turn(&pins)?;
        let path = pins.monitor(EVENTS);
        let refused = |problem: String| Error::Monitor { problem };
        let ring = MapData::from_pin(&path).map_err(|error| refused(chain(&error)))?;
        let ring = RingBuf::try_from(Map::RingBuf(ring)).map_err(|error| refused(chain(&error)))?;
        let mut monitor = Self {
            wanted,
            before: lost(&watch)?,
            control,
            watch,
            ring,
            pin: pins.monitor(CONTROL),
            _turn: turn,
        };
        // What one that was killed has left.
        while monitor.ring.next().is_some() {}
        monitor.write(i64::from(wanted.limit))?;
        Ok(monitor)
    }

    /// Keeps the programs telling, and allows them so many events more; to be called more
    /// often than once in two seconds.
    ///
    /// # Errors
    /// The kernel refuses, or the agent's programs have other maps by now.
    pub fn keep_on(&self, more: i64) -> Result<(), Error> {
        let pinned = open_map(&self.pin, 0)?.map(|map| map.info().id);
        if pinned != Some(self.control.info().id) {
            return Err(Error::Monitor {
                problem: "the agent's programs were replaced by those of another version"
                    .to_owned(),
            });
        }
        let left = read(&self.control)?.budget.max(0);
        self.write((left + more).min(i64::from(self.wanted.limit)))
    }

    fn write(&self, budget: i64) -> Result<(), Error> {
        let Wanted { every, .. } = self.wanted;
        let control = Control {
            until: u64::from(now()) + GRACE,
            nothing: 0,
            over: monitor::taken::OVER,
            every: u64::from(every),
            budget,
            reasons: self.wanted.reasons,
            flags: match self.wanted.closed {
                true => monitor::control_flags::CLOSED,
                false => 0,
            },
        };
        let written = self.control.update(&[0; 4], bytes_of(&control));
        written.map_err(|source| map_error(CONTROL, "write", source))
    }

    /// The next that was told of, if there is one.
    pub fn record(&mut self) -> Option<Record> {
        let item = self.ring.next()?;
        // The ring's name has the version of its records, so they have one of these sizes.
        let packet =
            bytemuck::try_pod_read_unaligned(&item).map(|event| Record::Packet(Box::new(event)));
        packet
            .or_else(|_| bytemuck::try_pod_read_unaligned(&item).map(Record::Call))
            .ok()
    }

    /// What was lost since the look began.
    ///
    /// # Errors
    /// The kernel refuses the read.
    pub fn lost(&self) -> Result<Lost, Error> {
        Ok(lost(&self.watch)?.since(self.before))
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // If this fails the programs end it by themselves.
        let _ = self.control.update(&[0; 4], bytes_of(&Control::zeroed()));
    }
}

/// Whether the programs have been told to tell, and have not ended it: for tests.
///
/// # Errors
/// As [`Monitor::start`].
pub fn is_on(settings: &Settings) -> Result<bool, Error> {
    let control = open(&Pins::existing(settings.pin_dir()), CONTROL)?;
    Ok(read(&control)?.until != 0)
}

/// Removes pinned maps that are of another layout than this build's.
pub(super) fn clear_way(pins: &Pins) -> Result<(), Error> {
    for map in monitor::MAPS {
        let path = pins.monitor(map);
        let found = open_map(&path, 0)?;
        if found.is_some_and(|found| found.info().value_size != map.value_size) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// The lock of the pins' directory.
fn turn(pins: &Pins) -> Result<fs::File, Error> {
    let dir = pins.dir();
    let file = fs::File::open(dir).map_err(|source| pin_error("open", dir, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::Monitor {
            problem: "another `bascule monitor` looks at this node's packets: end it first"
                .to_owned(),
        }),
        Err(fs::TryLockError::Error(source)) => Err(pin_error("lock", dir, source)),
    }
}

fn open(pins: &Pins, map: MonitorMap) -> Result<BpfMap, Error> {
    let other = |found: String| Error::OtherBuild {
        map: map.pin,
        found,
        expected: format!("values of {} bytes", map.value_size),
    };
    let found = open_map(&pins.monitor(map), 0)?.ok_or_else(|| other("missing".to_owned()))?;
    match found.info().value_size {
        size if size == map.value_size => Ok(found),
        size => Err(other(format!("values of {size} bytes"))),
    }
}

fn read(control: &BpfMap) -> Result<Control, Error> {
    let found = control.lookup(&[0; 4]);
    let found = found.map_err(|source| map_error(CONTROL, "read", source))?;
    let value = found.and_then(|bytes| values_of(&bytes).next());
    Ok(value.unwrap_or_else(Control::zeroed))
}

fn lost(watch: &BpfMap) -> Result<Lost, Error> {
    let found = watch.lookup(&[0; 4]);
    let found = found.map_err(|source| map_error(WATCH, "read", source))?;
    let cpus = found.unwrap_or_default();
    Ok(
        values_of::<Watch>(&cpus).fold(Lost::default(), |sum, cpu| Lost {
            full: sum.full.wrapping_add(cpu.full),
            over: sum.over.wrapping_add(cpu.over),
        }),
    )
}

pub(super) fn map_error(map: MonitorMap, call: &'static str, source: io::Error) -> Error {
    let map = map.pin;
    Error::Map { map, call, source }
}

/// The clock of [`Event::time`], in nanoseconds.
pub fn clock() -> u64 {
    uptime().as_nanos() as u64
}
