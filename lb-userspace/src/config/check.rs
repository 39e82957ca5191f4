//! What kube-proxy refuses of a configuration, so does Bascule.
//! kubernetes v1.36.3, pkg/proxy/apis/config/validation/validation.go and
//! component-base/logs/api/v1/options.go.

use lb_plan::cidr::Cidr;

use super::{
    KubeProxy, Origin,
    fields::FIELDS,
    kind::{Kind, ip, ip_port},
    period,
};

impl KubeProxy {
    /// Checks the configuration as a whole.
    ///
    /// # Errors
    /// One sentence for each field that is wrong.
    pub fn check(&self) -> Result<(), Vec<String>> {
        let mut errors = Vec::new();
        self.check_ranges(&mut errors);
        self.check_periods(&mut errors);
        self.check_addresses(&mut errors);
        self.check_node_ports(&mut errors);
        self.check_local(&mut errors);
        self.check_logging(&mut errors);
        self.check_hidden_metrics(&mut errors);
        match errors.is_empty() {
            true => Ok(()),
            false => Err(errors),
        }
    }

    fn check_ranges(&self, errors: &mut Vec<String>) {
        let mode = self.mode();
        let mut ranges = vec![
            ("iptables.masqueradeBit", 0, 31),
            ("conntrack.maxPerCore", 0, i64::MAX),
            ("conntrack.min", 0, i64::MAX),
            ("oomScoreAdj", -1000, 1000),
            ("clientConnection.burst", 0, i64::MAX),
            ("logging.verbosity", 0, i64::MAX),
        ];
        if mode == "nftables" {
            ranges.push(("nftables.masqueradeBit", 0, 31));
        }
        for (path, least, most) in ranges {
            let number = self.number(path);
            if number < least {
                errors.push(format!("{path}: {number} must be {least} or more"));
            } else if number > most {
                errors.push(format!("{path}: {number} must be {most} or less"));
            }
        }
        if !matches!(mode.as_str(), "" | "iptables" | "ipvs" | "nftables") {
            errors.push(format!(
                "mode: {mode:?} must be iptables, ipvs, nftables or empty"
            ));
        }
    }

    fn check_periods(&self, errors: &mut Vec<String>) {
        let mode = match self.mode() {
            mode if mode.is_empty() => "iptables".to_owned(),
            mode => mode,
        };
        for field in FIELDS.iter().filter(|f| f.kind == Kind::Period) {
            let other = field.path.split_once('.').is_some_and(|(of, _)| {
                matches!(of, "iptables" | "ipvs" | "nftables") && of != mode
            });
            let positive =
                field.path.ends_with("yncPeriod") && !field.path.ends_with("minSyncPeriod");
            if !other && !positive && self.nanos(field.path) < 0 {
                let value = self.text(field.path);
                errors.push(format!("{}: {value} must be 0 or more", field.path));
            }
        }
        let sync = self.nanos(&format!("{mode}.syncPeriod"));
        let least = self.nanos(&format!("{mode}.minSyncPeriod"));
        for (path, nanos) in [
            (format!("{mode}.syncPeriod"), sync),
            ("configSyncPeriod".into(), self.nanos("configSyncPeriod")),
            (
                "logging.flushFrequency".into(),
                self.nanos("logging.flushFrequency"),
            ),
        ] {
            if nanos <= 0 {
                errors.push(format!("{path}: must be more than 0"));
            }
        }
        if least > sync {
            errors.push(format!(
                "{mode}.syncPeriod: {} must be {mode}.minSyncPeriod ({}) or more",
                period::format(sync),
                period::format(least)
            ));
        }
    }

    fn check_addresses(&self, errors: &mut Vec<String>) {
        let bind = self.text("bindAddress");
        if ip(&bind).is_none() {
            errors.push(format!("bindAddress: {bind:?} must be an IP address"));
        }
        let texts = self.address_texts();
        for (path, text) in ["healthzBindAddress", "metricsBindAddress"]
            .iter()
            .zip(texts)
        {
            // Empty is what the deprecated flags of ports say: nowhere.
            let nowhere = text.is_empty() && self.origin == Origin::Flags;
            if let (false, Err(error)) = (nowhere, ip_port(&text)) {
                errors.push(format!("{path}: {error}"));
            }
        }
    }

