//! What is asked of the proxy, and what it should say.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::ask::{Answer, Site};
use super::install::Kind;
use super::objects::{BLOG, BY_SERVICE, Ingress, NAMESPACE, PLAIN, SHOP, is_pod, secret};
use super::{BALANCER, Entry, PATIENCE, Stage, field, install, load};
use crate::cluster::control::{apply, kubectl};
use crate::cluster::images::write;
use crate::cluster::pki::site;
use crate::cluster::process::wait_for;
use crate::cluster::topology::{Node, state};
use crate::ui;

/// Requests by which the pods of two nodes are reached, both: one is missed once in 10^12.
const MANY: usize = 40;

fn pod_answers(answer: &Answer) -> Result<()> {
    ensure!(
        answer.status == 200 && is_pod(&answer.body),
        "no pod's name comes back: {answer:?}"
    );
    Ok(())
}

fn certificate(host: &str) -> Result<PathBuf> {
    site(host, "first").map(|(certificate, _)| certificate)
}

/// By every way: a pod answers for its host, and nobody for another.
pub(super) fn hosts(stage: &Stage) -> Result<()> {
    for entry in stage.entries(0) {
        pod_answers(&Site::plain(PLAIN).at(&entry).get("/hostname")?)?;
        let nobody = Site::plain("nobody.test").at(&entry).get("/")?;
        ensure!(nobody.status == 404, "{entry:?}: {nobody:?}");
    }
    Ok(())
}

/// Each host shows its own certificate, and HTTP leads to HTTPS.
pub(super) fn tls(stage: &Stage) -> Result<()> {
    for entry in stage.entries(1) {
        let shop = Site::secure(SHOP, certificate(SHOP)?);
        pod_answers(&shop.at(&entry).get("/hostname")?)?;
        let blog = Site::secure(BLOG, certificate(BLOG)?);
        pod_answers(&blog.at(&entry).get("/api/hostname")?)?;
    }
    for entry in stage.balancer(0) {
        let answer = Site::plain(SHOP).at(&entry).get("/hostname")?;
        ensure!(
            answer.status == 308 && answer.location == format!("https://{SHOP}/hostname"),
            "HTTP does not lead to HTTPS: {answer:?}"
        );
    }
    Ok(())
}

/// What the pod is asked is what the annotation makes of the path.
pub(super) fn rewritten(stage: &Stage) -> Result<()> {
    for entry in stage.balancer(1) {
        let ask = |path| {
            let blog = Site::secure(BLOG, certificate(BLOG)?);
            blog.at(&entry).get(path)
        };
        pod_answers(&ask("/api/hostname")?)?;
        let said = ask("/api/echo?msg=a%20b")?;
        ensure!(said.status == 200 && said.body == "a b", "{said:?}");
        let other = ask("/hostname")?;
        ensure!(
            other.status == 404,
            "the path without /api is served: {other:?}"
        );
    }
    Ok(())
}

/// The proxy dials the Service: the agent of its node leads it on.
pub(super) fn by_service(stage: &Stage) -> Result<()> {
    let mut pods = BTreeSet::new();
    for entry in stage.balancer(0) {
        for _ in 0..MANY / 2 {
            let answer = Site::plain(BY_SERVICE).at(&entry).get("/hostname")?;
            pod_answers(&answer)?;
            pods.insert(answer.body);
        }
    }
    ensure!(
        !pods.is_empty(),
        "no pod has answered a request by its Service"
    );
    Ok(())
}

/// A header, as a pod gets it.
fn header(entry: &Entry, name: &str) -> Result<String> {
    let forged = "x-forwarded-for: 198.51.100.99";
    let answer = Site::plain(PLAIN)
        .header(forged)
        .header("x-real-ip: 198.51.100.99")
        .at(entry)
        .get("/header")?;
    let all: Value = serde_json::from_str(&answer.body).with_context(|| format!("{answer:?}"))?;
    let values = all[name].as_array().into_iter().flatten();
    let values: Vec<_> = values.filter_map(Value::as_str).collect();
    ensure!(values.len() == 1, "the pod gets {name} {values:?}");
    Ok(values[0].to_owned())
}

/// With `externalTrafficPolicy: Local` the pod is told the client's address, by every way, and
/// what a client says of itself does not count.
pub(super) fn client(stage: &Stage) -> Result<()> {
    for entry in stage.entries(0) {
        for name in ["X-Real-Ip", "X-Forwarded-For"] {
            let seen = header(&entry, name)?;
            ensure!(
                seen == entry.client(),
                "{entry:?}: {name} is {seen}, and the client is {}",
                entry.client()
            );
        }
    }
    Ok(())
}

