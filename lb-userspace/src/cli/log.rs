//! Log lines, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::{
    EnvFilter, Layer, fmt, layer::SubscriberExt, registry, util::SubscriberInitExt,
};

use super::args::LogFormat;

/// Sets the process' logger up. `$RUST_LOG` goes before `verbose`.
pub fn init(format: LogFormat, verbose: u8) {
    let default = match verbose {
        // What the client of the API server meets is told by the watches, once.
        0 => "info,kube_client=off",
        1 => "info,lb_userspace=debug",
        2 => "debug,hyper=info,tower=info",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let colour = std::io::stderr().is_terminal() && !no_colour;
    let layer = match format {
        LogFormat::Text => fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(colour)
            .with_target(verbose > 0)
            .boxed(),
        LogFormat::Json => fmt::layer().json().with_writer(std::io::stderr).boxed(),
    };
    // A second call, as tests may make, leaves the first logger in place.
    let _ = registry().with(layer).with(filter).try_init();
}
