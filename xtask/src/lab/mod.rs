//! `cargo xtask run`: a cluster of network namespaces on this machine, with real traffic
//! through every kind of frontend.

mod check;
mod client;
mod hints;
mod ingress;
mod l7;
mod manifest;
pub(crate) mod netns;
mod node;
mod pod;
mod report;
mod rows;
mod server;
mod signals;
mod stats;
mod table;
mod teardown;
mod terminal;
mod topology;
mod traffic;
mod web;
mod world;

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

pub(crate) use client::work;
pub(crate) use server::{ServeArgs, serve};

use self::l7::Sources;
use self::manifest::Manifests;
use self::table::Detail;
use self::terminal::{Frame, Paint};
use self::traffic::{Board, Workers};
use self::world::Lab;
use crate::{build, paths, setup, ui};

/// Connections of a row in the rounds after the first.
const LATER: u32 = 24;
/// Pause between rounds.
const PAUSE: Duration = Duration::from_secs(2);
/// How often the frame is drawn while a round runs.
const REDRAW: Duration = Duration::from_millis(150);
/// How long a page of a table that does not fit is shown.
const PAGE: Duration = Duration::from_secs(5);
/// What a change of the manifests needs to reach the maps: editors write in several steps,
/// and each agent gathers changes.
const SETTLE: Duration = Duration::from_secs(1);

/// What to run.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask run\n  cargo xtask run --once --json\n  cargo xtask run --l7   # with the proxy of Ingresses\n  \
                        cargo xtask run -- --kubeconfig ~/.kube/config   # this machine as a node of that cluster\n\n\
                        Needs root. Exit status of --once: 0 if every frontend answered and every backend got its share \
                        (within five standard deviations), else 1."
)]
pub(crate) struct Args {
    /// End after the first round of traffic; fail unless every frontend and backend did right
    #[arg(long)]
    once: bool,
    /// Print the round's result as JSON (implies --once)
    #[arg(long)]
    json: bool,
    /// Connections of each row in the first round
    #[arg(long, default_value_t = 240, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Run the proxy of Ingresses too, in two pods behind a LoadBalancer Service, with the Ingresses of examples/l7
    #[arg(long)]
    l7: bool,
    /// Directory of the manifests that the agents are fed [default: examples/]
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// Build and run the agent with optimisations
    #[arg(long)]
    release: bool,
    /// Use this agent and build nothing
    #[arg(long, value_name = "FILE", conflicts_with = "release")]
    bascule: Option<PathBuf>,
    /// Run the agent on this machine with these flags, instead of the lab
    #[arg(last = true, value_name = "AGENT FLAGS")]
    agent: Vec<OsString>,
}

/// Builds, and runs the lab or the agent.
///
/// # Errors
/// Something is missing, does not build, or could not be brought up or taken down.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let bascule = agent(args)?;
    if !args.agent.is_empty() {
        // Returns only if it fails.
        let error = Command::new(&bascule).arg("agent").args(&args.agent).exec();
        return Err(error).with_context(|| format!("cannot run {}", bascule.display()));
    }
    lab(args, &bascule)
}

/// The agent's program: built, unless the user has one.
fn agent(args: &Args) -> Result<PathBuf> {
    if let Some(given) = &args.bascule {
        return given
            .canonicalize()
            .with_context(|| format!("cannot find the agent {}", given.display()));
    }
    let nightly = setup::ensure(setup::Need::Kernel)?;
    build::bpf(&nightly)?;
    build::host(args.release)?;
    let profile = if args.release { "release" } else { "debug" };
    Ok(paths::root().join("target").join(profile).join("bascule"))
}

fn lab(args: &Args, bascule: &Path) -> Result<ExitCode> {
    // SAFETY: a system call without arguments.
    if unsafe { libc::geteuid() } != 0 {
        bail!(
            "the lab makes network namespaces, cgroups and eBPF programs, which only root may: run it with sudo"
        );
    }
    let dir = args
        .manifests
        .clone()
        .unwrap_or_else(|| paths::root().join("examples"));
    let dir = dir
        .canonicalize()
        .with_context(|| format!("cannot find the manifests in {}", dir.display()))?;
    let sources = Sources::new(dir, args.l7);
    // A manifest that cannot be read must not cost the time that the lab takes.
    let manifests = sources.read()?;
    signals::install();
    let mut lab = Lab::up()?;
    let outcome = play(args, bascule, &sources, &manifests, &mut lab);
    ui::say("taking the lab down");
    lab.down()?;
    match outcome {
        // Ctrl-C is how the lab is meant to end, once its first round is over.
        Err(e) if e.is::<signals::Ended>() && !args.once => Ok(ExitCode::SUCCESS),
        other => other,
    }
}

