//! The access log: a line on standard output for each request, as the ConfigMap says
//! (`log-format-upstream` and its companions).

mod line;
#[cfg(test)]
mod tests;
mod writer;

use std::{fs, io, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use lb_proxy::Record;
use lb_route::globals::Globals;

pub use line::{Line, is_of_default_backend};
pub use writer::Writer;

/// Writes lines of requests that are over.
#[derive(Debug)]
pub struct AccessLog {
    globals: ArcSwap<Globals>,
    hostname: String,
    writer: Writer,
}

impl AccessLog {
    /// On standard output, by the defaults until [`AccessLog::set`].
    ///
    /// # Errors
    /// There can be no more threads.
    pub fn start() -> io::Result<Self> {
        let hostname = fs::read_to_string("/proc/sys/kernel/hostname");
        let hostname = hostname.unwrap_or_default().trim().to_owned();
        Ok(Self::new(Writer::start(io::stdout())?, hostname))
    }

    /// With its writer, and the machine's name.
    pub fn new(writer: Writer, hostname: String) -> Self {
        Self {
            globals: ArcSwap::from_pointee(Globals::default()),
            hostname,
            writer,
        }
    }

    /// From now on these settings count.
    pub fn set(&self, globals: Arc<Globals>) {
        self.globals.store(globals);
    }

    /// A request is over.
    pub fn done(&self, record: &Record) {
        let globals = self.globals.load();
        if is_logged(record, &globals) {
            let asked = record.asked(&globals);
            let line = Line::new(record, &asked, &self.hostname);
            let log = &globals.log;
            self.writer.line(&log.format.log_line(&line, log.escape));
        }
    }

    /// The machine's name.
    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    /// Lines that nobody has read in time.
    pub fn lost(&self) -> u64 {
        self.writer.lost()
    }

    /// Writes what there is, if that takes no longer than `patience`.
    pub fn end(&self, patience: Duration) {
        self.writer.end(patience);
    }
}

/// Whether a request is for the log: nginx.tmpl of ingress-nginx, `$loggable` and the `access_log`
/// of each path.
fn is_logged(record: &Record, globals: &Globals) -> bool {
    let log = &globals.log;
    let of_path = match &record.location {
        _ if is_of_default_backend(record) => log.default_backend,
        Some(location) => location.settings.access_log,
        None => true,
    };
    let target = || {
        record
            .uri
            .path_and_query()
            .map_or("/", |both| both.as_str())
    };
    let is_left_out = || {
        log.skip
            .iter()
            .any(|skip| skip.is_match(target().as_bytes()))
    };
    log.on && of_path && !is_left_out()
}
