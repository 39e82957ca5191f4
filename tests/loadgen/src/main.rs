//! `loadgen`: a load of TCP and UDP transactions, and what became of them.
//!
//! One thread and one epoll instance a process: what a transaction costs is then the kernel's
//! work, and the proxy's, and hardly ours. It knows nothing of any proxy.

mod engine;
mod measure;
mod proto;
mod server;
mod slot;
mod sockets;
mod until;

use std::io::{BufRead as _, Write as _};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use proto::{Answer, Request, Run};

/// A load of TCP and UDP transactions, and what became of them.
#[derive(Debug, Parser)]
#[command(
    name = "loadgen",
    disable_help_subcommand = true,
    after_help = "Exit status: 0 done, 1 failed, 2 wrong usage.\n\nExamples:\n  \
                  loadgen serve --id a --port 8080\n  \
                  loadgen run crr --target 10.96.0.1:80 --connections 16 --seconds 5\n  \
                  loadgen run crr --target 10.96.0.1:80 --connections 256 --rate 2000   # latency from when it was due\n  \
                  loadgen client --cpu 0   # asked by a benchmark, in lines of JSON"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer every byte by one byte, on TCP and UDP, for ever
    Serve {
        /// Its first byte is the answer
        #[arg(long)]
        id: String,
        /// Port of both protocols, on all addresses; may be repeated
        #[arg(long = "port", required = true)]
        ports: Vec<u16>,
        #[command(flatten)]
        place: Place,
    },
    /// One load; the result on the standard output
    Run {
        #[command(flatten)]
        load: Run,
        /// The result as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Do what lines of JSON on the standard input ask for, and answer each by a line
    Client {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, clap::Args)]
struct Place {
    /// Stay on this CPU
    #[arg(long)]
    cpu: Option<usize>,
}

impl Place {
    fn take(&self) -> Result<()> {
        let Some(cpu) = self.cpu else { return Ok(()) };
        let mut set = rustix::thread::CpuSet::new();
        set.set(cpu);
        rustix::thread::sched_setaffinity(None, &set)
            .with_context(|| format!("cannot stay on CPU {cpu}"))
    }
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Serve { id, ports, place } => {
            place.take()?;
            let answer = *id.as_bytes().first().context("--id is empty")?;
            // A thread each, all on the same CPU. The first one that fails ends all.
            let (failed, failure) = std::sync::mpsc::channel();
            for port in ports {
                let failed = failed.clone();
                std::thread::spawn(move || failed.send(server::serve(answer, port)));
            }
            failure.recv()?
        }
        Command::Run { load, json, place } => {
            place.take()?;
            let outcome = engine::run(&load)?;
            if json {
                println!("{}", serde_json::to_string_pretty(&outcome)?);
            } else {
                println!("{outcome}");
            }
            Ok(())
        }
        Command::Client { place } => {
            place.take()?;
            client()
        }
    }
}

/// Answers requests until the standard input ends.
fn client() -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        let line = line.context("cannot read the standard input")?;
        let answer = match serde_json::from_str(&line) {
            Ok(request) => ask(&request),
            Err(e) => Answer::failed(&format!("not understood: {e}: {line}")),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&answer)?)?;
        out.flush()?;
    }
    Ok(())
}

fn ask(request: &Request) -> Answer {
    let answer = match request {
        Request::Run(run) => engine::run(run).map(Answer::Run),
        Request::Duel(duel) => engine::duel(duel).map(Answer::Duel),
        Request::Until(until) => until::until(until).map(Answer::Until),
    };
    answer.unwrap_or_else(|e| Answer::failed(&format!("{e:#}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_is_not_understood_is_an_answer() {
        let request: Result<Request, _> = serde_json::from_str(r#"{"run":{"mode":"crr"}}"#);
        assert!(request.unwrap_err().to_string().contains("target"));
    }
}
