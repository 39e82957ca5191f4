//! `cargo xtask chart`: `manifests/install.yaml`, rendered from the Helm chart by helm itself,
//! and what lint checks of both.

mod helm;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use helm::Helm;

use crate::{paths, ui};

/// What `install.yaml` begins with.
const HEADER: &str = "\
# Bascule on every node of a cluster: `kubectl apply -f install.yaml`.
# Rendered from helm/bascule by `cargo xtask chart`: edit that, or install with helm.
# docs/install.md says what to set, above all the API server's address.
";

/// Values that the chart must refuse, and what the refusal must name.
const REFUSED: [(&str, &str); 21] = [
    ("config=mode: iptables", "config"),
    ("k8sServiceHost=https://10.0.0.1", "k8sServiceHost"),
    ("k8sServicePort=70000", "k8sServicePort"),
    ("socketLB=some", "socketLB"),
    ("socketLb=all", "socketLb"),
    ("image.digest=latest", "digest"),
    ("paths.bpffs=sys/fs/bpf", "bpffs"),
    ("updateStrategy.maxUnavailable=0", "maxUnavailable"),
    ("updateStrategy.maxSurge=1", "maxSurge"),
    ("healthz.bindAddress=localhost", "bindAddress"),
    ("serviceMonitor.enabled=true", "metrics.bindAddress"),
    ("healthServer.ports=1", "healthServer"),
    ("proxy.enable=true", "enable"),
    ("proxy.kind=StatefulSet", "kind"),
    ("proxy.enabled=true,proxy.hostPorts=true", "proxy.kind"),
    // A ConfigMap has text only.
    ("proxy.config.use-gzip=true", "use-gzip"),
    ("proxy.defaultSSLCertificate=tls", "defaultSSLCertificate"),
    ("proxy.ingressClass.name=nginx", "name"),
    ("proxy.webhook.failurePolicy=fail", "failurePolicy"),
    ("proxy.peers.key=abc", "peers"),
    (
        "proxy.enabled=true,proxy.serviceAccount.create=false",
        "proxy.serviceAccount.name",
    ),
];
/// Values, and what the rendered chart must have with them (or, after `!`, must not have).
const RENDERED: [(&str, &str); 53] = [
    (
        "config=kind: KubeProxyConfiguration",
        "--config=/etc/bascule/",
    ),
    (
        "config=kind: KubeProxyConfiguration",
        "!--healthz-bind-address",
    ),
    ("k8sServiceHost=fd00::1", "name: KUBERNETES_SERVICE_HOST"),
    ("socketLB=all", "- SYS_ADMIN"),
    ("closePodSockets=false", "!SYS_ADMIN"),
    ("socketLB=host", "!SYS_ADMIN"),
    ("socketLB=off", "!/host/cgroup"),
    (
        "healthz.bindAddress=::",
        "--healthz-bind-address=[::]:10256",
    ),
    (
        "kubeConfigPath=/etc/kubeconfig",
        "automountServiceAccountToken: false",
    ),
    ("dashboards.enabled=true", "fleet.json: |"),
    ("dashboards.enabled=true", "node.json: |"),
    ("prometheusRule.enabled=true", "kind: PrometheusRule"),
    // Prometheus' templates are not helm's.
    ("prometheusRule.enabled=true", "{{ $labels.instance }}"),
    ("dashboards.enabled=false", "!kind: ConfigMap"),
    (
        "serviceMonitor.enabled=true,metrics.bindAddress=0.0.0.0",
        "kind: ServiceMonitor",
    ),
    ("image.tag=v9", "image: localhost/bascule:v9"),
    ("log.verbosity=2", "- -vv"),
    ("healthServer.enabled=true", "name: bascule-health"),
    ("healthServer.enabled=false", "!bascule-health"),
    ("metrics.bindAddress=::", "host: \"::1\""),
    ("metrics.bindAddress=10.0.0.1", "host: \"10.0.0.1\""),
    ("netfilterSysctls=true", "path: /proc/sys/net/netfilter"),
    ("netfilterSysctls=false", "--netfilter-sysctls=off"),
    ("proxy.replicas=3", "!bascule-proxy"),
    ("proxy.enabled=true,proxy.replicas=3", "replicas: 3"),
    ("proxy.enabled=true", "kind: PodDisruptionBudget"),
    ("proxy.enabled=true", "externalTrafficPolicy: Local"),
    ("proxy.enabled=true", "runAsNonRoot: true"),
    ("proxy.enabled=true", "!NET_BIND_SERVICE"),
    (
        "proxy.enabled=true",
        "--configmap=kube-system/bascule-proxy",
    ),
    (
        "proxy.enabled=true",
        "- --publish-service=kube-system/bascule-proxy",
    ),
    ("proxy.enabled=true", "resources: [ingresses/status]"),
    (
        "proxy.enabled=true",
        "resourceNames: [bascule-proxy-leader]",
    ),
    ("proxy.enabled=true,proxy.updateStatus=false", "!leases"),
    (
        "proxy.enabled=true,proxy.publishStatusAddresses={192.0.2.1,lb.test}",
        "--publish-status-address=192.0.2.1,lb.test",
    ),
    ("proxy.enabled=true", "controller: bascule.dev/ingress"),
    ("proxy.enabled=true", "!k8s.io/ingress-nginx"),
    (
        "proxy.enabled=true,proxy.ingressClass.nginx=true",
        "controller: k8s.io/ingress-nginx",
    ),
    (
        "proxy.enabled=true,proxy.config.proxy-body-size=8m",
        "proxy-body-size: 8m",
    ),
    (
        "proxy.enabled=true,proxy.kind=DaemonSet,proxy.hostPorts=true",
        "hostPort: 443",
    ),
    (
        "proxy.enabled=true,proxy.kind=DaemonSet",
        "!kind: Deployment",
    ),
    (
        "proxy.enabled=true,proxy.service.enabled=false",
        "!LoadBalancer",
    ),
    ("proxy.enabled=true", "!validating-webhook"),
    (
        "proxy.enabled=true,proxy.webhook.enabled=true",
        "kind: ValidatingWebhookConfiguration",
    ),
    (
        "proxy.enabled=true,proxy.webhook.enabled=true",
        "--validating-webhook-key=/etc/bascule/webhook/tls.key",
    ),
    ("proxy.enabled=true", "!peers"),
    (
        "proxy.enabled=true,proxy.peers.enabled=true",
        "- --peers=kube-system/bascule-proxy-peers",
    ),
    (
        "proxy.enabled=true,proxy.peers.enabled=true",
        "publishNotReadyAddresses: true",
    ),
    (
        "proxy.enabled=true,proxy.peers.enabled=true",
        "kind: Secret",
    ),
    (
        "proxy.enabled=true,proxy.peers.enabled=true",
        "!/etc/bascule/webhook",
    ),
    (
        "proxy.enabled=true,proxy.peers.enabled=true,proxy.peers.secret=own",
        "secretName: own",
    ),
    (
        "proxy.enabled=true,proxy.peers.enabled=true,proxy.peers.secret=own",
        "!kind: Secret",
    ),
    (
        "proxy.enabled=true,proxy.serviceMonitor.enabled=true",
        "name: bascule-proxy-metrics",
    ),
];

