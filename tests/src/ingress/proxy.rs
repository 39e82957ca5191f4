//! `bascule proxy` as a process.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use super::client::ask;
use crate::e2e::{beside, eventually};

const PATIENCE: Duration = Duration::from_secs(20);

/// A running proxy, which reads manifests from a directory of its own. It is killed when this is
/// dropped.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    dir: TempDir,
    /// Where it serves HTTP.
    pub http: SocketAddr,
    /// Where it serves HTTPS.
    pub https: SocketAddr,
}

impl Proxy {
    /// Starts one at an address of the calling thread's namespace, with manifests and more flags,
    /// and waits until it serves.
    ///
    /// # Panics
    /// It does not.
    #[must_use]
    pub fn start(address: [u8; 4], manifests: &str, flags: &[&str]) -> Self {
        let dir = TempDir::new().expect("a directory can be made");
        let at = |port: u16| SocketAddr::from((address, port));
        let (http, https, admin) = (at(80), at(443), at(10254));
        fs::create_dir(dir.path().join("manifests")).expect("a directory can be made");
        fs::write(dir.path().join("manifests/all.yaml"), manifests).expect("it can be written");
        let log = File::create(dir.path().join("log")).expect("a log can be made");
        let mut command = Command::new(beside("bascule"));
        command
            .arg("proxy")
            .arg("--source")
            .arg(dir.path().join("manifests"));
        for (flag, address) in [("--http", http), ("--https", https), ("--admin", admin)] {
            command.arg(flag).arg(address.to_string());
        }
        let child = command
            .args(flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor can be duplicated"))
            .stderr(log)
            .env_remove("RUST_LOG")
            .spawn()
            .expect("it can be started");
        let proxy = Self {
            child,
            dir,
            http,
            https,
        };
        eventually(PATIENCE, || {
            let answer = ask(admin, "GET /readyz HTTP/1.1\r\nhost: admin\r\n", "");
            match &answer {
                Ok(answer) if answer.status == 200 => Ok(()),
                _ => Err(format!("{answer:?}; the log:\n{}", proxy.log())),
            }
        });
        proxy
    }

    /// Changes its manifests.
    ///
    /// # Panics
    /// They cannot be written.
    pub fn write(&self, manifests: &str) {
        let dir = self.dir.path().join("manifests");
        let new = dir.join(".new");
        fs::write(&new, manifests).expect("it can be written");
        fs::rename(new, dir.join("all.yaml")).expect("it can be renamed");
    }

    /// What it has said.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// A path of its directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Asks it to end.
    ///
    /// # Panics
    /// There is no such process.
    pub fn terminate(&self) {
        // SAFETY: a signal to a child that has not been waited for.
        let sent = unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        assert_eq!(sent, 0, "a process of ours can be told");
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// It does not.
    pub fn ended(&mut self) -> ExitStatus {
        let log = self.log();
        eventually(PATIENCE, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            other => Err(format!("{other:?}; the log:\n{log}")),
        })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // One that has ended by itself cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
