//! `loadBalancerSourceRanges`, as kube-proxy 1.36 has them.

mod common;

use common::*;

#[test]
fn source_ranges_hold_for_load_balancer_ips_only() {
    let mut svc = load_balancer(&["203.0.113.1"]);
    svc.source_ranges = vec![" 198.51.100.0/24 ".into(), "198.51.100.77/24".into()];
    svc.external_ips = ips(&["198.51.100.1"]);
    svc.ports = vec![port("http:80/TCP>30080")];
    let text = dump(&svc, &pods(), &node());
    assert_eq!(lines(&text, "frontend", "source-ranges").len(), 2, "{text}");
    assert_eq!(
        lines(&text, "frontend 203.0.113.1", "source-ranges").len(),
        2
    );
    assert_eq!(
        lines(&text, "range", ""),
        ["range default/web:http 198.51.100.0/24"]
    );
}

#[test]
fn source_ranges_that_say_everyone_or_nothing_admit_everyone() {
    for (what, ranges, problems) in [
        ("none", vec![], 0),
        ("everyone", vec!["10.0.0.0/8", "0.0.0.0/0"], 0),
        ("of the other family", vec!["2001:db8::/32"], 0),
        ("not to be parsed", vec!["10.0.0.0/99"], 1),
        ("empty text", vec!["", "  "], 0),
    ] {
        let mut svc = load_balancer(&["203.0.113.1"]);
        svc.source_ranges = ranges.into_iter().map(str::to_owned).collect();
        let text = dump(&svc, &pods(), &node());
        assert_eq!(
            lines(&text, "frontend", "source-ranges").len(),
            0,
            "{what}: {text}"
        );
        assert_eq!(lines(&text, "range", "").len(), 0, "{what}");
        assert_eq!(
            lines(&text, "problem default/web InvalidSourceRange", "").len(),
            problems,
            "{what}"
        );
    }
}

#[test]
fn each_family_has_source_ranges_of_its_own() {
    let mut svc = load_balancer(&["203.0.113.1", "2001:db8::1"]);
    svc.cluster_ips = ips(&["10.96.0.1", "fd10::1"]);
    svc.source_ranges = vec!["2001:db8:1::/48".into(), "nonsense".into()];
    let text = dump(&svc, &pods(), &node());
    assert_eq!(
        lines(&text, "frontend [2001:db8::1]:80", "source-ranges").len(),
        2,
        "{text}"
    );
    assert_eq!(
        lines(&text, "frontend 203.0.113.1:80", "source-ranges").len(),
        0,
        "{text}"
    );
    assert_eq!(
        lines(&text, "range", ""),
        ["range default/web:http 2001:db8:1::/48"]
    );
    assert_eq!(
        lines(&text, "problem default/web InvalidSourceRange", "nonsense").len(),
        1
    );
}

#[test]
fn source_ranges_that_admit_the_node_admit_the_vip_too() {
    let mut svc = load_balancer(&["203.0.113.1"]);
    svc.source_ranges = vec!["192.168.0.0/16".into()];
    let text = dump(&svc, &pods(), &node());
    let want = [
        "range default/web:http 192.168.0.0/16",
        "range default/web:http 203.0.113.1/32",
    ];
    assert_eq!(lines(&text, "range", ""), want);
}
