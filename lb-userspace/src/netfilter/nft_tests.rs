//! Against `dumps/*.bin`, which `dumps/make.sh` made of rules of iptables and nft.

use super::*;
use crate::netlink::answers;

fn read<T>(bytes: &[u8], take: impl Fn(NfTablesMessage) -> Option<T>) -> Vec<T> {
    let mut found = Vec::new();
    let ended = answers(bytes, |message: NetfilterMessage| {
        if let NetfilterMessageInner::NfTables(answer) = message.inner {
            found.extend(take(answer));
        }
    });
    assert!(ended.unwrap());
    found
}

#[test]
fn chains_of_iptables_are_read_and_which_of_them_the_kernel_calls() {
    let chains = read(include_bytes!("dumps/chains.bin"), |m| match m {
        NfTablesMessage::NewChain(found) => chain(&found),
        _ => None,
    });
    let shown: Vec<_> = chains
        .iter()
        .map(|c| (c.table.as_str(), c.name.as_str(), c.base))
        .collect();
    let expected = [
        ("nat", "KUBE-SERVICES", false),
        ("nat", "KUBE-SEP-AAAAAAAAAAAAAAAA", false),
        ("nat", "OUTPUT", true),
    ];
    assert_eq!(shown, expected);
}

#[test]
fn of_rules_only_those_that_lead_to_chains_are_read() {
    let jumps = read(include_bytes!("dumps/rules.bin"), |m| match m {
        NfTablesMessage::NewRule(rule) => jump(&rule),
        _ => None,
    });
    let [jump] = &jumps[..] else {
        panic!("{jumps:?}")
    };
    assert_eq!(
        (jump.table.as_str(), jump.chain.as_str()),
        ("nat", "OUTPUT")
    );
    assert_eq!(jump.to, "KUBE-SERVICES");
    assert!(jump.handle > 0);
}
