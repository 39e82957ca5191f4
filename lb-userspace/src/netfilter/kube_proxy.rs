//! kube-proxy's rules: whether they are there, what of them is removed, and which
//! clients they have bound.
//!
//! Removed is exactly what `kube-proxy --cleanup` removes: the kubelet has chains of its
//! own in the same tables. kubernetes v1.36.3, pkg/proxy/iptables/proxier.go:377,
//! `cleanupLeftoversForFamily`, `isServiceChainName`; pkg/proxy/nftables/proxier.go,
//! `CleanupLeftovers`.

use std::io;

use super::{
    commit::{Op, commit},
    legacy,
    nft::{self, Chain, Family, Jump},
};

/// kube-proxy's table, in mode nftables.
pub(super) const TABLE: &str = "kube-proxy";
/// Our own table, which keeps the kernel's NAT alive.
pub const OWN_TABLE: &str = "bascule-takeover";

/// How kube-proxy's rules are written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mode {
    /// nftables.
    Nftables,
    /// iptables, by its nf_tables backend.
    Iptables,
    /// iptables, by its older backend.
    IptablesLegacy,
    /// IPVS.
    Ipvs,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 4] = [
        Self::Nftables,
        Self::Iptables,
        Self::IptablesLegacy,
        Self::Ipvs,
    ];

    /// Its name, for users and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::IptablesLegacy => "iptables-legacy",
            Self::Ipvs => "ipvs",
        }
    }

    /// Whether [`remove`] removes its rules.
    pub const fn is_removable(self) -> bool {
        matches!(self, Self::Nftables | Self::Iptables)
    }
}

