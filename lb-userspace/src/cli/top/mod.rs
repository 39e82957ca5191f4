//! `bascule top`: what the node carries, as it goes on.

mod draw;
mod node;
pub mod rates;
pub mod read;
pub mod state;

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use clap::Args;
use crossterm::event::{Event, EventStream, KeyEventKind};
use futures::StreamExt as _;
use ratatui::DefaultTerminal;
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
    time,
};

use super::{args::Paths, text::wants_colour};
use draw::{Look, draw};
use state::{State, Todo};

/// `bascule top`.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// Seconds between two readings of the maps
    #[arg(long, short, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    pub interval: f64,
    /// The paths.
    #[command(flatten)]
    pub paths: Paths,
}

/// Shortest and longest interval.
const INTERVALS: std::ops::RangeInclusive<f64> = 0.1..=3600.0;
/// Rates of something that has just been opened are there after a second.
const SOON: f64 = 1.0;

fn interval(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok();
    let allowed = seconds.filter(|seconds| INTERVALS.contains(seconds));
    allowed.ok_or_else(|| format!("{text:?} is no number of seconds from 0.1 to 3600"))
}

/// Runs until the user or a signal ends it.
///
/// # Errors
/// If standard output is no terminal, or the maps cannot be read at the beginning.
pub fn run(args: &TopArgs) -> anyhow::Result<()> {
    anyhow::ensure!(
        io::stdout().is_terminal(),
        "standard output is no terminal: `bascule service list --json` prints the same counters once"
    );
    let mut top = Top {
        paths: args.paths.clone(),
        look: Look {
            interval: args.interval,
            colour: wants_colour(),
        },
        state: State::default(),
        start: Instant::now(),
        due: Instant::now(),
    };
    // What fails at once is said on a terminal as it was.
    let reading = read::read(&top.paths, &top.state.screen.view, Duration::ZERO)?;
    top.took(reading);
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let signals = Signals::new()?;
        let mut terminal = Terminal::enter()?;
        top.follow(&mut terminal.0, signals).await
    })
}

/// The terminal in raw mode with a screen of its own, until this is dropped. A panic gives it
/// back too, before it says what happened: the hook of [`ratatui::try_init`].
struct Terminal(DefaultTerminal);

impl Terminal {
    fn enter() -> io::Result<Self> {
        let terminal = ratatui::try_init();
        Ok(Self(terminal.inspect_err(|_| ratatui::restore())?))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Signals that end the process, and would leave the terminal as it is.
struct Signals([Signal; 4]);

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
            signal(SignalKind::quit())?,
        ]))
    }

    async fn any(&mut self) {
        let each = self.0.iter_mut().map(|signal| Box::pin(signal.recv()));
        futures::future::select_all(each).await;
    }
}

struct Top {
    paths: Paths,
    look: Look,
    state: State,
    start: Instant,
    due: Instant,
}

impl Top {
    async fn follow(
        &mut self,
        terminal: &mut DefaultTerminal,
        mut signals: Signals,
    ) -> anyhow::Result<()> {
        let mut events = EventStream::new();
        loop {
            terminal.draw(|frame| draw(frame, &self.state, self.look))?;
            let todo = tokio::select! {
                () = signals.any() => Todo::Quit,
                event = events.next() => match event {
                    Some(event) => self.event(&event?),
                    // The terminal is gone.
                    None => Todo::Quit,
                },
                () = time::sleep_until(self.due.into()) => Todo::Read,
            };
            match todo {
                Todo::Quit => return Ok(()),
                Todo::Read => self.read(),
                Todo::Draw => {}
            }
        }
    }

    fn event(&mut self, event: &Event) -> Todo {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.state.key(*key),
            _ => Todo::Draw,
        }
    }

    fn read(&mut self) {
        match read::read(&self.paths, &self.state.screen.view, self.start.elapsed()) {
            Ok(reading) => self.took(reading),
            // What was read before stays on the screen.
            Err(error) => {
                self.state.note = Some(format!("{error:#}"));
                self.wait(self.look.interval);
            }
        }
    }

    fn took(&mut self, reading: rates::Reading) {
        let interval = self.look.interval;
        let soon = self.state.take(reading);
        self.wait(if soon { interval.min(SOON) } else { interval });
    }

    fn wait(&mut self, seconds: f64) {
        self.due = Instant::now() + Duration::from_secs_f64(seconds);
    }
}

#[cfg(test)]
mod tests {
    use super::interval;

    #[test]
    fn an_interval_is_a_number_of_seconds() {
        for (text, seconds) in [("1", Some(1.0)), ("0.1", Some(0.1)), ("3600", Some(3600.0))] {
            assert_eq!(interval(text).ok(), seconds, "{text}");
        }
        for text in ["", "0", "0.05", "-1", "3601", "NaN", "inf", "1s"] {
            let error = interval(text).unwrap_err();
            assert!(error.contains("0.1 to 3600"), "{text}: {error}");
        }
    }
}
