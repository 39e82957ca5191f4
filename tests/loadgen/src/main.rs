//! `loadgen`: a load of TCP, UDP and HTTP transactions, and what became of them.
//!
//! One thread and one epoll instance a process: what a transaction costs is then the kernel's
//! work, and the proxy's, and hardly ours. It knows nothing of any proxy.

mod engine;
mod hold;
mod http;
mod measure;
mod proto;
mod server;
mod slot;
mod sockets;
mod tls;
mod until;

use std::io::{BufRead as _, Write as _};
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use engine::Turns;
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
                  loadgen run get --target 192.0.2.1:80 --host a.example --connections 64 --rate 10000\n  \
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
        /// Port of both protocols, on all addresses
        #[arg(long)]
        port: u16,
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
    /// Make connections with one GET each, say so in a line, and hold them until the standard input ends
    Hold {
        /// Address and port to dial
        #[arg(long, value_name = "ADDR:PORT")]
        target: SocketAddr,
        /// Host that is asked for
        #[arg(long)]
        host: String,
        /// How many
        #[arg(long)]
        connections: usize,
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
        Command::Serve { id, port, place } => {
            place.take()?;
            let answer = *id.as_bytes().first().context("--id is empty")?;
            server::serve(answer, port)
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
        Command::Hold {
            target,
            host,
            connections,
            place,
        } => {
            place.take()?;
            let held = hold::open(target, &host, connections)?;
            println!("{} connections are held", held.len());
            std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink())?;
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
    let mut turns = Turns::default();
    for line in std::io::stdin().lock().lines() {
        let line = line.context("cannot read the standard input")?;
        let answer = match serde_json::from_str(&line) {
            Ok(request) => ask(&request, &mut turns),
            Err(e) => Answer::failed(&format!("not understood: {e}: {line}")),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&answer)?)?;
        out.flush()?;
    }
    Ok(())
}

fn ask(request: &Request, turns: &mut Turns) -> Answer {
    let answer = match request {
        Request::Run(run) => engine::run(run).map(Answer::Run),
        Request::Turn(run) => turns.take(run).map(Answer::Run),
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
