//! The settings of the kernel's conntrack that follow from a configuration.
//! kubernetes v1.36.3, pkg/proxy/conntrack/sysctls.go.

use super::KubeProxy;
use crate::node::netfilter::Sysctl;

/// However many CPUs there are, `maxPerCore` gives no more than this (`getConntrackMax`).
const MOST: i64 = 1_048_576;
/// Fields and what they set, in seconds; 0 leaves it as it is.
const TIMEOUTS: [(&str, &str); 4] = [
    (
        "conntrack.tcpEstablishedTimeout",
        "nf_conntrack_tcp_timeout_established",
    ),
    (
        "conntrack.tcpCloseWaitTimeout",
        "nf_conntrack_tcp_timeout_close_wait",
    ),
    ("conntrack.udpTimeout", "nf_conntrack_udp_timeout"),
    (
        "conntrack.udpStreamTimeout",
        "nf_conntrack_udp_timeout_stream",
    ),
];

impl KubeProxy {
    /// What the kernel's conntrack is to be like on a machine with so many CPUs.
    pub fn conntrack(&self, cpus: i64) -> Vec<Sysctl> {
        let set = |name, value, at_least| Sysctl {
            name,
            value,
            at_least,
        };
        let mut sysctls = Vec::new();
        if let Some(max) = self.conntrack_max(cpus).filter(|max| *max > 0) {
            // kube-proxy lowers it too. Who has raised it has a reason.
            sysctls.push(set("nf_conntrack_max", max, true));
            // The sysctl, and not the parameter of the module that kube-proxy writes:
            // it is the same table, and one directory less to reach.
            sysctls.push(set("nf_conntrack_buckets", max / 4, true));
        }
        for (path, name) in TIMEOUTS {
            let nanos = self.nanos(path);
            if nanos > 0 {
                sysctls.push(set(name, nanos / 1_000_000_000, false));
            }
        }
        if self.is("conntrack.tcpBeLiberal") {
            sysctls.push(set("nf_conntrack_tcp_be_liberal", 1, false));
        }
        sysctls
    }

    fn conntrack_max(&self, cpus: i64) -> Option<i64> {
        let per_core = self.number("conntrack.maxPerCore");
        let scaled = per_core.saturating_mul(cpus);
        match scaled > MOST {
            _ if per_core <= 0 => None,
            true => Some(MOST),
            false => Some(scaled.max(self.number("conntrack.min"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{KUBE_PROXY, parse};

    fn sysctls(fields: &str, cpus: i64) -> Vec<(&'static str, i64)> {
        let text = format!(
            "apiVersion: {}\nkind: {}\nconntrack: {fields}\n",
            KUBE_PROXY.0, KUBE_PROXY.1
        );
        let kube = parse(&text).unwrap().kube_proxy.unwrap();
        let all = kube.conntrack(cpus);
        all.iter().map(|s| (s.name, s.value)).collect()
    }

    #[test]
    fn the_size_follows_from_the_cpus_as_with_kube_proxy() {
        for (fields, cpus, max) in [
            ("{}", 1, Some(131_072)),
            ("{}", 4, Some(131_072)),
            ("{}", 5, Some(163_840)),
            ("{}", 32, Some(1_048_576)),
            ("{}", 33, Some(1_048_576)),
            ("{maxPerCore: 0}", 64, None),
            ("{maxPerCore: 67890}", 3, Some(203_670)),
            ("{maxPerCore: 1, min: 123456}", 64, Some(123_456)),
            ("{maxPerCore: 100, min: 0}", 2, Some(200)),
            ("{maxPerCore: 2000000, min: 3000000}", 1, Some(1_048_576)),
            ("{maxPerCore: 1, min: 3000000}", 1, Some(3_000_000)),
        ] {
            let found = sysctls(fields, cpus);
            let value = |name| found.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
            assert_eq!(value("nf_conntrack_max"), max, "{fields} {cpus}");
            let buckets = value("nf_conntrack_buckets");
            assert_eq!(buckets, max.map(|max| max / 4), "{fields} {cpus}");
        }
    }

    #[test]
    fn timeouts_are_seconds_and_nothing_is_left_as_it_is() {
        let defaults = [
            ("nf_conntrack_max", 131_072),
            ("nf_conntrack_buckets", 32_768),
            ("nf_conntrack_tcp_timeout_established", 86_400),
            ("nf_conntrack_tcp_timeout_close_wait", 3_600),
        ];
        assert_eq!(sysctls("{}", 2), defaults);
        let none = "{maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}";
        assert_eq!(sysctls(none, 2), []);
        let all = "{maxPerCore: 0, tcpEstablishedTimeout: 1m30.9s, tcpCloseWaitTimeout: 1h, udpTimeout: 10s, udpStreamTimeout: 2m, tcpBeLiberal: true}";
        let expected = [
            ("nf_conntrack_tcp_timeout_established", 90),
            ("nf_conntrack_tcp_timeout_close_wait", 3_600),
            ("nf_conntrack_udp_timeout", 10),
            ("nf_conntrack_udp_timeout_stream", 120),
            ("nf_conntrack_tcp_be_liberal", 1),
        ];
        assert_eq!(sysctls(all, 2), expected);
    }
}