/// What happens while the lab is up.
fn play(
    args: &Args,
    bascule: &Path,
    sources: &Sources,
    manifests: &Manifests,
    lab: &mut Lab,
) -> Result<ExitCode> {
    lab.route_vips(manifests)?;
    sources.feed(manifests)?;
    ui::say("namespaces, pods and their servers are up; starting the agents");
    lab.start_agents(bascule, sources.fed())?;
    if sources.l7() {
        ui::say("starting the proxy of Ingresses");
        lab.start_proxies(bascule, manifests, sources.fed())?;
    }
    let mut show = Show {
        workers: Workers::start(lab)?,
        board: Board::default(),
        screen: Screen::new(args),
    };
    let (rows, skipped) = rows::rows(manifests);
    show.board.update(rows, skipped);
    show.round(lab, args.connections)?;
    let code = show.first_result(args)?;
    if args.once || args.json {
        return Ok(code);
    }
    println!(
        "{}",
        hints::text(
            &hints::hints(lab, &show.board.rows, bascule),
            &sources.places()
        )
    );
    show.follow(lab, sources).map(|()| code)
}

/// The board, who fills it, and where it is shown.
struct Show {
    workers: Workers,
    board: Board,
    screen: Screen,
}

impl Show {
    fn round(&mut self, lab: &mut Lab, connections: u32) -> Result<()> {
        lab.check_agents()?;
        lab.check_proxies()?;
        let agents = lab.agent_pids();
        let screen = &mut self.screen;
        self.board
            .round(&mut self.workers, &agents, connections, |board| {
                screen.progress(board)
            })?;
        self.screen.finish(&self.board)
    }

    /// Prints the first round's table or JSON; the exit status that it deserves.
    fn first_result(&mut self, args: &Args) -> Result<ExitCode> {
        let lines = self.board.lines();
        if args.json {
            let report = report::report(&lines, &self.board.skipped);
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else if args.once || !self.screen.interactive {
            table::render(&lines, Detail::Places, Paint::for_stdout())
                .iter()
                .for_each(|line| println!("{line}"));
            if !self.board.skipped.is_empty() {
                println!(
                    "no frontend, as it should be: {}",
                    self.board.skipped.join(", ")
                );
            }
        }
        let good = !lines.is_empty() && table::failing(&lines).next().is_none();
        Ok(if good {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    /// Goes on until a signal comes.
    fn follow(&mut self, lab: &mut Lab, sources: &Sources) -> Result<()> {
        self.screen.frame.keep();
        let mut seen = sources.fingerprint();
        loop {
            let end = Instant::now() + PAUSE;
            while Instant::now() < end {
                signals::check()?;
                std::thread::sleep(Duration::from_millis(100));
            }
            let now = sources.fingerprint();
            if now != seen {
                seen = now;
                self.reread(lab, sources)?;
                std::thread::sleep(SETTLE);
            }
            self.round(lab, LATER)?;
        }
    }

    fn reread(&mut self, lab: &mut Lab, sources: &Sources) -> Result<()> {
        match sources.read() {
            Ok(manifests) => {
                sources.feed(&manifests)?;
                lab.route_vips(&manifests)?;
                let (rows, skipped) = rows::rows(&manifests);
                let changed = self.board.update(rows, skipped);
                self.screen
                    .note(&format!("the manifests changed: {}", changed.join(", ")));
            }
            Err(e) => self
                .screen
                .note(&format!("{e:#}; the lab goes on with what it had")),
        }
        Ok(())
    }
}

/// Where the table is shown.
struct Screen {
    interactive: bool,
    frame: Frame,
    paint: Paint,
    started: Instant,
    drawn: Instant,
    summary: String,
}

impl Screen {
    fn new(args: &Args) -> Self {
        let now = Instant::now();
        let interactive = terminal::interactive() && !args.once && !args.json;
        Self {
            interactive,
            frame: Frame::default(),
            paint: Paint::for_stdout(),
            started: now,
            drawn: now,
            summary: String::new(),
        }
    }

    /// While a round runs.
    fn progress(&mut self, board: &Board) -> Result<()> {
        if self.interactive && self.drawn.elapsed() >= REDRAW {
            self.draw(board)
        } else {
            Ok(())
        }
    }

    /// After a round.
    fn finish(&mut self, board: &Board) -> Result<()> {
        if self.interactive {
            return self.draw(board);
        }
        // Without a terminal a line is printed when the state changes, not after every round.
        let lines = board.lines();
        let failing: Vec<String> = table::failing(&lines)
            .map(|(r, why)| format!("{} from {}: {why}", table::name(r), r.key.place.label()))
            .collect();
        let summary = if failing.is_empty() {
            "all rows are as they should be".to_owned()
        } else {
            failing.join("\n")
        };
        if !self.summary.is_empty() && summary != self.summary {
            println!("{summary}");
        }
        self.summary = summary;
        Ok(())
    }

    fn draw(&mut self, board: &Board) -> Result<()> {
        self.drawn = Instant::now();
        let turn =
            usize::try_from(self.started.elapsed().as_secs() / PAGE.as_secs()).unwrap_or_default();
        let mut lines = table::render(&board.lines(), Detail::Frontends, self.paint);
        lines.push(
            "* p pod, t pod without socket hooks (TC), n node, o outside, s stranger".to_owned(),
        );
        self.frame
            .draw(&lines, turn)
            .context("cannot write to the terminal")
    }

    /// A line above the table.
    fn note(&mut self, text: &str) {
        println!("{text}");
        self.frame.keep();
    }
}
