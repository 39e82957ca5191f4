use std::{collections::BTreeSet, time::Duration};

use lb_plan::model::NodePortAddresses;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    fields::{Effect, FIELDS},
    *,
};

/// Files, and what `kube-proxy --config FILE --write-config-to` of Kubernetes
/// v1.36.3 makes of them.
const WRITTEN: [(&str, &str); 3] = [
    (
        include_str!("../../tests/kube_proxy/kubeadm.yaml"),
        include_str!("../../tests/kube_proxy/kubeadm.written.yaml"),
    ),
    (
        include_str!("../../tests/kube_proxy/every-field.yaml"),
        include_str!("../../tests/kube_proxy/every-field.written.yaml"),
    ),
    (
        include_str!("../../tests/kube_proxy/lenient.yaml"),
        include_str!("../../tests/kube_proxy/lenient.written.yaml"),
    ),
];

fn value(text: &str) -> Value {
    yaml(text, false).unwrap()
}

fn kube(fields: &str) -> KubeProxy {
    let text = format!(
        "apiVersion: {}\nkind: {}\n{fields}\n",
        KUBE_PROXY.0, KUBE_PROXY.1
    );
    parse(&text).unwrap().kube_proxy.unwrap()
}

#[test]
fn files_are_completed_as_kube_proxy_completes_them() {
    for (file, written) in WRITTEN {
        let file = parse(file).unwrap();
        assert_eq!(file.kube_proxy.unwrap().document(), value(written));
    }
}

#[test]
fn a_written_file_says_the_same_when_it_is_read() {
    for (text, _) in WRITTEN {
        let file = parse(text).unwrap();
        let (kube, own) = (file.kube_proxy.unwrap(), file.bascule);
        let again = parse(&write(&kube, &own).unwrap()).unwrap();
        assert_eq!(again.warnings, Vec::<String>::new());
        assert_eq!(again.bascule, own);
        assert_eq!(again.kube_proxy.unwrap().document(), kube.document());
    }
}

#[test]
fn unknown_and_doubled_fields_of_kube_proxys_document_are_warned_of() {
    let file = parse(WRITTEN[2].0).unwrap();
    let all = file.warnings.join("\n");
    for words in [
        "foo is not a field",
        "iptables.unknown is not a field",
        "line 9: duplicate mapping key: bindAddress; the last counts",
    ] {
        assert!(all.contains(words), "{words}: {all}");
    }
    assert_eq!(file.warnings.len(), 3);
    assert_eq!(file.bascule.xdp, Some(Xdp::Generic));
    assert_eq!(parse(WRITTEN[1].0).unwrap().warnings, Vec::<String>::new());
}

#[test]
fn files_that_are_wrong_are_refused_with_the_field() {
    let kube = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
    let own = "apiVersion: config.bascule.dev/v1alpha1\nkind: BasculeConfiguration\n";
    for (text, words) in [
        (String::new(), "no document"),
        ("kind: KubeProxyConfiguration".into(), "apiVersion"),
        ("Twas bryllyg, and ye slythy toves".into(), "apiVersion"),
        ("bindAddress: ::".into(), "line 1"),
        (
            "kind: KubeSchedulerConfiguration".into(),
            "KubeSchedulerConfiguration",
        ),
        (
            format!("{kube}---\n{kube}"),
            "two documents KubeProxyConfiguration",
        ),
        (format!("{kube}mode: 1"), "mode: must be a string, not 1"),
        (
            format!("{kube}iptables: {{syncPeriod: 5}}"),
            "iptables.syncPeriod: must be a duration",
        ),
        (format!("{kube}iptables: 5"), "iptables: must have fields"),
        (
            format!("{kube}oomScoreAdj: low"),
            "oomScoreAdj: must be a whole number",
        ),
        (format!("{own}foo: 1"), "unknown field `foo`"),
        (format!("{own}max: {{frontend: 1}}"), "max.frontend"),
        (format!("{own}xdp: never"), "xdp: unknown variant `never`"),
        (format!("{own}xdp: off\nxdp: auto"), "duplicate"),
    ] {
        let error = format!("{:#}", parse(&text).unwrap_err());
        assert!(error.contains(words), "{words:?} in {error:?}");
    }
}