/// The modes whose rules are in the network namespace.
///
/// # Errors
/// The kernel does not list them.
pub fn find() -> io::Result<Vec<Mode>> {
    let mut found = Vec::new();
    for family in Family::ALL {
        if nft::tables(family)?.iter().any(|name| name == TABLE) {
            found.push(Mode::Nftables);
        }
        if nft::has_chain(family, "nat", SERVICES)? {
            found.push(Mode::Iptables);
        }
    }
    if legacy::has_rules(SERVICES) {
        found.push(Mode::IptablesLegacy);
    }
    if legacy::has_ipvs() {
        found.push(Mode::Ipvs);
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Removes the rules of the removable modes, each family's in one transaction.
///
/// # Errors
/// The kernel refuses; nothing of the family is removed then.
pub fn remove() -> io::Result<()> {
    for family in Family::ALL {
        let tables = nft::tables(family)?;
        let chains = nft::chains(family)?;
        let mut jumps = Vec::new();
        for chain in chains
            .iter()
            .filter(|chain| chain.base && in_iptables(chain))
        {
            jumps.extend(nft::jumps(family, &chain.table, &chain.name)?);
        }
        commit(family, &removal(&tables, &chains, &jumps))?;
    }
    Ok(())
}

/// Makes our own table, in both families.
///
/// # Errors
/// The kernel refuses.
pub fn keep_nat() -> io::Result<()> {
    for family in Family::ALL {
        if !has_own_table(family)? {
            commit(family, &[Op::AddNatTable(OWN_TABLE.to_owned())])?;
        }
    }
    Ok(())
}

fn has_own_table(family: Family) -> io::Result<bool> {
    Ok(nft::tables(family)?.iter().any(|name| name == OWN_TABLE))
}

/// Whether our own table is there.
///
/// # Errors
/// The kernel does not list its tables.
pub fn keeps_nat() -> io::Result<bool> {
    for family in Family::ALL {
        if has_own_table(family)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes our own table, where it is.
///
/// # Errors
/// The kernel refuses.
pub fn release_nat() -> io::Result<()> {
    for family in Family::ALL {
        if has_own_table(family)? {
            commit(family, &[Op::DeleteTable(OWN_TABLE.to_owned())])?;
        }
    }
    Ok(())
}

const SERVICES: &str = "KUBE-SERVICES";

/// What removes a family's rules, in an order that the kernel accepts: what leads to a
/// chain goes before the chain.
fn removal(tables: &[String], chains: &[Chain], jumps: &[Jump]) -> Vec<Op> {
    let mut ops = Vec::new();
    if tables.iter().any(|name| name == TABLE) {
        ops.push(Op::DeleteTable(TABLE.to_owned()));
    }
    for jump in jumps
        .iter()
        .filter(|jump| is_kube_proxys(&jump.table, &jump.to))
    {
        let (table, chain) = (jump.table.clone(), jump.chain.clone());
        ops.push(Op::DeleteRule(table, chain, jump.handle));
    }
    let doomed = || {
        chains
            .iter()
            .filter(|chain| in_iptables(chain) && is_kube_proxys(&chain.table, &chain.name))
    };
    ops.extend(doomed().map(|chain| Op::Flush(chain.table.clone(), chain.name.clone())));
    ops.extend(doomed().map(|chain| Op::DeleteChain(chain.table.clone(), chain.name.clone())));
    ops
}

/// Whether a chain is in one of the tables that iptables has in nf_tables.
fn in_iptables(chain: &Chain) -> bool {
    matches!(chain.table.as_str(), "nat" | "filter" | "mangle")
}

/// Whether a chain of iptables is one that `kube-proxy --cleanup` removes.
fn is_kube_proxys(table: &str, name: &str) -> bool {
    let services = [
        "KUBE-SVC-",
        "KUBE-SVL-",
        "KUBE-EXT-",
        "KUBE-FW-",
        "KUBE-SEP-",
    ];
    match (table, name) {
        (_, "KUBE-PROXY-CANARY") => true,
        ("nat", SERVICES | "KUBE-NODEPORTS" | "KUBE-POSTROUTING" | "KUBE-MARK-MASQ") => true,
        ("nat", name) => services.iter().any(|prefix| name.starts_with(prefix)),
        (
            "filter",
            SERVICES
            | "KUBE-EXTERNAL-SERVICES"
            | "KUBE-FORWARD"
            | "KUBE-NODEPORTS"
            | "KUBE-PROXY-FIREWALL",
        ) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(table: &str, name: &str, base: bool) -> Chain {
        Chain {
            table: table.into(),
            name: name.into(),
            base,
        }
    }

    fn jump(table: &str, chain: &str, handle: u64, to: &str) -> Jump {
        Jump {
            table: table.into(),
            chain: chain.into(),
            handle,
            to: to.into(),
        }
    }

    #[test]
    fn what_leads_to_a_chain_goes_before_it_and_the_kubelets_chains_stay() {
        let chains = [
            chain("nat", "PREROUTING", true),
            chain("nat", "KUBE-SERVICES", false),
            chain("nat", "KUBE-SVC-AAAA", false),
            chain("nat", "KUBE-KUBELET-CANARY", false),
            chain("filter", "KUBE-FIREWALL", false),
            chain("filter", "KUBE-SVC-AAAA", false),
            chain("mangle", "KUBE-PROXY-CANARY", false),
            chain("mangle", "KUBE-KUBELET-CANARY", false),
            chain("mine", "KUBE-SERVICES", false),
        ];
        let jumps = [
            jump("nat", "PREROUTING", 7, "KUBE-SERVICES"),
            jump("nat", "PREROUTING", 8, "CNI-HOSTPORT-DNAT"),
            jump("filter", "INPUT", 9, "KUBE-FIREWALL"),
        ];
        let of = |table: &str, name: &str| (table.to_owned(), name.to_owned());
        let (services, one) = (of("nat", "KUBE-SERVICES"), of("nat", "KUBE-SVC-AAAA"));
        let canary = of("mangle", "KUBE-PROXY-CANARY");
        let expected = [
            Op::DeleteRule("nat".into(), "PREROUTING".into(), 7),
            Op::Flush(services.0.clone(), services.1.clone()),
            Op::Flush(one.0.clone(), one.1.clone()),
            Op::Flush(canary.0.clone(), canary.1.clone()),
            Op::DeleteChain(services.0, services.1),
            Op::DeleteChain(one.0, one.1),
            Op::DeleteChain(canary.0, canary.1),
        ];
        assert_eq!(removal(&["nat".into()], &chains, &jumps), expected);
    }

    #[test]
    fn tables_of_the_nftables_mode_go_whole() {
        let tables = ["filter".to_owned(), TABLE.to_owned(), OWN_TABLE.to_owned()];
        let chains = [chain(TABLE, "services", false)];
        assert_eq!(
            removal(&tables, &chains, &[]),
            [Op::DeleteTable(TABLE.into())]
        );
        assert_eq!(removal(&[OWN_TABLE.to_owned()], &[], &[]), []);
    }
}