/// What to do with the chart.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask chart           # writes manifests/install.yaml\n  cargo xtask chart \
                  --check\n\nUses helm, and builds it from its Go module where it is not installed."
)]
pub(crate) struct Args {
    /// Write nothing: check the chart, its values' schema, and that the file is fresh, as lint does
    #[arg(long)]
    check: bool,
}

/// The subcommand.
///
/// # Errors
/// Helm cannot be had, or refuses the chart; or what is checked does not hold.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.check {
        return check();
    }
    let text = install(&Helm::ensure()?)?;
    fs::write(file(), text).with_context(|| format!("cannot write {}", file().display()))?;
    ui::say(format!("{} is up to date", file().display()));
    Ok(())
}

/// The chart's objects, with some values set (`name=value,name=value`).
///
/// # Errors
/// Helm cannot be had, or the chart refuses the values.
pub(crate) fn render(values: &str) -> Result<String> {
    Helm::ensure()?.render(values)
}

/// The step of lint: helm's own rules, the values' schema, and a fresh `install.yaml`.
///
/// # Errors
/// One of them does not hold.
pub(crate) fn check() -> Result<()> {
    let helm = Helm::ensure()?;
    helm.lint()?;
    version(&fs::read_to_string(chart().join("Chart.yaml")).context("the chart's Chart.yaml")?)?;
    for (values, word) in REFUSED {
        refused(values, word, helm.render(values))?;
    }
    for (values, word) in RENDERED {
        rendered(values, word, &helm.render(values)?)?;
    }
    let found = fs::read_to_string(file()).with_context(|| {
        format!(
            "cannot read {}: `cargo xtask chart` makes it",
            file().display()
        )
    })?;
    if found != install(&helm)? {
        bail!(
            "{} is not what the chart gives: `cargo xtask chart` renders it",
            file().display()
        );
    }
    Ok(())
}

fn chart() -> PathBuf {
    paths::root().join("manifests/helm/bascule")
}

fn file() -> PathBuf {
    paths::root().join("manifests/install.yaml")
}

fn install(helm: &Helm) -> Result<String> {
    Ok(format!("{HEADER}{}", without_blanks(&helm.render("")?)))
}

