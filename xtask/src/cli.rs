//! The command line of xtask.

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::{bench, build, chart, cluster, fuzz, image, lab, lint, setup, test};

/// The user's mistake or the project's: something did not build, pass or hold.
const FAILED: u8 = 1;
/// The machine lacks a kernel feature, a package or the privilege.
const UNFIT: u8 = 3;

/// Builds, runs, tests and benchmarks Bascule.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_help_subcommand = true,
    after_help = "Exit status: 0 done, 1 failed, 2 wrong usage, 3 this machine lacks a kernel feature, a package or the \
                  privilege.\nNO_COLOR=1 switches colours off.\n\nExamples:\n  cargo xtask setup   # what is there, what is \
                  missing\n  cargo xtask build --release\n  cargo xtask test pure"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check this machine and install what is missing; all others do it by themselves
    #[command(
        after_help = "Examples:\n  cargo xtask setup\n\nInstalls the pinned nightly with rust-src (rustup, else \
                            Debian's package), bpf-linker into ~/.cache/bascule, and system packages (apt-get, as root)."
    )]
    Setup,
    /// Build the eBPF object and the programs that embed it
    Build(build::Args),
    /// Make a container image: one static binary and nothing else
    Image(image::Args),
    /// Render manifests/install.yaml from the Helm chart
    Chart(chart::Args),
    /// Bring up a lab of namespaces with real traffic, or run the agent on this machine
    Run(lab::Args),
    /// The servers of a pod of the lab
    #[command(hide = true)]
    LabServe(lab::ServeArgs),
    /// The clients at one place of the lab
    #[command(hide = true)]
    LabClient,
    /// Bring up a real Kubernetes cluster in namespaces, and run Kubernetes' own tests on it
    Cluster(cluster::Args),
    /// The first process of a node of the cluster
    #[command(hide = true)]
    ClusterNodeInit {
        /// The node's number
        node: u8,
    },
    /// Run the tests; the last line is `N passed, N failed`
    Test(test::Args),
    /// Measure the datapath and the agent against what they must reach
    Bench(bench::Args),
    /// Look for inputs that the proxy of Ingresses does not stand
    Fuzz(fuzz::Args),
    /// Check formatting, clippy, crate boundaries, dependencies, licences and spelling
    #[command(
        after_help = "Examples:\n  cargo xtask lint\n\nNeeds no privilege. Its tools are built once, at pinned versions, into ~/.cache/bascule."
    )]
    Lint,
    /// Print a script that completes these commands in a shell
    #[command(
        after_help = "Examples (bash; the alias is what is completed):\n  alias xtask='cargo xtask'\n  source <(cargo xtask completions bash)"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Parses the command line and does what it says.
///
/// # Errors
/// What the subcommand could not do.
pub(crate) fn run() -> Result<ExitCode> {
    match Cli::parse().command {
        Command::Setup => setup::report()?,
        Command::Build(args) => build::run(&args)?,
        Command::Image(args) => image::run(&args)?,
        Command::Chart(args) => chart::run(&args)?,
        Command::Run(args) => return lab::run(&args),
        Command::LabServe(args) => lab::serve(args)?,
        Command::LabClient => lab::work()?,
        Command::Cluster(args) => return cluster::run(args),
        Command::ClusterNodeInit { node } => cluster::node_init(node)?,
        Command::Test(args) => return test::run(&args),
        Command::Bench(args) => bench::run(&args)?,
        Command::Fuzz(args) => fuzz::run(&args)?,
        Command::Lint => lint::run()?,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "xtask", &mut std::io::stdout());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The exit status for an error.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    if error.chain().any(|e| e.is::<setup::Unfit>()) {
        UNFIT
    } else {
        FAILED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_unfit_machine_has_its_own_exit_status() {
        assert_eq!(exit_code(&anyhow::anyhow!("broken")), FAILED);
        let unfit = setup::Unfit::new("no root");
        assert_eq!(
            exit_code(&anyhow::Error::from(unfit).context("cannot test")),
            UNFIT
        );
    }
}
