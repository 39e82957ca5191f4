//! Processes of the cluster: started in the control plane's namespace or on a node, found
//! again by later commands, and ended.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

use super::topology::{Node, control_netns, state};
use super::{cgroup, tools};
use crate::lab::netns::NETNS_DIR;
use crate::ui;

/// How often a condition is looked at that somebody waits for.
const POLL: Duration = Duration::from_millis(250);
/// Lines of a log that an error shows.
const TAIL: usize = 12;
/// How long the kernel may take to end what is killed: the first process of a node waits for all
/// others, and with twelve nodes that took more than ten seconds.
const KILLED: Duration = Duration::from_secs(60);

/// Where a program runs.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// In the control plane's network namespace.
    Control,
    /// In all namespaces and cgroups of a node.
    Node(Node),
}

/// A command that will run at `place`, with the cluster's programs on its PATH.
///
/// # Errors
/// The place is not there.
pub(crate) fn command(place: Place, program: impl AsRef<Path>) -> Result<Command> {
    match place {
        Place::Control => in_control(program.as_ref()),
        Place::Node(node) => on_node(node, program.as_ref()),
    }
}

/// The PATH of the cluster's processes.
fn path() -> String {
    let own = tools::path().map(|dir| format!("{}:", dir.display()));
    own.concat() + "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

fn in_control(program: &Path) -> Result<Command> {
    let file = Path::new(NETNS_DIR).join(control_netns());
    let mut command = Command::new(program);
    command.env("PATH", path());
    enter(&mut command, &file).context("no cluster is up: `cargo xtask cluster up`")?;
    Ok(command)
}

/// Lets `command` enter a network namespace, by its file, before it starts.
///
/// # Errors
/// There is no such file.
pub(crate) fn enter(command: &mut Command, file: &Path) -> Result<()> {
    let namespace = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    // SAFETY: the closure runs between fork and exec and makes one system call, on a
    // descriptor that it owns.
    unsafe {
        command.pre_exec(
            move || match libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            },
        );
    }
    Ok(())
}

fn on_node(node: Node, program: &Path) -> Result<Command> {
    let init = Daemon::named(format!("{}.init", node.name()))
        .pid()
        .with_context(|| format!("node {} is not up: `cargo xtask cluster up`", node.name()))?;
    let mut command = Command::new("nsenter");
    command
        .args([
            "-t",
            &init.to_string(),
            "-m",
            "-p",
            "-n",
            "-u",
            "-i",
            "-C",
            "--",
        ])
        .args(["env", &format!("PATH={}", path())])
        .arg(program);
    join(&mut command, cgroup::open(node)?);
    Ok(command)
}

