//! The files in the state directory, and who writes them.

use std::{
    io,
    sync::{Arc, mpsc as std_mpsc},
    thread,
};

use super::{
    publish::Sign,
    state::{ServiceNames, StateDir, Status},
};
use crate::log::recent;

/// What is written into the state directory.
pub(super) enum File {
    /// What `bascule status` shows, and the names of services.
    Status(Box<Status>, Arc<ServiceNames>),
    /// What `bascule health` answers, or a sign of life.
    Sign(Sign),
}

/// A thread that writes the files, so that the straight line never waits for a
/// file system.
pub(super) fn writer(dir: StateDir) -> io::Result<std_mpsc::Sender<File>> {
    let (tx, rx) = std_mpsc::channel::<File>();
    thread::Builder::new().name("files".into()).spawn(move || {
        let mut written: Option<Arc<ServiceNames>> = None;
        let (mut vouches, mut failed) = (false, false);
        let mut logged = 0;
        for file in rx {
            let result = match file {
                File::Status(status, names) => {
                    let known = written.as_ref().is_some_and(|w| Arc::ptr_eq(w, &names));
                    let result = dir.write_status(&status);
                    match result.is_ok() && !known {
                        true => dir.write_names(written.insert(names)),
                        false => result,
                    }
                }
                File::Sign(Sign::Record(record)) => {
                    let result = dir.write_record(&record);
                    vouches = result.is_ok();
                    result
                }
                File::Sign(Sign::Beat) => dir.beat(vouches).and_then(|()| log(&dir, &mut logged)),
            };
            match result {
                Ok(()) => failed = false,
                Err(error) if !failed => {
                    failed = true;
                    tracing::warn!(%error, "files for `bascule status` and `bascule health` cannot be written; give another directory with --state-dir");
                }
                Err(_) => {}
            }
        }
        // The last lines say why it ends. Nobody is told if they cannot be written.
        let _ = log(&dir, &mut logged);
    })?;
    Ok(tx)
}

/// Writes the last lines of the log, if there are others than `logged`.
fn log(dir: &StateDir, logged: &mut u64) -> io::Result<()> {
    let count = recent::count();
    if count != *logged {
        dir.write_log(&recent::lines())?;
        *logged = count;
    }
    Ok(())
}