/// With `Cluster` it is the client's where a node leads to a pod of its own, and else the node's:
/// the proxy sees no other.
pub(super) fn client_hidden(stage: &Stage) -> Result<()> {
    install::set_policy("Cluster")?;
    let (node, nodes) = (Node(1), stage.nodes);
    let (v4, v6) = node.addrs();
    for (entry, own) in stage.node(node, 0).into_iter().zip([v4, v6]) {
        let mut expected = BTreeSet::from([entry.client().to_owned()]);
        if nodes > 1 {
            expected.insert(own);
        }
        let what = format!("{} leads to pods of all nodes", entry.addr);
        wait_for(&what, PATIENCE, None, || {
            let seen = (0..MANY).map(|_| header(&entry, "X-Real-Ip"));
            let seen: BTreeSet<_> = seen.collect::<Result<_>>()?;
            ensure!(
                seen == expected,
                "X-Real-Ip is {seen:?}, expected is {expected:?}"
            );
            Ok(())
        })?;
    }
    Ok(())
}

/// One of the replicas writes the addresses of the Service.
pub(super) fn status(_: &Stage) -> Result<()> {
    let mut expected = BALANCER.to_vec();
    expected.sort_unstable();
    wait_for("Ingresses have addresses", PATIENCE, None, || {
        for name in ["plain", "shop", "blog", "service"] {
            let addrs = field("ingress", name, "{.status.loadBalancer.ingress[*].ip}")?;
            let mut addrs: Vec<_> = addrs.split(' ').collect();
            addrs.sort_unstable();
            ensure!(addrs == expected, "Ingress {name} has {addrs:?}");
        }
        Ok(())
    })
}

/// It counts without a restart.
pub(super) fn newcomer(stage: &Stage) -> Result<()> {
    let host = "new.test";
    for entry in stage.balancer(0) {
        let before = Site::plain(host).at(&entry).get("/hostname")?;
        ensure!(before.status == 404, "before it comes: {before:?}");
    }
    Ingress::new("new", host).apply()?;
    wait_for("the new host is served", PATIENCE, None, || {
        let mut all = stage.entries(0).into_iter();
        all.try_for_each(|entry| pod_answers(&Site::plain(host).at(&entry).get("/hostname")?))
    })
}

/// So does another certificate.
pub(super) fn rotation(stage: &Stage) -> Result<()> {
    let next = site(SHOP, "second")?;
    apply(&secret(SHOP, &next)?.to_string())?;
    wait_for("the new certificate is shown", PATIENCE, None, || {
        let shop = || Site::secure(SHOP, next.0.clone());
        let mut all = stage.entries(1).into_iter();
        all.try_for_each(|entry| pod_answers(&shop().at(&entry).get("/hostname")?))
    })
}

/// Of the Ingress that names it; and the others are served.
pub(super) fn event(stage: &Stage) -> Result<()> {
    let broken = Ingress {
        secret: Some("not-there"),
        ..Ingress::new("broken", "broken.test")
    };
    broken.apply()?;
    let of_it = "regarding.kind=Ingress,regarding.name=broken,reason=MissingSecret";
    let note = "jsonpath={.items[*].note}";
    let words = ["get", "events.events.k8s.io", "--field-selector", of_it];
    let words = [&["-n", NAMESPACE], &words[..], &["-o", note]].concat();
    wait_for("the Event comes", PATIENCE, None, || {
        let said = kubectl(&words)?;
        ensure!(
            said.contains(&format!("{NAMESPACE}/not-there")),
            "Events of it say {said:?}"
        );
        Ok(())
    })?;
    hosts(stage)
}

/// A path of a host that another Ingress has.
pub(super) fn refusal(_: &Stage) -> Result<()> {
    let second = Ingress::new("second", PLAIN);
    let file = state().join("second-ingress.json");
    write(&file, &second.object().to_string())?;
    let create = ["create", "--dry-run=server", "-f"];
    match kubectl(&[&create[..], &[&file.display().to_string()]].concat()) {
        Ok(_) => bail!("the API server takes it"),
        Err(error) => {
            let said = format!("{error:#}");
            ensure!(
                said.contains("validate.ingresses.bascule.dev")
                    && said.contains(&format!("{NAMESPACE}/plain")),
                "it is refused for another reason: {said}"
            );
            Ok(())
        }
    }
}

/// A rolling restart, and no request fails.
pub(super) fn restart(stage: &Stage) -> Result<()> {
    let certificate = site(SHOP, "second")?.0;
    let what = || Kind::DaemonSet.restart(stage.nodes);
    let outcome = load::during(&certificate, what)?;
    ui::say(outcome.text());
    outcome.check()
}

/// The other kind of the chart, and its rolling restart.
pub(super) fn deployment(stage: &Stage) -> Result<()> {
    let certificate = site(SHOP, "second")?.0;
    let outcome = load::during(&certificate, || {
        install::to_deployment(&stage.deployment)?;
        Kind::Deployment.restart(stage.nodes)
    })?;
    ui::say(outcome.text());
    outcome.check()
}
