//! The one table of kube-proxy's configuration: every field of
//! `KubeProxyConfiguration` (`kubeproxy.config.k8s.io/v1alpha1`) and every flag,
//! with its type, its default, and what Bascule makes of it. Decoding, flags,
//! warnings and `docs/kube-proxy.md` come from it.
//!
//! kubernetes v1.36.3: kube-proxy/config/v1alpha1/types.go,
//! pkg/proxy/apis/config/v1alpha1/defaults.go, cmd/kube-proxy/app/options.go.

use super::kind::Kind::{self, *};

/// What Bascule makes of a field or flag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// It does what it does in kube-proxy.
    Honoured,
    /// It does what comes closest here.
    Mapped,
    /// It has no meaning here: a warning, unless it is the default.
    Nothing,
}

/// A field, a flag, or both.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Path in the file; empty for what is a flag only.
    pub path: &'static str,
    /// The flag that sets it, without dashes; empty for what has none.
    pub flag: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its default, as the text of a flag.
    pub default: &'static str,
    /// In a file, 0 and false are values, and not a wish for the default.
    pub keeps_zero: bool,
    /// What Bascule makes of it.
    pub effect: Effect,
    /// To what it is mapped, or why it has no meaning; Markdown without `|`.
    pub note: &'static str,
}

const fn field(path: &'static str, kind: Kind, default: &'static str) -> Field {
    Field {
        path,
        flag: "",
        kind,
        default,
        keeps_zero: false,
        effect: Effect::Nothing,
        note: "",
    }
}

impl Field {
    const fn flag(self, flag: &'static str) -> Self {
        Self { flag, ..self }
    }
    /// A pointer in Go: null is the default, 0 is 0.
    const fn pointer(self) -> Self {
        let keeps_zero = true;
        Self { keeps_zero, ..self }
    }
    const fn honoured(self, note: &'static str) -> Self {
        let effect = Effect::Honoured;
        Self {
            effect,
            note,
            ..self
        }
    }
    const fn mapped(self, note: &'static str) -> Self {
        let effect = Effect::Mapped;
        Self {
            effect,
            note,
            ..self
        }
    }
    const fn nothing(self, note: &'static str) -> Self {
        let effect = Effect::Nothing;
        Self {
            effect,
            note,
            ..self
        }
    }
}

const DEVICES: &str = "pods are told by their devices: see `--pod-devices`";
const NF_CONNTRACK: &str = "of the kernel's conntrack, which others use; 0: as it is";
const IPVS: &str = "there is no IPVS";
const MARKS: &str = "packets are not marked";
const WINDOWS: &str = "Windows only";
const LOG_STREAM: &str = "all lines go to standard error, unbuffered";
const PERIOD: &str = "twice this is how long a change may wait before `/healthz` and `/livez` fail";
const AT_ONCE: &str = "a change is programmed within milliseconds";
const UNITS: &str = "machine facts are not read";