    fn check_node_ports(&self, errors: &mut Vec<String>) {
        let list = self.list("nodePortAddresses");
        let primary = list.iter().any(|item| item == "primary");
        if primary && list.len() > 1 {
            let remedy = "leave out either it or the networks";
            errors.push(format!(
                "nodePortAddresses: `primary` stands alone; {remedy}"
            ));
        }
        for text in list.iter().filter(|text| *text != "primary") {
            if Cidr::parse(text).is_none() {
                errors.push(format!(
                    "nodePortAddresses: {text:?} is neither `primary` nor a network such as 10.0.0.0/8"
                ));
            }
        }
        if self.mode() == "ipvs" {
            let excluded = self.list("ipvs.excludeCIDRs");
            for text in excluded.iter().filter(|text| Cidr::parse(text).is_none()) {
                errors.push(format!("ipvs.excludeCIDRs: {text:?} must be a network"));
            }
        }
    }

    fn check_local(&self, errors: &mut Vec<String>) {
        let mode = self.text("detectLocalMode");
        let needs = match mode.as_str() {
            "" | "ClusterCIDR" => return self.check_cluster(errors),
            "NodeCIDR" => return,
            "BridgeInterface" => "detectLocal.bridgeInterface",
            "InterfaceNamePrefix" => "detectLocal.interfaceNamePrefix",
            _ => {
                errors.push(format!(
                    "detectLocalMode: {mode:?} must be ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix"
                ));
                return;
            }
        };
        if self.text(needs).is_empty() {
            errors.push(format!("{needs}: must not be empty in mode {mode}"));
        }
    }

    fn check_cluster(&self, errors: &mut Vec<String>) {
        let text = self.text("clusterCIDR");
        if text.is_empty() {
            return;
        }
        let nets: Vec<_> = text.split(',').map(Cidr::parse).collect();
        let well = match nets.as_slice() {
            [Some(_)] => true,
            [Some(a), Some(b)] => a.is_ipv4() != b.is_ipv4(),
            _ => false,
        };
        if !well {
            errors.push(format!(
                "clusterCIDR: {text:?} must be a network, or one of each family"
            ));
        }
    }

    fn check_logging(&self, errors: &mut Vec<String>) {
        let format = self.text("logging.format");
        if !matches!(format.as_str(), "text" | "json") {
            errors.push(format!("logging.format: {format:?} must be text or json"));
        }
        self.check_buffers(errors);
        let patterns = self.get("logging.vmodule");
        let patterns = patterns.as_array().map(Vec::as_slice).unwrap_or_default();
        if format == "json" && !patterns.is_empty() {
            errors.push("logging.vmodule: only for the format text".into());
        }
        let patterns = patterns.iter();
        for pattern in patterns.map(|item| item["filePattern"].as_str().unwrap_or_default()) {
            if pattern.is_empty() || pattern.contains(['=', ',']) {
                errors.push(format!(
                    "logging.vmodule: {pattern:?} must not be empty, nor have = or ,"
                ));
            }
        }
    }

    /// Buffers are behind a gate that is off (component-base, logs/api/v1).
    fn check_buffers(&self, errors: &mut Vec<String>) {
        let gate = "LoggingAlphaOptions";
        let open = self.get("featureGates")[gate] == true;
        for format in ["text", "json"] {
            let path = format!("logging.options.{format}.infoBufferSize");
            let value = self.get(&path);
            let text = value.as_str().map_or_else(|| value.to_string(), Into::into);
            // resource.Quantity: digits, then a suffix.
            let number = text.trim_end_matches(|c: char| "inumkKMGTPE".contains(c));
            match number.parse::<f64>() {
                Err(_) => errors.push(format!("{path}: {text:?} must be a size such as 4Mi")),
                Ok(size) if size != 0.0 && !open => {
                    errors.push(format!("{path}: the feature gate {gate} is off"));
                }
                Ok(_) => {}
            }
        }
    }

    /// Of Kubernetes 1.36, whose configuration this is, only the version before.
    fn check_hidden_metrics(&self, errors: &mut Vec<String>) {
        let version = self.text("showHiddenMetricsForVersion");
        if !matches!(version.as_str(), "" | "1.35") {
            errors.push(format!(
                "showHiddenMetricsForVersion: {version:?} must be left out or be 1.35, the previous minor version"
            ));
        }
    }
}
