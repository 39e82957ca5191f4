//! A program on a terminal, and what the terminal shows.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::eventually;
use super::netns::Netns;

/// Lines and columns: what a terminal has at least.
const SIZE: (NonZero<u16>, NonZero<u16>) = (NonZero::new(24).unwrap(), NonZero::new(80).unwrap());

/// A program on a terminal.
pub struct Pty {
    child: Child,
    master: File,
    // Kept open, so that what the program leaves of the terminal can be looked at.
    slave: OwnedFd,
    screen: Arc<Mutex<vt100::Parser>>,
    reader: Option<JoinHandle<()>>,
}

impl Pty {
    /// Starts a program in a namespace and a cgroup.
    ///
    /// # Panics
    /// There is no terminal, or the program cannot be started.
    #[must_use]
    pub fn start(netns: &Netns, mut command: Command, cgroup: &Path) -> Self {
        let (master, slave) = open();
        let end = || Stdio::from(slave.try_clone().expect("a descriptor can be duplicated"));
        command.stdin(end()).stdout(end()).stderr(end());
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
        let child = netns.spawn(command, cgroup);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(SIZE.0, SIZE.1, 0)));
        let (mut output, shown) = (master.try_clone().expect("as above"), screen.clone());
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // EIO when nobody has the other end open.
            while let Ok(n @ 1..) = output.read(&mut bytes) {
                shown.lock().expect("nobody panics").process(&bytes[..n]);
            }
        });
        Self {
            child,
            master,
            slave,
            screen,
            reader: Some(reader),
        }
    }

    /// Types.
    ///
    /// # Panics
    /// The terminal is gone.
    pub fn types(&mut self, keys: &str) {
        let typed = self.master.write_all(keys.as_bytes());
        typed.expect("a terminal takes what is typed");
    }

    /// What is on the screen.
    ///
    /// # Panics
    /// The reader has panicked.
    #[must_use]
    pub fn screen(&self) -> String {
        let parser = self.screen.lock().expect("nobody panics");
        parser.screen().contents()
    }

    /// Waits until the screen is as `check` wants it.
    ///
    /// # Panics
    /// It never is.
    pub fn shows(&self, check: impl Fn(&str) -> bool) -> String {
        eventually(Duration::from_secs(20), || {
            let screen = self.screen();
            if check(&screen) {
                Ok(screen)
            } else {
                Err(format!("the screen is\n{screen}"))
            }
        })
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// It cannot be sent.
    pub fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.child.id()).expect("ids are small");
        // SAFETY: kill touches no memory; the child has not been waited for.
        let sent = unsafe { libc::kill(pid, signal) };
        assert_eq!(sent, 0, "kill: {}", std::io::Error::last_os_error());
    }

    /// Waits for the end, and returns its status, and whether the terminal is as it was: with
    /// its own screen, a cursor, an echo, and lines.
    ///
    /// # Panics
    /// It does not end.
    pub fn ended(&mut self) -> (ExitStatus, bool) {
        let status = eventually(Duration::from_secs(10), || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            other => Err(format!("{other:?}; the screen is\n{}", self.screen())),
        });
        let is_own = || {
            let parser = self.screen.lock().expect("nobody panics");
            !parser.screen().alternate_screen() && !parser.screen().hide_cursor()
        };
        // What it wrote last may not have been read yet.
        let own = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            is_own()
        });
        (status, own && is_cooked(&self.slave))
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The reader ends with the last of the other ends.
        let null = File::open("/dev/null").expect("it is there");
        drop(std::mem::replace(&mut self.slave, null.into()));
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn open() -> (File, OwnedFd) {
    let (mut master, mut slave) = (-1, -1);
    let size = libc::winsize {
        ws_row: SIZE.0.get(),
        ws_col: SIZE.1.get(),
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: both descriptors and the size outlive the call; a name and settings are not
    // asked for.
    let opened = unsafe {
        libc::openpty(
            &mut master,
            &mut slave,
            std::ptr::null_mut(),
            std::ptr::null(),
            &raw const size,
        )
    };
    assert_eq!(opened, 0, "openpty: {}", std::io::Error::last_os_error());
    // SAFETY: the call has opened both, and nobody else has them.
    unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) }
}

/// Whether a terminal echoes what is typed, and passes it on by lines.
fn is_cooked(terminal: &OwnedFd) -> bool {
    // SAFETY: of a termios every value is valid, and tcgetattr fills it in.
    let (got, settings) = unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        let got = libc::tcgetattr(terminal.as_raw_fd(), &raw mut settings);
        (got, settings)
    };
    let cooked = libc::ICANON | libc::ECHO | libc::ISIG;
    got == 0 && settings.c_lflag & cooked == cooked
}
