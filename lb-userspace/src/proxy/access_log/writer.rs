//! Lines on their way to standard output: whoever has one never waits for who reads it.

use std::{
    io::Write,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

/// Bytes of lines that wait to be written. What comes beyond is lost.
const ROOM: usize = 4 << 20;
/// How long the writer waits for lines that it can write together with the first.
const GATHER: Duration = Duration::from_millis(10);

/// Takes lines, which a thread of its own writes.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Lines>,
    /// There are lines where there were none, or it ends.
    comes: Condvar,
    /// Everything is written, and it has ended.
    over: Condvar,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    ends: bool,
    over: bool,
}

impl Writer {
    /// Starts one. It ends with [`Writer::end`].
    ///
    /// # Errors
    /// There can be no more threads.
    pub fn start(out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = shared.clone();
        let name = "access-log".to_owned();
        let thread = thread::Builder::new().name(name);
        thread.spawn(move || of_thread.write(out))?;
        Ok(Self { shared })
    }

    /// Takes a line, without its end. It is lost if too many wait.
    pub fn line(&self, line: &str) {
        let mut lines = self.shared.lines();
        if lines.ends || lines.bytes.len() + line.len() >= ROOM {
            drop(lines);
            self.shared.lost.fetch_add(1, Relaxed);
            return;
        }
        let is_first = lines.bytes.is_empty();
        lines.bytes.extend_from_slice(line.as_bytes());
        lines.bytes.push(b'\n');
        drop(lines);
        if is_first {
            self.shared.comes.notify_one();
        }
    }

    /// Lines that were lost.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Relaxed)
    }

    /// Writes what there is, if that takes no longer than `patience`; lines that come afterwards
    /// are lost.
    pub fn end(&self, patience: Duration) {
        let mut lines = self.shared.lines();
        lines.ends = true;
        self.shared.comes.notify_one();
        let over = &self.shared.over;
        // Whether or not it was in time: it ends.
        drop(over.wait_timeout_while(lines, patience, |lines| !lines.over));
    }
}

impl Shared {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        // A panic under the lock would leave out a line, and nothing wrong.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, mut out: impl Write) {
        let mut batch = Vec::new();
        loop {
            let waits = |lines: &mut Lines| lines.bytes.is_empty() && !lines.ends;
            let lines = self.comes.wait_while(self.lines(), waits);
            let ends = lines.unwrap_or_else(PoisonError::into_inner).ends;
            if !ends {
                thread::sleep(GATHER);
            }
            let mut lines = self.lines();
            std::mem::swap(&mut batch, &mut lines.bytes);
            let ends = lines.ends;
            drop(lines);
            if out.write_all(&batch).and_then(|()| out.flush()).is_err() {
                let lines = batch.iter().filter(|byte| **byte == b'\n').count();
                self.lost.fetch_add(lines as u64, Relaxed);
            }
            batch.clear();
            if ends {
                break;
            }
        }
        self.lines().over = true;
        self.over.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Hands over what is written, and waits for a word before each write.
    struct Slow(mpsc::Sender<Vec<u8>>, mpsc::Receiver<()>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.1.recv().is_err() {
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
            self.0.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (Writer, mpsc::Receiver<Vec<u8>>, mpsc::Sender<()>) {
        let (wrote, written) = mpsc::channel();
        let (go, goes) = mpsc::channel();
        (Writer::start(Slow(wrote, goes)).unwrap(), written, go)
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn lines_are_written_together_in_their_order() {
        let (writer, written, go) = slow();
        go.send(()).unwrap();
        go.send(()).unwrap();
        writer.line("one");
        writer.line("two");
        let mut all = written.recv_timeout(LONG).unwrap();
        writer.end(LONG);
        all.extend(written.try_iter().flatten());
        assert_eq!(all, b"one\ntwo\n");
        writer.line("late");
        assert_eq!(writer.lost(), 1);
    }

    #[test]
    fn nobody_waits_for_a_reader_who_does_not_read() {
        let (writer, written, go) = slow();
        let line = "x".repeat(1023);
        for _ in 0..10_000 {
            writer.line(&line);
        }
        // What waits, and a batch that the writer may have taken before it was full.
        let most = 2 * ROOM as u64 / 1024;
        assert!(writer.lost() >= 10_000 - most, "{}", writer.lost());
        let lost = writer.lost();
        drop(go);
        // A reader who is gone takes nothing: all are lost.
        writer.end(LONG);
        assert_eq!(writer.lost(), 10_000, "{lost} were before");
        assert!(written.recv_timeout(LONG).is_err());
    }

    #[test]
    fn the_end_does_not_wait_for_ever() {
        let (writer, _written, _go) = slow();
        writer.line("one");
        writer.end(Duration::from_millis(20));
    }
}
