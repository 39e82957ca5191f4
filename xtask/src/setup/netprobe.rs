//! Features of the network stack, tried out in a network namespace that dies with its thread.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use crate::sh::{Sh, which};

use super::kernel::{Feature, State};

/// Numbers of include/uapi/linux/sock_diag.h.
const SOCK_DESTROY: u16 = 21;

/// All that a fresh network namespace can tell.
pub(super) fn features() -> Vec<Feature> {
    // Only the thread changes its namespace; the namespace goes when the thread ends.
    std::thread::spawn(in_new_namespace)
        .join()
        .unwrap_or_default()
}

fn in_new_namespace() -> Vec<Feature> {
    // SAFETY: unshare(2) takes flags only; this thread shares no namespace-bound state.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } < 0 {
        let e = io::Error::last_os_error();
        return vec![Feature::new(
            "network namespace",
            State::Missing,
            format!("cannot be made: {e}"),
        )];
    }
    let mut features = vec![Feature::new("network namespace", State::Present, "works")];
    if which("ip").is_some() {
        features.push(tried(
            "veth",
            ip(&[
                "link", "add", "probe0", "type", "veth", "peer", "name", "probe1",
            ]),
        ));
        features.push(tried(
            "TUN",
            ip(&["tuntap", "add", "dev", "probe2", "mode", "tap"]),
        ));
    }
    if let Some(tc) = which("tc") {
        features.push(tried(
            "clsact",
            Sh::new(tc)
                .args(["qdisc", "add", "dev", "lo", "clsact"])
                .read()
                .map_err(brief),
        ));
    }
    features.push(sock_destroy());
    features
}

fn ip(args: &[&str]) -> Result<String, String> {
    Sh::new(which("ip").unwrap_or_else(|| "ip".into()))
        .args(args)
        .read()
        .map_err(brief)
}

/// The last line of an error: what the command itself said.
fn brief(e: anyhow::Error) -> String {
    e.to_string()
        .lines()
        .last()
        .unwrap_or_default()
        .trim_start_matches(['|', ' '])
        .to_owned()
}

fn tried(name: &'static str, result: Result<String, String>) -> Feature {
    match result {
        Ok(_) => Feature::new(name, State::Present, "works"),
        Err(e) => Feature::new(name, State::Missing, format!("cannot be made: {e}")),
    }
}

fn sock_destroy() -> Feature {
    const NAME: &str = "SOCK_DESTROY";
    match destroy_nobodys_socket() {
        // There is no such socket, and the kernel looked for it.
        Ok(errno) if errno == libc::ENOENT => Feature::new(NAME, State::Present, "works"),
        Ok(errno) => {
            let e = io::Error::from_raw_os_error(errno);
            let detail =
                format!("refused ({e}): connected UDP sockets of removed backends stay open");
            Feature::new(NAME, State::Fallback, detail)
        }
        Err(e) => Feature::new(
            NAME,
            State::Unknown,
            format!("sock_diag does not answer: {e}"),
        ),
    }
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`, as they go over the socket.
#[repr(C)]
struct Request {
    len: u32,
    kind: u16,
    flags: u16,
    seq: u32,
    pid: u32,
    family: u8,
    protocol: u8,
    ext: u8,
    pad: u8,
    states: u32,
    /// `struct inet_diag_sockid`: ports, addresses, interface, cookie.
    ports: u32,
    addresses: [u32; 8],
    interface: u32,
    cookie: [u32; 2],
}

/// A request to destroy a UDP socket between port 1 and port 1 of no address.
fn request() -> Request {
    Request {
        len: size_of::<Request>() as u32,
        kind: SOCK_DESTROY,
        flags: (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16,
        seq: 1,
        pid: 0,
        family: libc::AF_INET as u8,
        protocol: libc::IPPROTO_UDP as u8,
        ext: 0,
        pad: 0,
        states: u32::MAX,
        ports: u32::from_ne_bytes([0, 1, 0, 1]),
        addresses: [0; 8],
        interface: 0,
        // INET_DIAG_NOCOOKIE
        cookie: [u32::MAX; 2],
    }
}

/// Asks for the end of a UDP socket that nobody has, and returns the kernel's error number.
fn destroy_nobodys_socket() -> io::Result<i32> {
    // SAFETY: socket(2) takes no pointers.
    let fd = unsafe {
        libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::NETLINK_SOCK_DIAG,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let request = request();
    // SAFETY: the buffer is `request` and its size.
    let sent = unsafe {
        libc::send(
            socket.as_raw_fd(),
            (&raw const request).cast(),
            size_of::<Request>(),
            0,
        )
    };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut answer = [0_u8; 256];
    // SAFETY: the buffer is `answer` and its size.
    let got = unsafe {
        libc::recv(
            socket.as_raw_fd(),
            answer.as_mut_ptr().cast(),
            answer.len(),
            libc::MSG_DONTWAIT,
        )
    };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    errno_of(&answer[..got as usize])
        .ok_or_else(|| io::Error::other("an answer without an error number"))
}

/// The error number of an NLMSG_ERROR message: it follows the header of 16 bytes.
fn errno_of(message: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    let errno = i32::from_ne_bytes(message.get(16..20)?.try_into().ok()?);
    (i32::from(kind) == libc::NLMSG_ERROR).then_some(-errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_has_the_kernels_layout() {
        // nlmsghdr 16 + inet_diag_req_v2 56 (sock id 48)
        assert_eq!(size_of::<Request>(), 72);
    }

    #[test]
    fn an_error_message_gives_its_number() {
        let mut message = [0_u8; 36];
        message[4] = 2;
        message[16..20].copy_from_slice(&(-libc::ENOENT).to_ne_bytes());
        assert_eq!(errno_of(&message), Some(libc::ENOENT));
        message[4] = 3;
        assert_eq!(errno_of(&message), None);
        assert_eq!(errno_of(&message[..10]), None);
    }
}
