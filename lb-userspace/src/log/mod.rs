//! Log lines, on standard error. A line that is said again and again is written once, and
//! then how often it was said; the last ones are remembered ([`recent`]).

pub mod recent;
mod repeats;

use std::{
    fmt::{self, Write as _},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, IsTerminal, Write as _},
    sync::{Arc, Mutex, OnceLock},
    thread,
    time::{Instant, SystemTime},
};

use clap::ValueEnum;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Writer},
    },
    layer::SubscriberExt,
    registry::{self, LookupSpan},
    reload,
    util::SubscriberInitExt,
};

use recent::Line;
use repeats::{Repeats, WINDOW};

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// An object a line.
    Json,
}

/// Sets the process' logger up. `$RUST_LOG` goes before `verbose`; `levels` come on top.
pub fn init(format: LogFormat, verbose: u8, levels: Option<&str>) {
    let default = match verbose {
        // What the client of the API server meets is told by the watches, once.
        0 => "info,kube_client=off",
        1 => "info,lb_userspace=debug",
        2 => "debug,hyper=info,tower=info",
        _ => "trace",
    };
    let given = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let base = match filter(&given, None) {
        Ok(_) if !given.is_empty() => given,
        _ => default.to_owned(),
    };
    // The caller has checked the levels.
    let first = filter(&base, levels).unwrap_or_else(|_| EnvFilter::new(default));
    let (first, handle) = reload::Layer::new(first);
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let colour = io::stderr().is_terminal() && !no_colour;
    let shared = Shared::default();
    let layer = layer(format, (colour, verbose > 0), &shared, io::stderr);
    let registry = tracing_subscriber::registry().with(layer).with(first);
    // A second call, as tests may make, leaves the first logger in place.
    if registry.try_init().is_ok() {
        let set = move |levels: Option<&str>| {
            let next = filter(&base, levels)?;
            handle.reload(next).map_err(|error| error.to_string())
        };
        let _ = SET.set(Box::new(set));
        tell_repeats(shared);
    }
}

/// Gives the running logger other levels.
type Set = Box<dyn Fn(Option<&str>) -> Result<(), String> + Send + Sync>;

static SET: OnceLock<Set> = OnceLock::new();

/// Changes the levels that come on top, while the process runs.
///
/// # Errors
/// They are none; all levels stay as they were.
pub fn set_levels(levels: Option<&str>) -> Result<(), String> {
    SET.get().map_or(Ok(()), |set| set(levels))
}

/// Whether a text has levels, such as `lb_userspace::watch=debug`.
///
/// # Errors
/// What is wrong with it.
pub fn check(levels: Option<&str>) -> Result<(), String> {
    filter("info", levels).map(drop)
}

fn filter(base: &str, levels: Option<&str>) -> Result<EnvFilter, String> {
    let text = match levels {
        Some(levels) => format!("{base},{levels}"),
        None => base.to_owned(),
    };
    let parsed = EnvFilter::builder().parse(&text);
    parsed
        .map_err(|error| format!("{text:?}: {error}; write for example lb_userspace::watch=debug"))
}

/// The layer that writes lines to `writer`, with colours and with the names of modules.
fn layer<S, W>(
    format: LogFormat,
    (colour, target): (bool, bool),
    shared: &Shared,
    writer: W,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let shared = shared.clone();
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        LogFormat::Text => layer
            .with_ansi(colour)
            .with_target(target)
            .map_event_format(|inner: Format| Lines {
                inner: inner.with_ansi(colour),
                shared,
            })
            .boxed(),
        LogFormat::Json => layer
            .json()
            .map_event_format(|inner| Lines { inner, shared })
            .boxed(),
    }
}

/// What is known of the lines that were written.
#[derive(Clone)]
struct Shared {
    repeats: Arc<Mutex<Repeats>>,
    start: Instant,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            repeats: Arc::default(),
            start: Instant::now(),
        }
    }
}

/// Says how often lines were repeated, also where nothing else is said any more.
fn tell_repeats(shared: Shared) {
    let tell = move || {
        loop {
            thread::sleep(WINDOW);
            let Ok(mut repeats) = shared.repeats.lock() else {
                return;
            };
            let over = repeats.over(shared.start.elapsed());
            // Where nobody reads the log nothing can be told.
            let _ = io::stderr().write_all(over.concat().as_bytes());
        }
    };
    // Without the thread they are told with the next line.
    let _ = thread::Builder::new().name("log".into()).spawn(tell);
}

