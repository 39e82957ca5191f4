//! Tables, chains and rules of nf_tables, listed.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    nftables::{
        ChainAttribute, ChainMessage, DataAttribute, ExpressionAttribute, Expressions, Immediate,
        ListAttribute, NfTablesMessage, RuleAttribute, RuleMessage, TableAttribute, TableMessage,
        VerdictAttribute,
    },
};
use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::netlink::ask;

/// How often a list is asked for that somebody changed meanwhile.
const TRIES: u32 = 20;

/// The families whose rules kube-proxy writes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ip, Self::Ip6];

    fn number(self) -> NetfilterProtoFamily {
        match self {
            Self::Ip => NetfilterProtoFamily::IPv4,
            Self::Ip6 => NetfilterProtoFamily::IPv6,
        }
    }
}

/// A chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chain {
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Whether the kernel calls it: other chains are jumped to.
    pub base: bool,
}

/// A rule that leads to another chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Jump {
    /// The rule's table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// The kernel's number of it.
    pub handle: u64,
    /// Where it leads.
    pub to: String,
}

/// The names of a family's tables.
///
/// # Errors
/// The kernel refuses the list; the same holds for the others. A kernel without
/// nf_tables has none of anything.
pub fn tables(family: Family) -> io::Result<Vec<String>> {
    let request = NfTablesMessage::GetTable(TableMessage {
        attributes: Vec::new(),
    });
    list(family, request, NLM_F_DUMP, |answer| match answer {
        NfTablesMessage::NewTable(table) => table.attributes.into_iter().find_map(|a| match a {
            TableAttribute::Name(name) => Some(name),
            _ => None,
        }),
        _ => None,
    })
}

/// A family's chains.
///
/// # Errors
/// As [`tables`].
pub fn chains(family: Family) -> io::Result<Vec<Chain>> {
    let request = NfTablesMessage::GetChain(ChainMessage {
        attributes: Vec::new(),
    });
    list(family, request, NLM_F_DUMP, |answer| match answer {
        NfTablesMessage::NewChain(found) => chain(&found),
        _ => None,
    })
}

/// Whether there is a chain.
///
/// # Errors
/// As [`tables`].
pub fn has_chain(family: Family, table: &str, name: &str) -> io::Result<bool> {
    let request = NfTablesMessage::GetChain(ChainMessage {
        attributes: vec![
            ChainAttribute::Table(table.to_owned()),
            ChainAttribute::Name(name.to_owned()),
        ],
    });
    let found = list(family, request, NLM_F_ACK, |answer| match answer {
        NfTablesMessage::NewChain(found) => chain(&found),
        _ => None,
    })?;
    Ok(!found.is_empty())
}

fn chain(message: &ChainMessage) -> Option<Chain> {
    let (mut table, mut name, mut base) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            ChainAttribute::Table(text) => table = Some(text.clone()),
            ChainAttribute::Name(text) => name = Some(text.clone()),
            ChainAttribute::Hook(_) => base = true,
            _ => {}
        }
    }
    Some(Chain {
        table: table?,
        name: name?,
        base,
    })
}

/// The rules of a chain that lead to others.
///
/// # Errors
/// As [`tables`].
pub fn jumps(family: Family, table: &str, chain: &str) -> io::Result<Vec<Jump>> {
    let request = NfTablesMessage::GetRule(RuleMessage {
        attributes: vec![
            RuleAttribute::Table(table.to_owned()),
            RuleAttribute::Chain(chain.to_owned()),
        ],
    });
    list(family, request, NLM_F_DUMP, |answer| match answer {
        NfTablesMessage::NewRule(rule) => jump(&rule),
        _ => None,
    })
}

fn jump(message: &RuleMessage) -> Option<Jump> {
    let (mut table, mut chain, mut handle, mut to) = (None, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Table(text) => table = Some(text.clone()),
            RuleAttribute::Chain(text) => chain = Some(text.clone()),
            RuleAttribute::Handle(number) => handle = Some(*number),
            RuleAttribute::Expressions(list) => to = target(list),
            _ => {}
        }
    }
    Some(Jump {
        table: table?,
        chain: chain?,
        handle: handle?,
        to: to?,
    })
}

/// Where the expressions of a rule lead: a jump is a verdict that is loaded.
fn target(list: &[ListAttribute<ExpressionAttribute>]) -> Option<String> {
    let of = |list: &ListAttribute<ExpressionAttribute>| match list {
        ListAttribute::Element(attributes) => attributes.iter().find_map(verdict),
        _ => None,
    };
    list.iter().find_map(of)
}

fn verdict(attribute: &ExpressionAttribute) -> Option<String> {
    let ExpressionAttribute::Data(Expressions::Immediate(parts)) = attribute else {
        return None;
    };
    parts.iter().find_map(|part| match part {
        Immediate::Data(DataAttribute::Verdict(parts)) => parts.iter().find_map(|p| match p {
            VerdictAttribute::Chain(name) => Some(name.clone()),
            _ => None,
        }),
        _ => None,
    })
}

/// A message of a family.
pub(super) fn of(family: Family, message: NfTablesMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(family.number(), 0, 0), message)
}

/// Asks, again where somebody changed what is listed, and takes what is found. What
/// is not there, nf_tables itself included, is nothing.
pub(super) fn list<T>(
    family: Family,
    request: NfTablesMessage,
    flags: u16,
    take: impl Fn(NfTablesMessage) -> Option<T>,
) -> io::Result<Vec<T>> {
    let mut tries = 0;
    loop {
        let mut found = Vec::new();
        let asked = ask(NETLINK_NETFILTER, of(family, request.clone()), flags, |a| {
            if let NetfilterMessageInner::NfTables(answer) = a.inner {
                found.extend(take(answer));
            }
        });
        tries += 1;
        match asked {
            Ok(()) => return Ok(found),
            Err(error) if error.kind() == io::ErrorKind::Interrupted && tries < TRIES => {}
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT) => {
                    return Ok(Vec::new());
                }
                _ => return Err(error),
            },
        }
    }
}

#[cfg(test)]
#[path = "nft_tests.rs"]
mod tests;
