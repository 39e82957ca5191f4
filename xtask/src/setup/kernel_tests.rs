use super::*;

const MOUNTS: &str = "proc /proc proc rw,relatime 0 0\n\
    cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0\n\
    cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n\
    bpf /mnt/my\\040bpf bpf rw,relatime 0 0\n\
    cgroup2 /later cgroup2 rw 0 0\n";

#[test]
fn versions_of_distributions_are_understood() {
    assert_eq!(parse_version("6.8.0-41-generic"), Some((6, 8)));
    assert_eq!(parse_version("5.15.0"), Some((5, 15)));
    assert_eq!(parse_version("6.18-rc1"), Some((6, 18)));
    assert_eq!(parse_version("unknown"), None);
}

#[test]
fn an_old_kernel_is_missing_and_says_which_to_boot() {
    let old = version("5.10.0-30-amd64");
    assert_eq!(old.state, State::Missing);
    assert!(old.detail.contains("5.15"), "{}", old.detail);
    assert_eq!(version("5.15.1").state, State::Present);
    assert_eq!(version("6.1.0").state, State::Present);
    assert_eq!(version("4.19.0").state, State::Missing);
}

#[test]
fn mount_points_are_found_by_type() {
    assert_eq!(
        mounted(MOUNTS, "cgroup2").as_deref(),
        Some("/sys/fs/cgroup/unified")
    );
    assert_eq!(mounted(MOUNTS, "bpf").as_deref(), Some("/mnt/my bpf"));
    assert_eq!(mounted(MOUNTS, "tracefs"), None);
}

#[test]
fn bpffs_counts_when_it_can_be_mounted() {
    assert_eq!(bpffs(MOUNTS, "").detail, "/mnt/my bpf");
    assert_eq!(bpffs("", "nodev\tproc\nnodev\tbpf\n").state, State::Present);
    assert_eq!(bpffs("", "nodev\tproc\n\text4\n").state, State::Missing);
}

#[test]
fn capabilities_are_read_from_the_effective_set() {
    assert!(missing_capabilities("CapPrm:\t0\nCapEff:\t000001ffffffffff\n").is_empty());
    assert_eq!(
        missing_capabilities("CapEff:\t0000000000003000\n"),
        ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"]
    );
    assert_eq!(missing_capabilities("").len(), CAPABILITIES.len());
}

#[test]
fn the_configuration_has_set_options_only() {
    let config =
        Config::parse("# CONFIG_VETH is not set\nCONFIG_TUN=m\nCONFIG_LOCALVERSION=\"-x\"\n");
    assert_eq!(config.get("CONFIG_TUN"), Some("m"));
    assert_eq!(config.get("CONFIG_LOCALVERSION"), Some("-x"));
    assert_eq!(config.get("CONFIG_VETH"), None);
    assert!(config.is_known() && !Config::parse("").is_known());
}

#[test]
fn without_privilege_the_configuration_answers() {
    let features = by_config(&Config::parse("CONFIG_BPF_SYSCALL=y\nCONFIG_TUN=m\n"));
    let state = |name| features.iter().find(|f| f.name == name).map(|f| f.state);
    assert_eq!(state("bpf(2)"), Some(State::Present));
    assert_eq!(state("TUN"), Some(State::Present));
    assert_eq!(state("veth"), Some(State::Missing));
    assert!(
        by_config(&Config::parse(""))
            .iter()
            .all(|f| f.state == State::Unknown)
    );
}

#[test]
fn a_failed_probe_names_the_option() {
    let mut features = [
        Feature::new("veth", State::Missing, "cannot be made"),
        Feature::new("TUN", State::Missing, "cannot be made"),
        Feature::new("clsact", State::Present, "works"),
    ];
    explain(&mut features, &|| Config::parse("CONFIG_TUN=m\n"));
    assert!(
        features[0]
            .detail
            .contains("boot a kernel with CONFIG_VETH"),
        "{}",
        features[0].detail
    );
    assert!(
        features[1]
            .detail
            .contains("CONFIG_TUN=m, but the module does not load"),
        "{}",
        features[1].detail
    );
    assert_eq!(features[2].detail, "works");
}
