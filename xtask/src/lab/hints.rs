//! What to try while the lab is up: lines that work as printed, in a terminal of root.

use std::path::Path;

use super::rows::{Expect, Kind, Proto, Row};
use super::topology::{Node, Place};
use super::world::Lab;
use super::{l7, web};

/// A line to type, and what it shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Hint {
    /// What it shows.
    pub what: &'static str,
    /// The line.
    pub line: String,
}

/// The lines for this lab.
pub(crate) fn hints(lab: &Lab, rows: &[Row], bascule: &Path) -> Vec<Hint> {
    let host = lab.cgroup(&Place::Node.cgroup());
    let mut hints = Vec::new();
    let mut curl = |what, kind, place: Place, v4: bool| {
        let found = rows.iter().find(|r| {
            (r.key.kind, r.key.place, r.key.proto, r.key.target.is_ipv4())
                == (kind, place, Proto::Tcp, v4)
                && matches!(r.expect, Expect::Spread(_))
        });
        if let Some(row) = found {
            hints.push(Hint {
                what,
                line: curl_line(place, &host, &row.key.target.to_string()),
            });
        }
    };
    curl("a pod dials a ClusterIP", Kind::ClusterIp, Place::Pod, true);
    curl(
        "a node dials one, by its socket hooks (hence the cgroup)",
        Kind::ClusterIp,
        Place::Node,
        false,
    );
    curl(
        "a NodePort from outside",
        Kind::NodePort,
        Place::Outside,
        true,
    );
    curl(
        "a LoadBalancer IP from outside",
        Kind::LoadBalancerIp,
        Place::Outside,
        true,
    );
    curl(
        "an external IP from outside, IPv6",
        Kind::ExternalIp,
        Place::Outside,
        false,
    );
    hints.extend(by_name(rows));
    hints.extend(views(bascule));
    hints
}

/// Requests to Ingresses, by their names.
fn by_name(rows: &[Row]) -> Vec<Hint> {
    let asked = |row: &&Row| row.key.target.is_ipv4() && matches!(row.expect, Expect::Spread(_));
    let mut hints = Vec::new();
    for row in rows.iter().filter(asked) {
        let Some(ask) = &row.key.ask else { continue };
        let (netns, [flag, place]) = (row.key.place.netns(), web::resolve(&row.key, ask));
        let certificates = l7::certificates();
        hints.push(Hint {
            what: "an Ingress from outside",
            line: format!(
                "ip netns exec {netns} curl -s --cacert {} {flag} {place} {}",
                certificates.display(),
                ask.url
            ),
        });
    }
    hints
}

fn curl_line(place: Place, host: &Path, target: &str) -> String {
    let curl = format!("ip netns exec {} curl -gs http://{target}/", place.netns());
    if place == Place::Node {
        return format!(
            "sh -c 'echo $$ > {}/cgroup.procs; exec {curl}'",
            host.display()
        );
    }
    curl
}

/// The CLI's and bpftool's views of a node's maps.
fn views(bascule: &Path) -> Vec<Hint> {
    let node = Node(1);
    let (bpffs, state) = (node.bpffs(), node.state_dir());
    let cli = |what, words: &str| Hint {
        what,
        line: format!(
            "{} {words} --bpffs {} --state-dir {}",
            bascule.display(),
            bpffs.display(),
            state.display()
        ),
    };
    vec![
        cli("services as node n1's maps have them", "service list"),
        cli("their backends, with counters", "backend list"),
        cli("how a service's flows are spread", "maglev show nodeport"),
        cli("the flows that n1 tracks", "conntrack list"),
        cli("how the node is", "status"),
        Hint {
            what: "a map itself",
            line: format!(
                "bpftool map dump pinned {}/bascule/lb_frontends_v1",
                bpffs.display()
            ),
        },
        Hint {
            what: "all programs of the kernel, with their run time",
            line: "bpftool prog show".to_owned(),
        },
        Hint {
            what: "an agent's log",
            line: format!("cat {}", node.log().display()),
        },
    ]
}

/// The text that is printed once the first round is over.
pub(crate) fn text(hints: &[Hint], manifests: &[&Path]) -> String {
    let places: Vec<_> = manifests
        .iter()
        .map(|dir| dir.display().to_string())
        .collect();
    let mut text = "Try in another terminal (as root):\n".to_owned();
    for hint in hints {
        text.push_str(&format!("  # {}\n  {}\n", hint.what, hint.line));
    }
    text.push_str(&format!(
        "Or edit a manifest in {}: the agents follow, and so does the table.\nCtrl-C takes everything down.",
        places.join(" or ")
    ));
    text
}
