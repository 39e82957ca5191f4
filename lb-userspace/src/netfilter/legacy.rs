//! Rules that nf_tables does not know of: those of iptables' older backend, and IPVS.
//! They are only found.

use std::{fs, io, net::UdpSocket, os::fd::AsRawFd as _};

/// include/uapi/linux/netfilter_ipv4/ip_tables.h; ip6_tables.h has the same numbers.
const IPT_SO_GET_INFO: libc::c_int = 64;
const IPT_SO_GET_ENTRIES: libc::c_int = 65;
/// Bytes of `struct ipt_getinfo`, and where its `size` is.
const INFO: usize = 84;
const INFO_SIZE: usize = 80;
/// Bytes of `struct ipt_get_entries` before the entries, and where its `size` is.
const ENTRIES: usize = 40;
const ENTRIES_SIZE: usize = 32;
/// The device that kube-proxy gives the services' addresses in mode ipvs.
/// kubernetes v1.36.3, pkg/proxy/ipvs/proxier.go.
const IPVS_DEVICE: &str = "kube-ipvs0";
const TABLE: &str = "nat";

/// Whether the older backend's table `nat` has a chain of this name, in either family.
/// A table that nobody uses is not asked for: that would make it.
pub(super) fn has_rules(chain: &str) -> bool {
    [false, true].into_iter().any(|v6| {
        let names = if v6 {
            "ip6_tables_names"
        } else {
            "ip_tables_names"
        };
        let names = fs::read_to_string(format!("/proc/thread-self/net/{names}"));
        let used = names.is_ok_and(|names| names.lines().any(|name| name == TABLE));
        used && entries(v6).is_ok_and(|found| contains(&found, chain))
    })
}

/// Whether kube-proxy's device of mode ipvs is there.
pub(super) fn has_ipvs() -> bool {
    let devices = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    devices
        .lines()
        .any(|line| line.trim_start().starts_with(&format!("{IPVS_DEVICE}:")))
}

/// Names of chains are stored with a NUL behind them.
fn contains(entries: &[u8], chain: &str) -> bool {
    let mut name = chain.as_bytes().to_vec();
    name.push(0);
    entries.windows(name.len()).any(|part| part == name)
}

/// The table as the kernel has it.
fn entries(v6: bool) -> io::Result<Vec<u8>> {
    let (socket, level) = if v6 {
        (UdpSocket::bind("[::1]:0")?, libc::IPPROTO_IPV6)
    } else {
        (UdpSocket::bind("127.0.0.1:0")?, libc::IPPROTO_IP)
    };
    let mut info = named(INFO);
    read(&socket, (level, IPT_SO_GET_INFO), &mut info)?;
    let mut size = [0; 4];
    size.copy_from_slice(&info[INFO_SIZE..INFO_SIZE + 4]);
    let mut table = named(ENTRIES + u32::from_ne_bytes(size) as usize);
    table[ENTRIES_SIZE..ENTRIES_SIZE + 4].copy_from_slice(&size);
    read(&socket, (level, IPT_SO_GET_ENTRIES), &mut table)?;
    Ok(table)
}

/// Room for an answer, with the table's name at its beginning.
fn named(bytes: usize) -> Vec<u8> {
    let mut room = vec![0; bytes];
    room[..TABLE.len()].copy_from_slice(TABLE.as_bytes());
    room
}

fn read(
    socket: &UdpSocket,
    (level, option): (libc::c_int, libc::c_int),
    room: &mut [u8],
) -> io::Result<()> {
    let mut len = room.len() as libc::socklen_t;
    // SAFETY: the kernel writes `len` bytes at most, which the slice has.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            room.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_found_by_its_whole_name() {
        let entries = b"\0KUBE-SERVICES-2\0..KUBE-SERVICES\0";
        assert!(contains(entries, "KUBE-SERVICES"));
        assert!(contains(entries, "KUBE-SERVICES-2"));
        assert!(!contains(entries, "KUBE-SERV"));
    }
}
