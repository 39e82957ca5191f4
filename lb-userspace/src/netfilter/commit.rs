//! Changes of nf_tables, in one transaction.

use std::{io, os::fd::AsRawFd as _};

use netlink_packet_core::{DefaultNla, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterProtoFamily,
    nftables::{
        ChainAttribute, ChainMessage, Cmp, DataAttribute, ExpressionAttribute, Expressions, Hook,
        HookNumber, InetHookNumber, ListAttribute, NfTablesMessage, Operator, Register,
        RuleAttribute, RuleMessage, TableAttribute, TableMessage,
    },
    none::ControlMessage,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::nft::{Family, of};
use crate::netlink::{DATAGRAM, answers, message};

/// `NFNL_SUBSYS_NFTABLES`, whom a transaction is for.
const SUBSYSTEM: u16 = 10;
/// `NF_IP_PRI_NAT_SRC`.
const SRCNAT: u32 = 100;
/// `NF_ACCEPT`.
const ACCEPT: u32 = 1;

/// A change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Makes a table that keeps the kernel's NAT and its conntrack at work, and does
    /// nothing else.
    AddNatTable(String),
    /// Removes a table with all that it holds.
    DeleteTable(String),
    /// Removes a rule: table, chain, handle.
    DeleteRule(String, String, u64),
    /// Removes all rules of a chain: table, chain.
    Flush(String, String),
    /// Removes a chain, which nothing leads to any more: table, chain.
    DeleteChain(String, String),
}

impl Op {
    /// Its messages, with their flags.
    fn messages(&self) -> Vec<(u16, NfTablesMessage)> {
        let table = |name: &String| TableMessage {
            attributes: vec![TableAttribute::Name(name.clone())],
        };
        let chain = |table: &String, name: &String| ChainMessage {
            attributes: vec![
                ChainAttribute::Table(table.clone()),
                ChainAttribute::Name(name.clone()),
            ],
        };
        let rules = |table: &String, chain: &String| {
            vec![
                RuleAttribute::Table(table.clone()),
                RuleAttribute::Chain(chain.clone()),
            ]
        };
        match self {
            Self::AddNatTable(name) => nat_table(name),
            Self::DeleteTable(name) => vec![(0, NfTablesMessage::DeleteTable(table(name)))],
            Self::DeleteRule(table, chain, handle) => {
                let mut attributes = rules(table, chain);
                attributes.push(RuleAttribute::Handle(*handle));
                vec![(0, NfTablesMessage::DeleteRule(RuleMessage { attributes }))]
            }
            Self::Flush(table, chain) => {
                let attributes = rules(table, chain);
                vec![(0, NfTablesMessage::DeleteRule(RuleMessage { attributes }))]
            }
            Self::DeleteChain(table, name) => {
                vec![(0, NfTablesMessage::DeleteChain(chain(table, name)))]
            }
        }
    }
}

/// The name of the chain of [`Op::AddNatTable`].
const NAT_CHAIN: &str = "nat";

/// A table, its chain, and the chain's rule.
fn nat_table(name: &str) -> Vec<(u16, NfTablesMessage)> {
    let table = vec![TableAttribute::Name(name.to_owned())];
    let chain = vec![
        ChainAttribute::Table(name.to_owned()),
        ChainAttribute::Name(NAT_CHAIN.to_owned()),
        ChainAttribute::Hook(vec![
            Hook::Number(HookNumber::Inet(InetHookNumber::PostRouting)),
            Hook::Priority(SRCNAT),
        ]),
        ChainAttribute::Policy(ACCEPT),
        ChainAttribute::Type("nat".to_owned()),
    ];
    let rule = vec![
        RuleAttribute::Table(name.to_owned()),
        RuleAttribute::Chain(NAT_CHAIN.to_owned()),
        RuleAttribute::Expressions(asks_conntrack()),
    ];
    vec![
        (
            NLM_F_CREATE,
            NfTablesMessage::NewTable(TableMessage { attributes: table }),
        ),
        (
            NLM_F_CREATE,
            NfTablesMessage::NewChain(ChainMessage { attributes: chain }),
        ),
        (
            NLM_F_CREATE | NLM_F_APPEND,
            NfTablesMessage::NewRule(RuleMessage { attributes: rule }),
        ),
    ]
}