/// Fields, and what is said of them.
const REFUSED: [(&str, &str); 22] = [
    (
        "showHiddenMetricsForVersion: '1.34'",
        "showHiddenMetricsForVersion",
    ),
    (
        "logging: {flushFrequency: -5}",
        "logging.flushFrequency: must be more than 0",
    ),
    (
        "logging: {options: {text: {infoBufferSize: 4Mi}}}",
        "LoggingAlphaOptions is off",
    ),
    (
        "logging: {options: {json: {infoBufferSize: x}}}",
        "infoBufferSize: \"x\" must be a size",
    ),
    (
        "logging: {format: json, vmodule: [{filePattern: a, verbosity: 1}]}",
        "only for the format text",
    ),
    (
        "iptables: {masqueradeBit: 32}",
        "iptables.masqueradeBit: 32 must be 31 or less",
    ),
    ("oomScoreAdj: -1001", "oomScoreAdj"),
    ("conntrack: {min: -1}", "conntrack.min"),
    (
        "conntrack: {tcpCloseWaitTimeout: -1s}",
        "conntrack.tcpCloseWaitTimeout",
    ),
    ("mode: userspace", "mode: \"userspace\""),
    (
        "iptables: {syncPeriod: 1s, minSyncPeriod: 2s}",
        "iptables.syncPeriod: 1s must be",
    ),
    ("configSyncPeriod: -5m", "configSyncPeriod"),
    ("bindAddress: '[::]'", "bindAddress"),
    (
        "healthzBindAddress: 1.2.3.4:0",
        "healthzBindAddress: \"0\" must be a valid port",
    ),
    (
        "metricsBindAddress: localhost:1",
        "metricsBindAddress: \"localhost\" must be a valid IP",
    ),
    (
        "nodePortAddresses: [primary, 10.0.0.0/8]",
        "`primary` stands alone",
    ),
    (
        "nodePortAddresses: [10.0.0.0]",
        "nodePortAddresses: \"10.0.0.0\"",
    ),
    ("detectLocalMode: Here", "detectLocalMode"),
    (
        "detectLocalMode: BridgeInterface",
        "detectLocal.bridgeInterface: must not be empty",
    ),
    ("clusterCIDR: 10.0.0.0/8,10.1.0.0/16", "clusterCIDR"),
    ("logging: {format: xml}", "logging.format"),
    (
        "logging: {vmodule: [{filePattern: 'a=b', verbosity: 1}]}",
        "logging.vmodule",
    ),
];

#[test]
fn what_kube_proxy_refuses_is_refused() {
    for (fields, words) in REFUSED {
        let errors = kube(fields).check().unwrap_err().join("; ");
        assert!(errors.contains(words), "{words:?} in {errors:?}");
    }
    // What belongs to another mode does not count.
    for fields in [
        "nftables: {masqueradeBit: 77}",
        "ipvs: {excludeCIDRs: [x], tcpTimeout: -1s}",
        "nodePortAddresses: ['010.0.0.0/8']",
        "showHiddenMetricsForVersion: '1.35'",
        "featureGates: {LoggingAlphaOptions: true}\nlogging: {options: {text: {infoBufferSize: 4Mi}}}",
    ] {
        assert_eq!(kube(fields).check(), Ok(()), "{fields}");
    }
}

#[test]
fn defaults_are_those_of_the_mode() {
    let nets = |list: &[(&str, u8)]| {
        NodePortAddresses::Cidrs(
            list.iter()
                .map(|(ip, len)| (ip.parse().unwrap(), *len))
                .collect(),
        )
    };
    for (fields, addresses, localhost) in [
        ("", nets(&[]), true),
        ("mode: iptables", nets(&[]), true),
        ("mode: ipvs", nets(&[]), false),
        ("mode: nftables", NodePortAddresses::Primary, false),
        (
            "nodePortAddresses: [primary]",
            NodePortAddresses::Primary,
            false,
        ),
        (
            "nodePortAddresses: [10.1.2.3/8]",
            nets(&[("10.0.0.0", 8)]),
            false,
        ),
        (
            "nodePortAddresses: [127.0.0.0/8, 10.0.0.0/8]",
            nets(&[("127.0.0.0", 8), ("10.0.0.0", 8)]),
            true,
        ),
        ("iptables: {localhostNodePorts: false}", nets(&[]), false),
    ] {
        let config = kube(fields);
        assert_eq!(config.node_port_addresses(), addresses, "{fields}");
        assert_eq!(config.localhost_node_ports(), localhost, "{fields}");
    }
    let own = KubeProxy::from_flags([]);
    assert_eq!(own.node_port_addresses(), NodePortAddresses::Primary);
    assert!(own.localhost_node_ports());
}

#[test]
fn the_flags_of_ports_count_where_the_address_has_none() {
    let healthz = |address: &str, port: i64| {
        let flag = |name: &str| FIELDS.iter().find(|f| f.flag == name).unwrap();
        let address = (flag("healthz-bind-address"), address.into());
        KubeProxy::from_flags([address, (flag("healthz-port"), port.into())]).healthz()
    };
    assert_eq!(healthz("1.2.3.4", 5), "1.2.3.4:5".parse().ok());
    assert_eq!(healthz("::1", 5), "[::1]:5".parse().ok());
    assert_eq!(healthz("1.2.3.4:9", 5), "1.2.3.4:9".parse().ok());
    assert_eq!(healthz("", 5), "0.0.0.0:10256".parse().ok());
    assert_eq!(healthz("1.2.3.4:9", 0), None);
}

