//! The configuration at the command line: precedence, refusals, and the page
//! that says what becomes of each field and flag.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use lb_userspace::config::{
    self,
    fields::{Effect, FIELDS},
};
use serde_json::Value;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/kube_proxy")
        .join(name)
}

fn bascule(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bascule"));
    command.env_remove("RUST_LOG").env_remove("NODE_NAME");
    command.arg("agent").args(arguments).output().unwrap()
}

/// What `--write-config-to` writes, and the log.
fn written(arguments: &[&str]) -> (config::File, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("written.yaml");
    let mut all = arguments.to_vec();
    all.extend(["--write-config-to", path.to_str().unwrap()]);
    let output = bascule(&all);
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{log}");
    (
        config::parse(&fs::read_to_string(path).unwrap()).unwrap(),
        log,
    )
}

fn document(file: &config::File) -> Value {
    file.kube_proxy.as_ref().unwrap().document()
}

fn golden(name: &str) -> Value {
    let file = config::read(&data(name)).unwrap();
    document(&file)
}

/// The same command line, given to kube-proxy v1.36.3, wrote the golden file.
#[test]
fn flags_give_what_they_give_kube_proxy() {
    let (file, log) = written(&[
        "--hostname-override",
        "NodeX",
        "--bind_address",
        "::",
        "--proxy-mode",
        "nftables",
        "--iptables-sync-period",
        "1m",
        "--masquerade-all",
        "--ipvs-sync-period",
        "9s",
        "--cluster-cidr",
        "10.0.0.0/8",
        "--v",
        "4",
    ]);
    assert_eq!(document(&file), golden("flags.written.yaml"));
    assert!(log.contains("clusterCIDR has no meaning here"), "{log}");
}

#[test]
fn beside_a_file_only_the_flags_of_the_log_and_the_name_count() {
    let path = data("kubeadm.yaml");
    let (file, log) = written(&[
        "--config",
        path.to_str().unwrap(),
        "--hostname-override",
        "NodeX",
        "--bind-address",
        "1.2.3.4",
        "--healthz-bind-address",
        "1.2.3.4:99",
        "--v=4",
        "--logging-format",
        "json",
        "--nodeport-addresses",
        "primary",
        "--oom-score-adj",
        "5",
    ]);
    let mut expected = golden("kubeadm.written.yaml");
    expected["hostnameOverride"] = "nodex".into();
    expected["logging"]["format"] = "json".into();
    expected["logging"]["verbosity"] = 4.into();
    assert_eq!(document(&file), expected);
    let ignored =
        "--bind-address, --healthz-bind-address, --nodeport-addresses, --oom-score-adj ignored";
    assert!(log.contains(ignored), "{log}");
    assert!(log.starts_with('{'), "the log is JSON: {log}");
}

#[test]
fn beside_a_file_bascules_own_flags_go_before_its_document() {
    let path = data("lenient.yaml");
    let path = path.to_str().unwrap();
    let (file, log) = written(&["--config", path, "--uplinks", "eth0", "--max-slots", "4096"]);
    assert_eq!(file.bascule.xdp, Some(config::Xdp::Generic));
    assert_eq!(file.bascule.uplinks, ["eth0"]);
    assert_eq!(file.bascule.max.slots, Some(4096));
    assert!(log.contains("foo is not a field of it"), "{log}");
    let (file, _) = written(&["--config", path, "--xdp", "off"]);
    assert_eq!(file.bascule.xdp, Some(config::Xdp::Off));
}

#[test]
fn what_is_wrong_ends_the_agent_with_the_field_and_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.yaml");
    let own = "apiVersion: config.bascule.dev/v1alpha1\nkind: BasculeConfiguration\n";
    for (text, words) in [
        (
            format!("{own}max: {{slots: 3}}"),
            "max.slots: 3 is not in 16",
        ),
        (
            format!("{own}serviceNodePortRange: 9-5"),
            "serviceNodePortRange",
        ),
        (format!("{own}xpd: off"), "unknown field `xpd`"),
        (
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: x"
                .into(),
            "mode: \"x\" must be",
        ),
    ] {
        fs::write(&path, text).unwrap();
        let output = bascule(&["--config", path.to_str().unwrap()]);
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{log}");
        assert!(log.contains(words), "{words}: {log}");
    }
    for (flags, words) in [
        (vec!["--config", "/nowhere/x.yaml"], "/nowhere/x.yaml"),
        (
            vec!["--nodeport-addresses", "10.0.0.0"],
            "nodePortAddresses",
        ),
        (vec!["--proxy-mode", "userspace"], "mode: \"userspace\""),
    ] {
        let output = bascule(&flags);
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{log}");
        assert!(log.contains(words), "{words}: {log}");
    }
    // What clap refuses is wrong usage.
    let output = bascule(&["--oom-score-adj", "low"]);
    assert_eq!(output.status.code(), Some(2));
}

/// The rows of the page's table, from the code's.
fn rows() -> Vec<String> {
    let code = |text: &str| match text {
        "" => String::new(),
        text => format!("`{text}`"),
    };
    let row = |f: &config::fields::Field| {
        let flag = match f.flag {
            "" => String::new(),
            flag => code(&format!("--{flag}")),
        };
        let effect = match f.effect {
            Effect::Honoured => "honoured",
            Effect::Mapped => "mapped",
            Effect::Nothing => "no meaning",
        };
        format!("| {} | {flag} | {effect} | {} |", code(f.path), f.note)
    };
    FIELDS.iter().map(row).collect()
}

#[test]
fn the_page_says_of_each_field_and_flag_what_the_code_does() {
    let page = include_str!("../../docs/kube-proxy.md");
    let table: Vec<&str> = page
        .lines()
        .skip_while(|line| !line.starts_with("| field "))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    let rows = rows();
    assert_eq!(table, rows, "the table must be:\n{}", rows.join("\n"));
}
