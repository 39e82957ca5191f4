use super::*;
use clap::CommandFactory;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_examples() {
    fn check(command: &clap::Command) {
        for sub in command.get_subcommands().filter(|c| c.get_name() != "help") {
            let help = sub
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let is_group = sub.has_subcommands();
            assert!(
                is_group || help.contains("bascule "),
                "{} has no example",
                sub.get_name()
            );
            check(sub);
        }
    }
    check(&Cli::command());
}

#[test]
fn lists_are_given_with_commas_or_spaces() {
    let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| cli.command);
    let Ok(Command::Agent(args)) = parse(
        "bascule agent --source x --uplinks eth0,eth1 --pod-devices a* b? --nodeport-addresses 10.0.0.0/8 --service-node-port-range 30000-30100",
    ) else {
        panic!()
    };
    assert_eq!(args.uplinks, ["eth0", "eth1"]);
    assert_eq!(args.pod_devices, ["a*", "b?"]);
    let flags: Vec<_> = args
        .kube
        .0
        .iter()
        .map(|(f, v)| (f.flag, v.to_string()))
        .collect();
    assert_eq!(
        flags,
        [("nodeport-addresses", r#"["10.0.0.0/8"]"#.to_owned())]
    );
    assert_eq!(args.service_node_port_range, Some((30_000, 30_100)));
    for bad in [
        "bascule agent --source x --kubeconfig y",
        "bascule agent --service-node-port-range 5",
        "bascule agent --service-node-port-range 9-5",
        "bascule agent --max-backends 0",
        "bascule agent --xdp always",
        "bascule conntrack flush",
        "bascule",
    ] {
        assert_eq!(parse(bad).unwrap_err().exit_code(), 2, "{bad}");
    }
}