/// `ct direction reply`, which matches nothing: chains of type `nat` see the first packet
/// of a connection. The kernel tracks connections as long as some rule asks about them
/// (net/netfilter/nft_ct.c, `nft_ct_get_init`).
fn asks_conntrack() -> Vec<ListAttribute<ExpressionAttribute>> {
    let number = |kind, value: u32| DefaultNla::new(kind, value.to_be_bytes().to_vec());
    let ask = Expressions::Other {
        expression_type: "ct".to_owned(),
        attributes: vec![
            number(NFTA_CT_DREG, Register::Reg1.into()),
            number(NFTA_CT_KEY, NFT_CT_DIRECTION),
        ],
    };
    let compare = Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(Operator::Equal),
        Cmp::Data(DataAttribute::Value(vec![IP_CT_DIR_REPLY])),
    ]);
    let named = |name: &str, data| {
        let name = ExpressionAttribute::Name(name.to_owned());
        ListAttribute::Element(vec![name, ExpressionAttribute::Data(data)])
    };
    vec![named("ct", ask), named("cmp", compare)]
}

/// include/uapi/linux/netfilter/nf_tables.h, nf_conntrack_tuple_common.h.
const NFTA_CT_DREG: u16 = 1;
const NFTA_CT_KEY: u16 = 2;
const NFT_CT_DIRECTION: u32 = 1;
const IP_CT_DIR_REPLY: u8 = 1;

/// Does all of it, or nothing.
///
/// # Errors
/// The kernel's first objection.
pub fn commit(family: Family, ops: &[Op]) -> io::Result<()> {
    let mut changes: Vec<(u16, NfTablesMessage)> = ops.iter().flat_map(Op::messages).collect();
    let Some(last) = changes.last_mut() else {
        return Ok(());
    };
    // The answer to the last change comes when everything is done.
    last.0 |= NLM_F_ACK;
    let control = |what| {
        let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, SUBSYSTEM);
        message(NetfilterMessage::new(header, what), 0)
    };
    let mut bytes = control(ControlMessage::BatchBegin);
    for (flags, change) in changes {
        bytes.extend(message(of(family, change), flags));
    }
    bytes.extend(control(ControlMessage::BatchEnd));
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    make_room(&socket, bytes.len())?;
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
    let mut buffer = Vec::with_capacity(DATAGRAM);
    loop {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        if answers(&buffer, |_: NetfilterMessage| {})? {
            return Ok(());
        }
    }
}

/// A transaction is one datagram, which must fit into the socket's buffer.
fn make_room(socket: &Socket, bytes: usize) -> io::Result<()> {
    let size = libc::c_int::try_from(bytes + (64 << 10)).unwrap_or(libc::c_int::MAX);
    // SAFETY: the option is an integer, and the length is its own.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_SNDBUFFORCE,
            (&raw const size).cast(),
            size_of_val(&size) as libc::socklen_t,
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
    fn every_change_is_as_the_kernel_reads_it() {
        let name = || "t".to_owned();
        let ops = [
            Op::AddNatTable(name()),
            Op::DeleteTable(name()),
            Op::DeleteRule(name(), name(), 7),
            Op::Flush(name(), name()),
            Op::DeleteChain(name(), name()),
        ];
        for (flags, change) in ops.iter().flat_map(Op::messages) {
            let sent = of(Family::Ip6, change);
            let bytes = message(sent.clone(), flags);
            let mut found = Vec::new();
            answers(&bytes, |m: NetfilterMessage| found.push(m)).unwrap();
            assert_eq!(found, [sent]);
        }
    }
}