proptest! {
    /// Any value in any field is taken or refused; what is taken can be written.
    #[test]
    fn no_value_of_a_field_is_a_panic(
        index in 0..FIELDS.len(),
        value in "[-0-9.:/a-z,=*\\[\\]{}'\" ]{0,24}",
    ) {
        let (first, rest) = FIELDS[index].path.split_once('.').unwrap_or((FIELDS[index].path, ""));
        let field = match rest.replace('.', ": {") {
            rest if rest.is_empty() => format!("{first}: {value}"),
            rest => {
                let ends = "}".repeat(rest.matches('{').count() + 1);
                format!("{first}: {{{rest}: {value}{ends}")
            }
        };
        let text = format!("apiVersion: {}\nkind: {}\n{field}\n", KUBE_PROXY.0, KUBE_PROXY.1);
        if let Ok(file) = parse(&text) {
            let kube = file.kube_proxy.unwrap();
            if kube.check().is_ok() {
                let again = parse(&write(&kube, &file.bascule).unwrap()).unwrap();
                prop_assert_eq!(again.kube_proxy.unwrap().document(), kube.document());
            }
        }
    }
}

#[test]
fn numbers_are_read_as_yaml_1_1_writes_them() {
    for (text, number) in [
        ("1.0", 1),
        ("010", 8),
        ("1e2", 100),
        ("0x10", 16),
        ("-5", -5),
    ] {
        assert_eq!(
            kube(&format!("oomScoreAdj: {text}")).number("oomScoreAdj"),
            number
        );
    }
    assert!(kube("enableProfiling: yes").is("enableProfiling"));
}

#[test]
fn fields_that_mean_something_are_read() {
    let config = kube(
        "mode: nftables
bindAddress: fd00::7
hostnameOverride: n7
nftables: {syncPeriod: 10s}
logging: {verbosity: 6, format: json}
detectLocalMode: InterfaceNamePrefix
detectLocal: {interfaceNamePrefix: cali}",
    );
    assert_eq!(config.health_timeout(), Duration::from_secs(20));
    assert_eq!(config.bind_address(), "fd00::7".parse().ok());
    assert_eq!(config.healthz(), "[::]:10256".parse().ok());
    assert_eq!(config.metrics(), "[::1]:10249".parse().ok());
    assert_eq!(config.pod_devices(), ["cali*"]);
    assert_eq!(config.verbose(), 2);
    assert_eq!(config.meaningless().count(), 0);
    let config =
        kube("clusterCIDR: 10.0.0.0/8\niptables: {masqueradeAll: true, masqueradeBit: 14}");
    let named: Vec<_> = config
        .meaningless()
        .map(|(f, v)| (f.path, v.clone()))
        .collect();
    assert_eq!(
        named,
        [
            ("clusterCIDR", json!("10.0.0.0/8")),
            ("iptables.masqueradeAll", json!(true))
        ]
    );
    assert_eq!(config.bind_address(), None);
    assert_eq!(config.healthz(), "0.0.0.0:10256".parse().ok());
}

#[test]
fn every_default_of_the_table_can_be_read() {
    for field in &FIELDS {
        let parsed = field.kind.parse(field.default);
        assert!(
            parsed.is_ok() || field.default.is_empty(),
            "{field:?}: {parsed:?}"
        );
        assert!(
            field.effect != Effect::Nothing || !field.note.is_empty(),
            "{field:?}"
        );
    }
    let names: BTreeSet<_> = FIELDS.iter().map(|f| (f.path, f.flag)).collect();
    assert_eq!(names.len(), FIELDS.len(), "a row stands twice");
}

/// The leaves of a document, by path.
fn leaves(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    let leaf = matches!(path, "featureGates" | "logging.vmodule");
    match value.as_object().filter(|_| !leaf) {
        Some(fields) => fields.iter().for_each(|(name, value)| {
            let dot = if path.is_empty() { "" } else { "." };
            leaves(value, &format!("{path}{dot}{name}"), found);
        }),
        None => {
            found.insert(path.to_owned());
        }
    }
}

#[test]
fn the_table_has_every_field_and_flag_of_kube_proxy_and_no_other() {
    let mut expected = BTreeSet::new();
    for (_, written) in WRITTEN {
        leaves(&value(written), "", &mut expected);
    }
    // kube-proxy omits them when they are false, and refuses them when they are
    // true without a gate.
    for format in ["text", "json"] {
        expected.insert(format!("logging.options.{format}.splitStream"));
    }
    expected.retain(|path| path != "apiVersion" && path != "kind");
    let fields = FIELDS.iter().filter(|f| !f.path.is_empty());
    assert_eq!(
        fields.map(|f| f.path.to_owned()).collect::<BTreeSet<_>>(),
        expected
    );

    // As `kube-proxy -v=1` of Kubernetes v1.36.3 logs them.
    let flags: BTreeSet<&str> = include_str!("../../tests/kube_proxy/flags.txt")
        .lines()
        .collect();
    let named = FIELDS.iter().filter(|f| !f.flag.is_empty());
    assert_eq!(named.map(|f| f.flag).collect::<BTreeSet<_>>(), flags);
}