/// Lets `command` move to cgroups, by their `cgroup.procs`, before it starts.
pub(crate) fn join(command: &mut Command, groups: Vec<File>) {
    // SAFETY: the closure runs between fork and exec and makes only system calls, on
    // descriptors that it owns.
    unsafe {
        command.pre_exec(move || {
            for procs in &groups {
                if libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) != 1 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}

/// A process that outlives the command that started it. Its pid is kept with its start time,
/// so that another process with the same pid is not taken for it.
pub(crate) struct Daemon(String);

impl Daemon {
    /// The daemon of this name, whether it runs or not.
    pub(crate) fn named(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// All that were started and not ended.
    pub(crate) fn all() -> Vec<Self> {
        let entries = fs::read_dir(state().join("pid"));
        entries
            .into_iter()
            .flatten()
            .filter_map(|e| e.ok()?.file_name().into_string().ok())
            .map(Self)
            .collect()
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    fn file(&self) -> PathBuf {
        state().join("pid").join(&self.0)
    }

    /// Where its output goes.
    pub(crate) fn log(&self) -> PathBuf {
        state().join("log").join(format!("{}.log", self.0))
    }

    /// Its process, if it runs.
    pub(crate) fn pid(&self) -> Option<i32> {
        let text = fs::read_to_string(self.file()).ok()?;
        let (pid, start) = text.trim().split_once(' ')?;
        let pid = pid.parse().ok()?;
        (started(pid)?.to_string() == start).then_some(pid)
    }

    /// Starts `command` as this daemon: in a session of its own, its output in its log.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(&self, mut command: Command) -> Result<i32> {
        for dir in ["pid", "log"].map(|d| state().join(d)) {
            fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let path = self.log();
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("cannot write {}", path.display()))?;
        let errors = log.try_clone().context("cannot duplicate a descriptor")?;
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        // SAFETY: setsid is a system call without arguments, safe between fork and exec.
        unsafe {
            command.pre_exec(|| match libc::setsid() {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            });
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", self.0))?;
        let pid = child.id().cast_signed();
        self.record(pid)?;
        Ok(pid)
    }

    /// Notes that `pid` is this daemon.
    ///
    /// # Errors
    /// There is no such process, or the note cannot be written.
    pub(crate) fn record(&self, pid: i32) -> Result<()> {
        let start = started(pid).with_context(|| self.died())?;
        let path = self.file();
        let mut file =
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        writeln!(file, "{pid} {start}").with_context(|| format!("cannot write {}", path.display()))
    }

    /// What to say when it is gone: the end of its log.
    pub(crate) fn died(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n  | ");
        format!(
            "{} ended; the end of {}:\n  | {tail}",
            self.0,
            self.log().display()
        )
    }

    /// An error if it does not run.
    ///
    /// # Errors
    /// It does not run.
    pub(crate) fn check(&self) -> Result<()> {
        self.pid().map(|_| ()).ok_or_else(|| anyhow!(self.died()))
    }

    /// Asks it to end with SIGTERM, kills it after `grace`, and forgets it.
    ///
    /// # Errors
    /// It is there still, after a kill.
    pub(crate) fn stop(&self, grace: Duration) -> Result<()> {
        if let Some(pid) = self.pid() {
            let target = target(pid);
            // One that pauses hears of nothing else.
            signal(target, libc::SIGCONT);
            if !grace.is_zero() {
                signal(target, libc::SIGTERM);
                self.wait_gone(grace);
            }
            if self.pid().is_some() {
                signal(target, libc::SIGKILL);
                signal(pid, libc::SIGKILL);
            }
            if !self.wait_gone(KILLED) {
                bail!("{} (process {pid}) does not end", self.0);
            }
        }
        let _ = fs::remove_file(self.file());
        Ok(())
    }

    /// Lets it do nothing, until it is to go on or to end.
    pub(crate) fn pause(&self) {
        if let Some(pid) = self.pid() {
            signal(target(pid), libc::SIGSTOP);
        }
    }

    /// Lets it go on after [`Self::pause`].
    pub(crate) fn go_on(&self) {
        if let Some(pid) = self.pid() {
            signal(target(pid), libc::SIGCONT);
        }
    }

    fn wait_gone(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while self.pid().is_some() {
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }
}

/// The process that signals are for: what `nsenter` started is its child, and gets none from it.
fn target(pid: i32) -> i32 {
    child_of(pid).filter(|_| is_nsenter(pid)).unwrap_or(pid)
}

fn is_nsenter(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.trim() == "nsenter")
}

/// Sends a signal; a process that is gone already needs none.
pub(crate) fn signal(pid: i32, signal: i32) {
    // SAFETY: a system call on numbers.
    unsafe { libc::kill(pid, signal) };
}

/// When a live process was started, in clock ticks since boot (proc(5), `stat`).
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    start_time(&stat)
}

/// The 22nd field of `stat`, none of a zombie. The second may have blanks and brackets.
fn start_time(stat: &str) -> Option<u64> {
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    match *fields.first()? {
        "Z" | "X" => None,
        _ => fields.get(19)?.parse().ok(),
    }
}

/// The first child of a process.
pub(crate) fn child_of(pid: i32) -> Option<i32> {
    let wanted = pid.to_string();
    fs::read_dir("/proc").ok()?.find_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        let child = name.parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).ok()?;
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?;
        (parent == wanted).then_some(child)
    })
}

/// Runs `command` to its end, and returns what it printed.
///
/// # Errors
/// It cannot be started, or fails: the error has what it said.
pub(crate) fn output(command: Command) -> Result<String> {
    let bytes = bytes(command)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// [`output`] of a command that prints no text.
///
/// # Errors
/// It fails.
pub(crate) fn bytes(mut command: Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {name}"))?;
    if out.status.success() {
        return Ok(out.stdout);
    }
    let words: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
    bail!(
        "`{name} {}`: {}",
        words.join(" "),
        String::from_utf8_lossy(&out.stderr).trim()
    )
}

/// Waits until `ready` is, and shows that it does; `limit` is when it gives up.
///
/// # Errors
/// The last error of `ready`, or at once the end of the daemon that is waited for.
pub(crate) fn wait_for(
    what: &str,
    limit: Duration,
    daemon: Option<&Daemon>,
    mut ready: impl FnMut() -> Result<()>,
) -> Result<()> {
    let end = Instant::now() + limit;
    let mut progress = ui::Progress::start(what);
    loop {
        let Err(error) = ready() else {
            progress.end(true);
            return Ok(());
        };
        if let Some(Err(gone)) = daemon.map(Daemon::check) {
            progress.end(false);
            return Err(gone.context(what.to_owned()));
        }
        if Instant::now() > end {
            progress.end(false);
            let logs = daemon.map(|d| format!(" (its log: {})", d.log().display()));
            return Err(error.context(format!(
                "{what}: not after {}{}",
                ui::duration(limit),
                logs.unwrap_or_default()
            )));
        }
        progress.tick("");
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = std::process::id().cast_signed();
        assert!(started(own).is_some());
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 99 0";
        assert_eq!(start_time(stat), Some(4242));
        assert_eq!(start_time(&stat.replace(") S", ") Z")), None);
    }

    #[test]
    fn a_wait_ends_with_the_reason() {
        let error = wait_for("a thing", Duration::ZERO, None, || bail!("not yet")).unwrap_err();
        assert_eq!(format!("{error:#}"), "a thing: not after 0.0 s: not yet");
    }
}
