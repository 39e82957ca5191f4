//! Which devices have hooks, asked of the kernel while it is busy: without other programs,
//! and often.

use std::ffi::CString;
use std::io::{Error, Result};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::node::Node;

// include/uapi/linux/rtnetlink.h, pkt_sched.h
const RTM_NEWTFILTER: u16 = 44;
const RTM_GETTFILTER: u16 = 46;
const CLSACT_INGRESS: u32 = 0xffff_fff2;
const CLSACT_EGRESS: u32 = 0xffff_fff3;
/// The priority of the agent's filters.
const PRIORITY: u32 = 0xba5c;
/// How long a device may take to be covered at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs `make`, commands of `ip`, and says of each device that it makes how long it was there
/// without hooks in both directions, whether TCX links or filters.
///
/// # Panics
/// A device does not come, or is not covered.
#[must_use]
pub fn uncovered(node: &Node, names: &[String], make: &str) -> Vec<Duration> {
    let links = node.bpffs().join("bascule/links");
    let start = Instant::now();
    let watch = || {
        let mut waiting: Vec<(&String, Option<Instant>)> =
            names.iter().map(|name| (name, None)).collect();
        let mut times = Vec::new();
        while !waiting.is_empty() {
            assert!(start.elapsed() < PATIENCE, "not covered: {waiting:?}");
            waiting.retain_mut(|(name, appeared)| {
                let index = index_of(name);
                if index == 0 {
                    return true;
                }
                let appeared = *appeared.get_or_insert_with(Instant::now);
                let covered = has_links(&links, index) || has_filters(index);
                if covered {
                    times.push(appeared.elapsed());
                }
                !covered
            });
            std::thread::sleep(Duration::from_millis(1));
        }
        times
    };
    std::thread::scope(|scope| {
        let made = scope.spawn(|| node.netns().ip(make));
        let times = node.netns().inside(watch);
        made.join().expect("ip(8) does what it is told");
        times
    })
}

fn index_of(name: &str) -> u32 {
    let name = CString::new(name).expect("names have no NUL");
    // SAFETY: the name ends with NUL.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}

/// Whether both TCX links of a device are pinned.
fn has_links(links: &std::path::Path, index: u32) -> bool {
    let pin = |side: &str| -> PathBuf { links.join(format!("dev_{index}_{side}")) };
    pin("ingress").exists() && pin("egress").exists()
}

/// Whether a device has the agent's filters in both directions.
fn has_filters(index: u32) -> bool {
    [CLSACT_INGRESS, CLSACT_EGRESS].into_iter().all(|parent| {
        filters(index, parent)
            .unwrap_or_else(|error| panic!("filters of device {index}: {error}"))
            .contains(&PRIORITY)
    })
}

/// The priorities of a device's filters in one direction.
fn filters(index: u32, parent: u32) -> Result<Vec<u32>> {
    // struct nlmsghdr, then struct tcmsg.
    let mut request = Vec::new();
    request.extend(36u32.to_ne_bytes());
    request.extend(RTM_GETTFILTER.to_ne_bytes());
    request.extend((libc::NLM_F_REQUEST | libc::NLM_F_DUMP).to_le_bytes()[..2].iter());
    request.extend([0; 12]);
    request.extend(index.to_ne_bytes());
    request.extend([0; 4]);
    request.extend(parent.to_ne_bytes());
    request.extend([0; 4]);
    // SAFETY: no memory is involved; the descriptor is new, and ours alone.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    let fd = socket.as_raw_fd();
    // SAFETY: the buffer is as long as the call is told.
    if unsafe { libc::send(fd, request.as_ptr().cast(), request.len(), 0) } < 0 {
        return Err(Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut buffer = vec![0u8; 32 << 10];
    loop {
        // SAFETY: the buffer is as long as the call is told.
        let read = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        let read = usize::try_from(read).map_err(|_| Error::last_os_error())?;
        let mut rest = &buffer[..read];
        while rest.len() >= 16 {
            let len = word(rest, 0) as usize;
            match (word(rest, 4) & 0xffff) as u16 {
                // The priority is the upper half of tcm_info, the last word of the head.
                RTM_NEWTFILTER => found.push(word(rest, 32) >> 16),
                // NLMSG_ERROR: no such device or qdisc. NLMSG_DONE.
                2 | 3 => return Ok(found),
                _ => {}
            }
            rest = rest
                .get(len.next_multiple_of(4).max(16)..)
                .unwrap_or_default();
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}
