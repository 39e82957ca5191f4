//! Asking the dry program (`lb_common::trace`) what becomes of a packet. The agent loads it
//! once everything serves, and pins it for the command line.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    sync::{Arc, OnceLock},
    thread,
};

use lb_common::{Reason, trace};

use super::{
    error::Error,
    pins::{Pins, pin_error, remove},
    prog::run_on,
    programs::{absent, load_one},
    recipe::Recipe,
    settings::Settings,
    sys,
};

/// The program's name, and that of its pin.
const NAME: &str = "lb_dry";

/// Where a packet comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A pod, by its device.
    Pod,
    /// The network, by an uplink.
    Uplink,
    /// A local socket that dials the packet's destination.
    Socket {
        /// The socket's cookie.
        cookie: u64,
        /// The cookie of its network namespace.
        netns: u64,
    },
}

/// A packet that is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The frame; its link address of destination must be the device's.
    pub frame: &'a [u8],
    /// Index of the device by which it comes.
    pub device: u32,
    /// Where it comes from.
    pub origin: Origin,
}

/// How a backend was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// The flow was known.
    Conntrack,
    /// The client is bound to it.
    Affinity,
    /// By the service's table, or as its only one.
    Table,
}

/// What the datapath would do with a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// One of [`trace::verdict`].
    pub verdict: u32,
    /// Why.
    pub reason: Reason,
    /// How the backend was found.
    pub how: Option<How>,
    /// Service id.
    pub service: Option<u32>,
    /// Slot of the service's table.
    pub slot: Option<u32>,
    /// Backend id.
    pub backend: Option<u32>,
    /// Source port that SNAT tries first.
    pub snat_port: Option<u16>,
    /// Index of the device of a redirect.
    pub out: Option<u32>,
    /// The frame as it would leave.
    pub frame: Vec<u8>,
}

/// The loaded dry program.
#[derive(Debug)]
pub struct Dry(OwnedFd);

/// `struct __sk_buff` (include/uapi/linux/bpf.h), as words.
type Skb = [u32; 48];
const MARK: usize = 2;
const IFINDEX: usize = 10;
const CB: usize = 12;

/// Bytes that a frame can grow by: an ICMP error has another header before it.
const GROWTH: usize = 256;

impl Dry {
    /// Takes the program over that is pinned, or loads one and pins it.
    fn load(recipe: &Recipe) -> Result<Self, Error> {
        if let Ok(fd) = sys::obj_get(&path(&recipe.pins), 0) {
            return Ok(Self(fd));
        }
        // It tells no monitor of anything.
        let mut ebpf = recipe.load(false)?;
        let program = ebpf.program_mut(NAME).ok_or_else(|| absent(NAME))?;
        let fd = load_one(NAME, program)?;
        let path = path(&recipe.pins);
        sys::obj_pin(fd.as_fd(), &path).map_err(|source| pin_error("pin", &path, source))?;
        Ok(Self(fd))
    }

    /// The program that an agent has pinned.
    ///
    /// # Errors
    /// There is none: no agent serves there, or it has started a moment ago.
    pub fn open(settings: &Settings) -> Result<Self, Error> {
        let path = path(&Pins::existing(settings.pin_dir()));
        let fd = sys::obj_get(&path, 0);
        fd.map(Self)
            .map_err(|source| pin_error("open the program pinned at", &path, source))
    }

    /// Asks what becomes of a packet. Nothing changes in the maps.
    ///
    /// # Errors
    /// The kernel does not run the program, or it is one of another version.
    pub fn ask(&self, question: &Question<'_>) -> io::Result<Decision> {
        let mut skb: Skb = [0; 48];
        skb[IFINDEX] = question.device;
        skb[MARK] = match question.origin {
            Origin::Pod => trace::from::POD,
            Origin::Uplink => trace::from::UPLINK,
            Origin::Socket { cookie, netns } => {
                let words = [cookie, cookie >> 32, netns, netns >> 32];
                skb[CB..CB + 4].copy_from_slice(&words.map(|word| word as u32));
                trace::from::SOCKET
            }
        };
        let mut frame = vec![0; question.frame.len() + GROWTH];
        let (returned, len) = run_on(self.0.as_fd(), question.frame, &mut frame, &mut skb)?;
        frame.truncate(len);
        let (verdict, reason) = trace::decode(returned).ok_or_else(|| {
            io::Error::other(format!(
                "{NAME} answers {returned:#x}: it is of another version; use that agent's own binary, or restart the agent with this one"
            ))
        })?;
        let word = |word: usize| Some(skb[CB + word]).filter(|value| *value != trace::NONE);
        Ok(Decision {
            verdict,
            reason,
            how: match word(trace::word::HOW) {
                Some(trace::how::CONNTRACK) => Some(How::Conntrack),
                Some(trace::how::AFFINITY) => Some(How::Affinity),
                Some(trace::how::TABLE) => Some(How::Table),
                _ => None,
            },
            service: word(trace::word::SERVICE),
            slot: word(trace::word::SLOT),
            backend: word(trace::word::BACKEND),
            snat_port: word(trace::word::SNAT).map(|port| port as u16),
            out: Some(skb[MARK]).filter(|index| *index != 0),
            frame,
        })
    }
}

/// The nice value of what can wait for everything else.
const IDLE: libc::c_int = 19;

/// Loads the program on a thread of its own, which fills the cell: nothing that serves waits
/// for it.
pub(super) fn in_background(recipe: Recipe) -> Arc<OnceLock<Dry>> {
    let loaded = Arc::new(OnceLock::new());
    let cell = loaded.clone();
    let load = move || {
        // SAFETY: the call takes numbers only; on Linux they mean this thread.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, IDLE) };
        match Dry::load(&recipe) {
            Ok(dry) => drop(cell.set(dry)),
            Err(error) => tracing::warn!("{error}; nothing can be explained"),
        }
    };
    let spawned = thread::Builder::new().name("dry".to_owned()).spawn(load);
    if let Err(error) = spawned {
        tracing::warn!("{NAME} is not loaded, and nothing can be explained: no thread: {error}");
    }
    loaded
}

fn path(pins: &Pins) -> PathBuf {
    pins.programs().join(NAME)
}

/// Removes the pin: its program is of another build, or reads other maps.
pub(super) fn forget(pins: &Pins) -> Result<(), Error> {
    remove(&path(pins))
}
