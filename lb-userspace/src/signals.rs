//! The signals by which a process is asked to end.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Listens from now on for SIGTERM and SIGINT; what it returns ends with the first one, and
/// says which it was.
///
/// # Errors
/// Signals cannot be waited for.
pub(crate) fn ended() -> io::Result<impl Future<Output = &'static str>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}
