//! The command line.

pub mod affinity;
pub mod agent;
pub mod args;
pub mod cleanup;
pub mod explain;
pub mod findings;
pub mod flows;
pub mod health;
pub mod kube_flags;
pub mod kubectl;
pub mod list_args;
pub mod maglev;
pub mod manual;
pub mod maps;
pub mod migrate;
pub mod monitor;
pub mod proxy;
pub mod resolve;
pub mod rows;
mod secrets;
pub mod show;
pub mod status;
pub mod sysdump;
pub mod text;
pub mod top;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Cli, Command};
use list_args::{AffinityCommand, BackendCommand, ConntrackCommand, MaglevCommand, ServiceCommand};
use status::Verdict;

/// Exit status of `bascule status` when something is not as it should be, and of `bascule migrate`
/// when something has to be changed.
const DEGRADED: u8 = 3;

/// Runs the command line of the process.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os().peekable();
    if arguments
        .peek()
        .is_some_and(|program| kubectl::is_called(program))
    {
        return kubectl::run(arguments).unwrap_or_else(|error| failed(&error));
    }
    // Wrong usage ends the process here, with status 2.
    let cli = Cli::parse_from(kube_flags::arguments(arguments));
    let done = match &cli.command {
        Command::Agent(args) => agent::run(args).map(|()| ExitCode::SUCCESS),
        Command::Cleanup { paths } => cleanup::run(paths).map(|()| ExitCode::SUCCESS),
        Command::Health(args) => health::run(args).map(|()| ExitCode::SUCCESS),
        Command::Explain(args) => explain::run(args).map(|()| ExitCode::SUCCESS),
        Command::Migrate(command) => migrate::run(command).map(|needs_change| match needs_change {
            true => ExitCode::from(DEGRADED),
            false => ExitCode::SUCCESS,
        }),
        Command::Monitor(args) => monitor::run(args).map(|()| ExitCode::SUCCESS),
        Command::Proxy(args) => proxy::run(args).map(|()| ExitCode::SUCCESS),
        Command::Status(view) => show::status(view).map(|verdict| match verdict {
            Verdict::Well => ExitCode::SUCCESS,
            Verdict::Degraded => ExitCode::from(DEGRADED),
            Verdict::Unknown => ExitCode::FAILURE,
        }),
        Command::Manual { share } => manual::run(share).map(|()| ExitCode::SUCCESS),
        Command::Sysdump(args) => sysdump::run(args).map(|()| ExitCode::SUCCESS),
        Command::Top(args) => top::run(args).map(|()| ExitCode::SUCCESS),
        Command::Completions { shell } => {
            let mut command = Cli::command();
            clap_complete::generate(*shell, &mut command, "bascule", &mut std::io::stdout());
            return ExitCode::SUCCESS;
        }
        other => list(other).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| failed(&error))
}

fn failed(error: &anyhow::Error) -> ExitCode {
    // A reader that has seen enough (`bascule … | head`) is no failure.
    let closed = error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    });
    if closed {
        return ExitCode::SUCCESS;
    }
    eprintln!("bascule: {error:#}");
    ExitCode::FAILURE
}

fn list(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Service(ServiceCommand::List {
            scope,
            which,
            wide,
            view,
        }) => show::services(*scope, which, *wide, view),
        Command::Backend(BackendCommand::List { which, wide, view }) => {
            show::backends(which, *wide, view)
        }
        Command::Conntrack(ConntrackCommand::List {
            address,
            which,
            view,
        }) => show::conntrack(*address, which, view),
        Command::Affinity(AffinityCommand::List {
            client,
            which,
            view,
        }) => show::affinity(*client, which, view),
        Command::Maglev(MaglevCommand::Show { service, view }) => show::maglev(service, view),
        Command::Conntrack(ConntrackCommand::Flush { address, view, .. }) => {
            show::flush(*address, view)
        }
        Command::Maps(view) => show::maps(view),
        // The others are answered by the caller.
        Command::Agent(_)
        | Command::Cleanup { .. }
        | Command::Explain(_)
        | Command::Health(_)
        | Command::Migrate(_)
        | Command::Monitor(_)
        | Command::Proxy(_)
        | Command::Status(_)
        | Command::Manual { .. }
        | Command::Sysdump(_)
        | Command::Top(_)
        | Command::Completions { .. } => Ok(()),
    }
}