/// Formats lines, leaves out repeated ones, and remembers the last.
struct Lines<F> {
    inner: F,
    shared: Shared,
}

impl<S, N, F> FormatEvent<S, N> for Lines<F>
where
    S: Subscriber + for<'a> registry::LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        self.inner
            .format_event(ctx, Writer::new(&mut text), event)?;
        let (key, line) = of(event);
        let now = self.shared.start.elapsed();
        let Ok(mut repeats) = self.shared.repeats.lock() else {
            return writer.write_str(&text);
        };
        let over = repeats.over(now);
        over.iter().try_for_each(|text| writer.write_str(text))?;
        if repeats.is_new(key, &text, now) {
            recent::push(line);
            writer.write_str(&text)?;
        }
        Ok(())
    }
}

/// What makes an event the same as another, and how it is remembered.
fn of(event: &Event<'_>) -> (u64, Line) {
    let meta = event.metadata();
    let mut said = Said::default();
    event.record(&mut said);
    let line = Line {
        at: crate::health::time(SystemTime::now()),
        level: meta.level().to_string(),
        target: meta.target().to_owned(),
        message: format!("{}{}", said.message, said.fields),
    };
    let mut hasher = DefaultHasher::new();
    (meta.callsite(), &line.message).hash(&mut hasher);
    (hasher.finish(), line)
}

/// An event's message, and its fields after it.
#[derive(Default)]
struct Said {
    message: String,
    fields: String,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string fails only where the value's own code does.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::MutexGuard;

    use serde_json::Value;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    struct Out<'a>(MutexGuard<'a, Vec<u8>>);

    impl io::Write for Out<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Written {
        type Writer = Out<'a>;
        fn make_writer(&'a self) -> Out<'a> {
            Out(self.0.lock().unwrap())
        }
    }

    /// What is written of what is said.
    fn written(format: LogFormat, say: impl FnOnce()) -> String {
        let out = Written::default();
        let layer = layer(format, (false, true), &Shared::default(), out.clone());
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, say);
        String::from_utf8(out.0.lock().unwrap().clone()).unwrap()
    }

    fn say() {
        for n in 0..5 {
            tracing::warn!(error = "no such device", "a hook cannot be attached");
            tracing::info!(n, "another");
        }
    }

    #[test]
    fn what_is_repeated_is_written_once() {
        let text = written(LogFormat::Text, say);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 6, "{text}");
        let target = "WARN lb_userspace::log::tests: a hook cannot be attached";
        assert!(lines[0].contains(target), "{text}");
        assert!(lines[0].contains("error=\"no such device\""), "{text}");
        assert!(lines[5].ends_with("another n=4"), "{text}");
    }

    #[test]
    fn json_is_an_object_a_line() {
        let text = written(LogFormat::Json, say);
        let lines = text.lines().map(serde_json::from_str::<Value>);
        let lines: Vec<Value> = lines.map(Result::unwrap).collect();
        assert_eq!(lines.len(), 6, "{text}");
        assert_eq!(lines[0]["level"], "WARN");
        assert_eq!(lines[0]["target"], "lb_userspace::log::tests");
        assert_eq!(lines[0]["fields"]["message"], "a hook cannot be attached");
        assert_eq!(lines[0]["fields"]["error"], "no such device");
        assert_eq!(lines[5]["fields"]["n"], 4);
    }

    #[test]
    fn lines_are_remembered_with_their_fields() {
        let said = "remembered by this test";
        written(LogFormat::Json, || {
            for _ in 0..3 {
                tracing::warn!(place = "here", count = 2, "{said}");
            }
        });
        let lines = recent::lines();
        let own: Vec<_> = lines
            .iter()
            .filter(|l| l.message.starts_with(said))
            .collect();
        let [line] = own[..] else { panic!("{own:?}") };
        assert_eq!(line.message, format!("{said} place=here count=2"));
        assert_eq!(
            (line.level.as_str(), line.target.as_str()),
            ("WARN", module_path!())
        );
    }
}
