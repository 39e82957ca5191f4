//! The addresses that SNAT writes: replies come to them, whatever the services are.

use lb_common::{Addr, Be16, hash};
use lb_plan::{Limits, Planner, op::Op};

fn bit(addr: Addr) -> u32 {
    hash::filter_bit(hash::filter_kind::VIP, addr, Be16::new(0), 0)
}

fn addr(text: &str) -> Addr {
    Addr::from(text.parse::<std::net::IpAddr>().unwrap())
}

#[test]
fn replies_to_the_nodes_addresses_pass_the_filter_without_a_node_port() {
    let (one, two) = (addr("192.0.2.1"), addr("2001:db8::1"));
    let mut planner = Planner::new(Limits::default());
    planner.set_snat_addresses([one, two]);
    planner.finish_sync();
    let wanted = [bit(one), bit(two)].map(Op::SetFilterBit);
    let ops = planner.take_batch().ops;
    assert_eq!(ops.len(), 2);
    assert!(wanted.iter().all(|op| ops.contains(op)), "{ops:?}");
    assert!(!planner.has_pending());
    assert_eq!(planner.clear_filter(|_| false).ops, [], "they are in use");

    let three = addr("192.0.2.2");
    planner.set_snat_addresses([three, two]);
    assert_eq!(planner.take_batch().ops, [Op::SetFilterBit(bit(three))]);
    let cleared = planner.clear_filter(|_| false).ops;
    assert_eq!(cleared, [Op::ClearFilterBit(bit(one))]);
}