/// Every field and flag, ordered as in kube-proxy's type.
pub static FIELDS: [Field; 71] = [
    field("featureGates", Gates, "")
        .flag("feature-gates")
        .nothing("kube-proxy's gates do not apply"),
    field("clientConnection.kubeconfig", Text, "")
        .flag("kubeconfig")
        .honoured("empty: `$KUBECONFIG`, then the pod's service account"),
    field("clientConnection.acceptContentTypes", Text, "").nothing("JSON is asked for"),
    field("clientConnection.contentType", Text, "application/vnd.kubernetes.protobuf")
        .flag("kube-api-content-type")
        .nothing("JSON is sent"),
    field("clientConnection.qps", Float, "5")
        .flag("kube-api-qps")
        .nothing("three watches need no limit"),
    field("clientConnection.burst", Int, "10")
        .flag("kube-api-burst")
        .nothing("three watches need no limit"),
    field("logging.format", Text, "text")
        .flag("logging-format")
        .mapped("`--log-format`"),
    field("logging.flushFrequency", PeriodOrNanos, "5s")
        .flag("log-flush-frequency")
        .nothing(LOG_STREAM),
    field("logging.verbosity", Int, "0")
        .flag("v")
        .mapped("4 and 5 are `-v`, 6 and 7 `-vv`, more `-vvv`"),
    field("logging.vmodule", Vmodule, "")
        .flag("vmodule")
        .nothing("the files are Go's; `$RUST_LOG` chooses by module"),
    field("logging.options.text.splitStream", Bool, "false")
        .flag("log-text-split-stream")
        .nothing(LOG_STREAM),
    field("logging.options.text.infoBufferSize", Quantity, "0")
        .flag("log-text-info-buffer-size")
        .nothing(LOG_STREAM),
    field("logging.options.json.splitStream", Bool, "false")
        .flag("log-json-split-stream")
        .nothing(LOG_STREAM),
    field("logging.options.json.infoBufferSize", Quantity, "0")
        .flag("log-json-info-buffer-size")
        .nothing(LOG_STREAM),
    field("hostnameOverride", Text, "")
        .flag("hostname-override")
        .honoured("the flag goes before `--node-name`, that before the field"),
    field("bindAddress", Ip, "0.0.0.0")
        .flag("bind-address")
        .honoured("the node's primary address, if it is one of the node's"),
    field("healthzBindAddress", IpPort, "")
        .flag("healthz-bind-address")
        .honoured("0.0.0.0:10256, or [::]:10256 if bindAddress is IPv6"),
    field("metricsBindAddress", IpPort, "")
        .flag("metrics-bind-address")
        .honoured("127.0.0.1:10249, or [::1]:10249 if bindAddress is IPv6"),
    field("bindAddressHardFail", Bool, "false")
        .flag("bind-address-hard-fail")
        .honoured("an address of health or metrics that is taken ends the agent"),
    field("enableProfiling", Bool, "false")
        .flag("profiling")
        .nothing("there is no Go profile; use perf(1)"),
    field("showHiddenMetricsForVersion", Text, "")
        .flag("show-hidden-metrics-for-version")
        .nothing("no metric is hidden"),
    field("mode", Text, "")
        .flag("proxy-mode")
        .mapped("the defaults of NodePort addresses and localhost NodePorts are this mode's"),
    field("iptables.masqueradeBit", Int, "14")
        .pointer()
        .flag("iptables-masquerade-bit")
        .nothing(MARKS),
    field("iptables.masqueradeAll", Bool, "false")
        .flag("masquerade-all")
        .nothing("backends see the addresses of clients in the cluster"),
    field("iptables.localhostNodePorts", Bool, "true")
        .pointer()
        .flag("iptables-localhost-nodeports")
        .mapped("`--localhost-nodeports`, in mode iptables; false in the others"),
    field("iptables.syncPeriod", Period, "30s")
        .flag("iptables-sync-period")
        .mapped(PERIOD),
    field("iptables.minSyncPeriod", Period, "1s")
        .flag("iptables-min-sync-period")
        .nothing(AT_ONCE),
    field("ipvs.syncPeriod", Period, "30s")
        .flag("ipvs-sync-period")
        .mapped(PERIOD),
    field("ipvs.minSyncPeriod", Period, "0s")
        .flag("ipvs-min-sync-period")
        .nothing(AT_ONCE),
    field("ipvs.scheduler", Text, "")
        .flag("ipvs-scheduler")
        .nothing("backends are chosen by Maglev hashing"),
    field("ipvs.excludeCIDRs", List, "")
        .flag("ipvs-exclude-cidrs")
        .nothing(IPVS),
    field("ipvs.strictARP", Bool, "false")
        .flag("ipvs-strict-arp")
        .nothing("no device carries the addresses of Services"),
    field("ipvs.tcpTimeout", Period, "0s")
        .flag("ipvs-tcp-timeout")
        .nothing(IPVS),
    field("ipvs.tcpFinTimeout", Period, "0s")
        .flag("ipvs-tcpfin-timeout")
        .nothing(IPVS),
    field("ipvs.udpTimeout", Period, "0s")
        .flag("ipvs-udp-timeout")
        .nothing(IPVS),
    field("nftables.masqueradeBit", Int, "14").pointer().nothing(MARKS),
    field("nftables.masqueradeAll", Bool, "false")
        .nothing("backends see the addresses of clients in the cluster"),
    field("nftables.syncPeriod", Period, "30s").mapped(PERIOD),
    field("nftables.minSyncPeriod", Period, "1s").nothing(AT_ONCE),
    field("winkernel.networkName", Text, "").nothing(WINDOWS),
    field("winkernel.sourceVip", Text, "").nothing(WINDOWS),
    field("winkernel.enableDSR", Bool, "false").nothing(WINDOWS),
    field("winkernel.rootHnsEndpointName", Text, "").nothing(WINDOWS),
    field("winkernel.forwardHealthCheckVip", Bool, "false").nothing(WINDOWS),
    field("detectLocalMode", Text, "")
        .flag("detect-local-mode")
        .mapped("InterfaceNamePrefix gives `--pod-devices`; the others are not needed"),
    field("detectLocal.bridgeInterface", Text, "")
        .flag("pod-bridge-interface")
        .nothing(DEVICES),
    field("detectLocal.interfaceNamePrefix", Text, "")
        .flag("pod-interface-name-prefix")
        .mapped("`--pod-devices PREFIX*`, in mode InterfaceNamePrefix"),
    field("clusterCIDR", Text, "")
        .flag("cluster-cidr")
        .nothing(DEVICES),
    field("nodePortAddresses", List, "")
        .flag("nodeport-addresses")
        .honoured("empty: `primary` in mode nftables, else all addresses; without a file and a mode `primary`"),
    field("oomScoreAdj", Int, "-999")
        .pointer()
        .flag("oom-score-adj")
        .honoured("lowering it needs CAP_SYS_RESOURCE; without, it stays as it is"),
    field("conntrack.maxPerCore", Int, "32768")
        .pointer()
        .flag("conntrack-max-per-core")
        .honoured("sizes the kernel's conntrack, which others use, and never lowers it; 0: as it is"),
    field("conntrack.min", Int, "131072")
        .pointer()
        .flag("conntrack-min")
        .honoured("`--max-conntrack` is of Bascule's own table"),
    field("conntrack.tcpEstablishedTimeout", Period, "24h")
        .pointer()
        .flag("conntrack-tcp-timeout-established")
        .honoured(NF_CONNTRACK),
    field("conntrack.tcpCloseWaitTimeout", Period, "1h")
        .pointer()
        .flag("conntrack-tcp-timeout-close-wait")
        .honoured(NF_CONNTRACK),
    field("conntrack.tcpBeLiberal", Bool, "false")
        .flag("conntrack-tcp-be-liberal")
        .honoured("of the kernel's conntrack, which others use; false: as it is"),
    field("conntrack.udpTimeout", Period, "0s")
        .flag("conntrack-udp-timeout")
        .honoured(NF_CONNTRACK),
    field("conntrack.udpStreamTimeout", Period, "0s")
        .flag("conntrack-udp-timeout-stream")
        .honoured(NF_CONNTRACK),
    field("configSyncPeriod", Period, "15m")
        .flag("config-sync-period")
        .nothing("watches tell every change; nothing is read again by the clock"),
    field("portRange", Text, "").nothing("kube-proxy does not use it either"),
    field("windowsRunAsService", Bool, "false").nothing(WINDOWS),
    // What is a flag only.
    flag("config", Text, "").honoured("and a `BasculeConfiguration` beside it"),
    flag("write-config-to", Text, "").honoured("with Bascule's own document"),
    flag("cleanup", Bool, "false").mapped("`bascule cleanup`: takes Bascule's own state off the node, and not kube-proxy's rules"),
    flag("init-only", Bool, "false").mapped("mounts the bpffs, which needs CAP_SYS_ADMIN, and ends"),
    flag("master", Text, "").honoured("another name of `--apiserver`; counts beside `--config`"),
    flag("healthz-port", Int, "10256").honoured("0: no health checks of the proxy; else the port of an address without one"),
    flag("metrics-port", Int, "10249").mapped("0: no metrics, which kube-proxy refuses; else the port of an address without one"),
    flag("version", Text, "false").honoured("prints the version and ends"),
    flag("help", Bool, "false").honoured("prints the flags and ends"),
    flag("boot-id-file", Text, "/proc/sys/kernel/random/boot_id").nothing(UNITS),
    flag("machine-id-file", Text, "/etc/machine-id,/var/lib/dbus/machine-id").nothing(UNITS),
];

const fn flag(flag: &'static str, kind: Kind, default: &'static str) -> Field {
    field("", kind, default).flag(flag)
}
