//! Attached programs as pinned links. A link outlives the agent; the next one
//! puts its programs behind it, atomically.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use super::{
    error::Error,
    pins::{list, remove},
    sys::{self, LinkTarget},
};

/// Where a program is to be attached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// What the kernel tells of a link that is attached there.
    pub(super) target: LinkTarget,
    /// What the kernel is told: a device's index or a cgroup's descriptor.
    pub(super) handle: u32,
    /// `enum bpf_attach_type`.
    pub(super) attach_type: u32,
    /// Flags of the attachment: for XDP the mode.
    pub(super) flags: u32,
    /// Where the link is pinned.
    pub(super) pin: &'a Path,
}

/// How a program came to be attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Attached {
    /// It took another one's place in a link.
    Replaced,
    /// By a new link.
    Anew,
}

/// Attaches a program: behind the pinned link if that is attached to this place,
/// else by a new one, which is pinned.
pub(super) fn attach(place: &Place<'_>, prog: BorrowedFd<'_>) -> io::Result<Attached> {
    if let Ok(link) = sys::obj_get(place.pin, 0) {
        let here = sys::link_info(link.as_fd()).is_ok_and(|info| info.target == place.target);
        if here && sys::link_update(link.as_fd(), prog).is_ok() {
            return Ok(Attached::Replaced);
        }
    }
    let link = create(place, prog)?;
    // A pin of that name leads elsewhere: to a device that is gone, or to a
    // cgroup that another setting named. Its link ends only now.
    remove(place.pin).map_err(io::Error::other)?;
    sys::obj_pin(link.as_fd(), place.pin)?;
    Ok(Attached::Anew)
}

fn create(place: &Place<'_>, prog: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    sys::link_create(prog, place.handle, place.attach_type, place.flags)
}

/// Ends a pinned link, at once: without its pin alone it would end when the
/// kernel finds the time. One that is not there counts as ended.
pub(super) fn end(pin: &Path) -> Result<(), Error> {
    if let Ok(link) = sys::obj_get(pin, 0) {
        // What is not a link, or is detached already, is only unpinned.
        let _detached = sys::link_detach(link.as_fd());
    }
    remove(pin)
}

/// A pinned link.
#[derive(Clone, Debug)]
pub(super) struct PinnedLink {
    /// Name of the pin.
    pub(super) name: String,
    /// Its path.
    pub(super) path: PathBuf,
    /// Where it is attached; `None` if that could not be found out.
    pub(super) target: Option<LinkTarget>,
    /// The kernel's id of its program.
    pub(super) prog_id: u32,
}

/// Every pinned link of a directory.
pub(super) fn pinned(dir: &Path) -> Result<Vec<PinnedLink>, Error> {
    let mut links: Vec<PinnedLink> = list(dir)?
        .into_iter()
        .map(|(name, path)| {
            let info = sys::obj_get(&path, 0).and_then(|link| sys::link_info(link.as_fd()));
            PinnedLink {
                name,
                path,
                target: info.as_ref().ok().map(|info| info.target),
                prog_id: info.map_or(0, |info| info.prog_id),
            }
        })
        .collect();
    links.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(links)
}