/// Helm 3 and helm 4 leave different blank lines between objects.
fn without_blanks(text: &str) -> String {
    let lines = text.lines().filter(|l| !l.trim().is_empty());
    lines.map(|l| format!("{l}\n")).collect()
}

/// The chart has the version of the program that it installs.
fn version(chart: &str) -> Result<()> {
    let own = env!("CARGO_PKG_VERSION");
    for line in [format!("version: {own}"), format!("appVersion: \"{own}\"")] {
        if !chart.lines().any(|l| l == line) {
            bail!("manifests/helm/bascule/Chart.yaml: the workspace's version wants `{line}`");
        }
    }
    Ok(())
}

fn refused(values: &str, word: &str, answer: Result<String>) -> Result<()> {
    match answer {
        Ok(_) => bail!("the chart takes {values}, which it must refuse"),
        Err(e) if format!("{e:#}").contains(word) => Ok(()),
        Err(e) => Err(e.context(format!("the chart refuses {values} without naming {word}"))),
    }
}

fn rendered(values: &str, word: &str, text: &str) -> Result<()> {
    let (wanted, word) = match word.strip_prefix('!') {
        Some(word) => (false, word),
        None => (true, word),
    };
    if text.contains(word) == wanted {
        Ok(())
    } else if wanted {
        bail!("the chart with {values} lacks `{word}`")
    } else {
        bail!("the chart with {values} has `{word}`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONITORING: &str = "manifests/helm/bascule/monitoring";

    fn read(path: &str) -> String {
        fs::read_to_string(paths::root().join(path)).unwrap()
    }

    #[test]
    fn a_refusal_must_name_the_value() {
        let said = |text: &'static str| Err(anyhow::anyhow!(text));
        assert!(refused("a=1", "a", said("at '/a': wrong")).is_ok());
        assert!(refused("a=1", "a", said("broken")).is_err());
        assert!(refused("a=1", "a", Ok(String::new())).is_err());
    }

    #[test]
    fn words_are_wanted_or_unwanted() {
        assert!(rendered("", "x", "xyz").is_ok());
        assert!(rendered("", "!x", "yz").is_ok());
        assert!(rendered("", "x", "yz").is_err());
        assert!(rendered("", "!x", "xyz").is_err());
    }

    #[test]
    fn the_chart_is_of_the_programs_version() {
        let own = env!("CARGO_PKG_VERSION");
        let chart = format!("name: bascule\nversion: {own}\nappVersion: \"{own}\"\n");
        assert!(version(&chart).is_ok());
        assert!(version(&chart.replace(&format!("version: {own}"), "version: 9")).is_err());
    }

    #[test]
    fn dashboards_and_alerts_ask_for_metrics_that_exist() {
        // A test of the agent's holds this list and its metrics together.
        let list = read("docs/metrics.md");
        for file in ["alerts.yaml", "fleet.json", "node.json"] {
            let text = read(&format!("{MONITORING}/{file}"));
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let metrics: Vec<_> = words
                .filter(|w| {
                    ["bascule_", "kubeproxy_", "process_"].map(|p| w.starts_with(p)) != [false; 3]
                })
                .map(|w| w.trim_end_matches("_bucket"))
                .collect();
            assert!(metrics.len() > 5, "{file}: {metrics:?}");
            for metric in metrics {
                assert!(list.contains(&format!("`{metric}`")), "{file}: {metric}");
            }
        }
    }

    #[test]
    fn every_alert_has_its_page_and_every_page_its_alert() {
        let alerts = read(&format!("{MONITORING}/alerts.yaml"));
        let after = |word: &'static str| {
            let lines = alerts.lines().map(|l| l.trim_start_matches([' ', '-']));
            lines.filter_map(move |l| l.strip_prefix(word))
        };
        let names: Vec<_> = after("alert: ").collect();
        let place = "https://github.com/bascule-lb/bascule/blob/main/docs/runbooks";
        let urls = names.iter().map(|name| format!("{place}/{name}.md"));
        assert_eq!(
            after("runbook_url: ").collect::<Vec<_>>(),
            urls.collect::<Vec<_>>()
        );
        let pages = fs::read_dir(paths::root().join("docs/runbooks")).unwrap();
        let pages = pages.map(|p| p.unwrap().file_name().into_string().unwrap());
        let mut pages: Vec<_> = pages.filter(|p| p != "README.md").collect();
        let mut expected: Vec<_> = names.iter().map(|name| format!("{name}.md")).collect();
        pages.sort();
        expected.sort();
        assert_eq!(pages, expected);
    }

    #[test]
    fn blank_lines_do_not_count() {
        assert_eq!(without_blanks("a:\n  b\n\n---\n \nc"), "a:\n  b\n---\nc\n");
    }
}
