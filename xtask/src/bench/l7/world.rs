//! The proxies and their upstream: addresses of a loopback interface that nobody else sees.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::load::{self, Counted, Held, Load};
use super::programs::Programs;
use super::proxies::{self, HOST, Proxy};
use super::usage;
use crate::bench::isolate::{Running, mount};
use crate::bench::machine;
use crate::paths;
use crate::sh::Sh;

/// How long a proxy may take to serve.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long memory is given to settle: whoever gives buffers of idle connections back has done so.
const SETTLE: Duration = Duration::from_secs(3);
/// Open files that a proxy with ten thousand idle connections needs.
const FILES: u64 = 12_000;
/// Settings of the network: clients that close connections at these rates would have no port left
/// after seconds.
const SETTINGS: [(&str, &str); 2] = [
    ("ipv4/ip_local_port_range", "1024 65535"),
    ("ipv4/tcp_tw_reuse", "1"),
];

/// Everything that runs. It ends with this.
pub(super) struct World {
    dir: PathBuf,
    programs: Programs,
    /// Of the proxies, and of the others.
    cpus: [usize; 2],
    proxies: BTreeMap<Proxy, Running>,
    _upstream: Running,
}

/// What a turn has cost the proxy.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) counted: Counted,
    /// CPU seconds.
    pub(super) cpu: f64,
}

impl World {
    /// Starts everything, in the namespaces of the calling thread, which stays on the CPU of the
    /// load.
    ///
    /// # Errors
    /// Something does not start.
    pub(super) fn start(dir: &Path, programs: Programs) -> Result<Self> {
        let cpus = machine::cpus()?;
        let cpus = [cpus[0], cpus[1]];
        usage::many_files(FILES)?;
        for address in proxies::addresses() {
            let address = format!("{address}/32");
            Sh::new("ip")
                .args(["address", "add", &address, "dev", "lo"])
                .read()?;
        }
        for (name, value) in SETTINGS {
            let file = format!("/proc/sys/net/{name}");
            fs::write(&file, value).with_context(|| format!("cannot write {file}"))?;
        }
        files(dir, &programs)?;
        machine::stay(&[cpus[1]])?;
        let conf = dir.join("upstream.conf");
        let upstream = start(dir, "upstream", nginx(&programs, dir, &conf))?;
        let mut world = Self {
            dir: dir.to_owned(),
            programs,
            cpus,
            proxies: BTreeMap::new(),
            _upstream: upstream,
        };
        for proxy in Proxy::ALL {
            world.restart(proxy)?;
        }
        Ok(world)
    }

    fn command(&self, proxy: Proxy) -> Command {
        match proxy {
            Proxy::Nginx => nginx(&self.programs, &self.dir, &self.dir.join("nginx.conf")),
            Proxy::Haproxy => {
                let mut command = self.programs.command("haproxy");
                command.arg("-f").arg(self.dir.join("haproxy.conf"));
                command
            }
            Proxy::Bascule => {
                let mut command = Command::new(paths::root().join("target/release/bascule"));
                let at = |port: u16| format!("{}:{port}", proxy.address());
                command
                    .arg("proxy")
                    .arg("--source")
                    .arg(self.dir.join("manifests"));
                for (flag, port) in [("--http", 80), ("--https", 443), ("--admin", 10254)] {
                    command.args([flag, &at(port)]);
                }
                command.args(["--configmap", "default/settings"]);
                // As many as the others have.
                command
                    .env("TOKIO_WORKER_THREADS", "1")
                    .env_remove("RUST_LOG");
                command
            }
        }
    }

    /// Starts a proxy afresh, and waits until it serves.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn restart(&mut self, proxy: Proxy) -> Result<()> {
        self.proxies.remove(&proxy);
        machine::stay(&[self.cpus[0]])?;
        let started = start(&self.dir, proxy.name(), self.command(proxy));
        machine::stay(&[self.cpus[1]])?;
        self.proxies.insert(proxy, started?);
        let begun = Instant::now();
        while let Err(error) = load::probe(proxy) {
            ensure!(
                begun.elapsed() < PATIENCE,
                "{} does not serve: {error:#}\n{}",
                proxy.name(),
                said(&self.dir, proxy.name())
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn pid(&self, proxy: Proxy) -> Result<u32> {
        let running = self.proxies.get(&proxy).context("it was never started")?;
        Ok(running.0.id())
    }

    /// A load of one proxy, for so long.
    ///
    /// # Errors
    /// A request failed.
    pub(super) fn turn(&self, proxy: Proxy, load: Load, seconds: u32) -> Result<Turn> {
        // wrk takes the host, and the name for TLS, from the address that it is given.
        let hosts = format!("127.0.0.1 localhost\n{} {HOST}\n", proxy.address());
        fs::write(self.dir.join("hosts"), hosts).context("the name of the proxy is not known")?;
        let pid = self.pid(proxy)?;
        let before = usage::cpu(pid)?;
        let wrk = |scheme| {
            let wrk = self.programs.command("wrk");
            load::wrk(wrk, &self.dir, proxy, scheme, seconds)
        };
        let counted = match load {
            Load::Http => wrk("http")?,
            Load::Https => wrk("https")?,
            Load::Handshakes | Load::Paced | Load::Idle => load::own(load, proxy, seconds.into())?,
        };
        let cpu = usage::cpu(pid)? - before;
        Ok(Turn { counted, cpu })
    }

    /// MiB of a fresh proxy, and of the same with connections that wait.
    ///
    /// # Errors
    /// It does not start, or takes no connections.
    pub(super) fn memory(&mut self, proxy: Proxy) -> Result<[f64; 2]> {
        self.restart(proxy)?;
        let pid = self.pid(proxy)?;
        let fresh = usage::memory(pid)?;
        let _held = Held::open(proxy)?;
        std::thread::sleep(SETTLE);
        Ok([fresh, usage::memory(pid)?])
    }
}

/// Writes what everybody reads, with a fresh certificate (ECDSA, P-256).
fn files(dir: &Path, programs: &Programs) -> Result<()> {
    let [key, certificate] = ["tls.key", "tls.crt"].map(|name| dir.join(name));
    let subject = format!("/CN={HOST}");
    let made = programs
        .command("openssl")
        .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30".split(' '))
        .args([
            "-subj",
            &subject,
            "-addext",
            &format!("subjectAltName=DNS:{HOST}"),
        ])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .context("openssl cannot be started")?;
    let errors = String::from_utf8_lossy(&made.stderr);
    ensure!(
        made.status.success(),
        "openssl makes no certificate: {errors}"
    );
    proxies::write(
        dir,
        &fs::read_to_string(certificate)?,
        &fs::read_to_string(key)?,
    )?;
    let hosts = dir.join("hosts");
    fs::write(&hosts, "")?;
    let hosts = hosts.to_str().context("the checkout's path is no text")?;
    mount(hosts, Path::new("/etc/hosts"), None, libc::MS_BIND)
}

fn nginx(programs: &Programs, dir: &Path, conf: &Path) -> Command {
    let mut command = programs.command("nginx");
    command
        .arg("-p")
        .arg(dir)
        .arg("-c")
        .arg(conf)
        .args(["-e", "stderr"]);
    command
}

fn start(dir: &Path, name: &str, mut command: Command) -> Result<Running> {
    let log = File::create(dir.join(name).with_extension("out"))?;
    let child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("{name} cannot be started"))?;
    Ok(Running(child))
}

fn said(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name).with_extension("out")).unwrap_or_default()
}
