//! The container image, unpacked and entered: its one program runs with nothing beside it, and
//! finds addresses of names, which a static program has no library of the system for.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use bascule_tests::e2e::agent::Agent;
use bascule_tests::e2e::eventually;
use bascule_tests::e2e::node::Node;
use bascule_tests::e2e::world::World;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The API server's name in these tests, and its port.
const NAME: &str = "api.bascule.test";
const PORT: u16 = 6443;
/// The agent asks again after pauses of 15 seconds at most.
const PATIENCE: Duration = Duration::from_secs(30);

/// The archive, which is made here unless `BASCULE_IMAGE` names one.
fn archive() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        if let Some(given) = std::env::var_os("BASCULE_IMAGE") {
            return given.into();
        }
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let out = Command::new(cargo)
            .args(["run", "--quiet", "--package", "xtask", "--", "image"])
            .current_dir(&workspace)
            // The tests' own would lead xtask elsewhere.
            .env_remove("CARGO_MANIFEST_DIR")
            .output()
            .expect("cargo is installed");
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "cargo xtask image: {text}");
        // The digest, and the file.
        let line = String::from_utf8(out.stdout).expect("xtask writes UTF-8");
        let (_, file) = line.trim().split_once(' ').expect("two words");
        file.into()
    })
}

/// The files of the image.
struct Root {
    dir: TempDir,
    config: Value,
}

impl Root {
    fn unpack() -> Self {
        let dir = TempDir::new().expect("a directory can be made");
        let (layout, files) = (dir.path().join("layout"), dir.path().join("root"));
        untar(&["-xf"], archive(), &layout);
        let read = |path: PathBuf| -> Value {
            let text = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            serde_json::from_slice(&text).expect("the image's documents are JSON")
        };
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().expect("a digest");
            layout.join("blobs").join(digest.replace(':', "/"))
        };
        let index = read(layout.join("index.json"));
        let manifest = read(blob(&index["manifests"][0]));
        let config = read(blob(&manifest["config"]));
        let layers = manifest["layers"].as_array().expect("a list of layers");
        assert_eq!(layers.len(), 1);
        untar(&["-xzf"], &blob(&layers[0]), &files);
        Self { dir, config }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Writes a file that a container runtime would mount.
    fn write(&self, file: &str, text: &str) {
        let path = self.path().join(file);
        fs::create_dir_all(path.parent().expect("below the root")).expect("a directory");
        fs::write(path, text).expect("a file can be written");
    }

    /// The agent of a node as the image's only process, with the node's file systems.
    fn agent(&self, node: &Node) -> Agent {
        let server = format!("https://{NAME}:{PORT}");
        // The image has no authorities of its own.
        authority(&self.path().join("ca.crt"));
        let cluster = json!({"server": server, "certificate-authority": "/ca.crt"});
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "x", "cluster": cluster}],
            "users": [{"name": "x", "user": {"token": "x"}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        });
        self.write("kubeconfig", &kubeconfig.to_string());
        let own = node.path("");
        let mounts = [Path::new("/proc"), Path::new("/sys"), &own].map(|from| {
            let below = from.strip_prefix("/").expect("paths are absolute");
            let to = self.path().join(below);
            fs::create_dir_all(&to).expect("a directory can be made");
            format!("mount --rbind {} {} && ", from.display(), to.display())
        });
        let script = format!("{} exec chroot \"$0\" \"$@\"", mounts.concat());
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", &script])
            .arg(self.path())
            .arg(self.program())
            .args(Agent::arguments(node))
            .args(["--kubeconfig", "/kubeconfig"]);
        Agent::spawn(node, command, node.path("image.log"))
    }

    fn program(&self) -> String {
        let entry = self.config["config"]["Entrypoint"][0].as_str();
        entry.expect("the image has an entry point").to_owned()
    }
}

/// Makes an authority: a certificate that signs itself.
fn authority(file: &Path) {
    let out = Command::new("openssl")
        .args([
            "req", "-x509", "-nodes", "-subj", "/CN=e2e", "-newkey", "ec",
        ])
        .args([
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-keyout",
            "/dev/null",
            "-out",
        ])
        .arg(file)
        .output()
        .expect("openssl is installed");
    assert!(out.status.success(), "{out:?}");
}

fn untar(flags: &[&str], file: &Path, into: &Path) {
    fs::create_dir_all(into).expect("a directory can be made");
    let out = Command::new("tar")
        .args(flags)
        .arg(file)
        .arg("-C")
        .arg(into)
        .output()
        .expect("tar is installed");
    assert!(out.status.success(), "{out:?}");
}

/// Waits until somebody dials the API server.
fn dialled(listener: &TcpListener, agent: &Agent) {
    listener.set_nonblocking(true).expect("a socket can be set");
    eventually(PATIENCE, || {
        let dialled = listener.accept().map(drop);
        dialled.map_err(|e| format!("{e}; the agent's log:\n{}", agent.log()))
    });
}

#[test]
fn the_program_needs_nothing_beside_it() {
    let root = Root::unpack();
    let run = |args: &[&str]| {
        let out = Command::new("chroot")
            .arg(root.path())
            .arg(root.program())
            .args(args)
            .output()
            .expect("chroot is installed");
        assert!(out.status.success(), "{out:?}");
        String::from_utf8(out.stdout).expect("it writes UTF-8")
    };
    let labels = &root.config["config"]["Labels"];
    let label = |name: &str| {
        let value = labels[format!("org.opencontainers.image.{name}")].as_str();
        value.expect("a label").to_owned()
    };
    let version = format!("bascule {} ({})\n", label("version"), label("revision"));
    assert_eq!(run(&["--version"]), version);
    assert!(run(&["agent", "--help"]).contains("--node-name"));
    for (file, words) in [
        ("man/man1/bascule.1", "bascule\\-status(1)"),
        (
            "man/man1/bascule-conntrack-list.1",
            "bascule conntrack list",
        ),
        (
            "bash-completion/completions/bascule",
            "complete -F _bascule",
        ),
        (
            "fish/vendor_completions.d/bascule.fish",
            "complete -c bascule",
        ),
        ("zsh/site-functions/_bascule", "#compdef bascule"),
    ] {
        let path = root.path().join("usr/share").join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert!(text.contains(words), "{file} has no {words}: {text}");
    }
    let list = root.path().join("usr/share/doc/bascule/bascule.cdx.json");
    let list: Value = serde_json::from_slice(&fs::read(list).expect("a list of components"))
        .expect("the list is JSON");
    assert_eq!(list["bomFormat"], "CycloneDX");
    let components = list["components"].as_array().expect("components");
    let names: Vec<_> = components.iter().map(|c| &c["name"]).collect();
    assert!(names.iter().any(|n| **n == "kube-client"), "{names:?}");
}

#[test]
fn names_are_read_from_the_hosts_file() {
    let (root, world) = (Root::unpack(), World::new());
    let node = Node::new(&world, 1);
    let listener = node
        .netns()
        .inside(|| TcpListener::bind(("127.0.0.1", PORT)));
    root.write("etc/hosts", &format!("127.0.0.1 {NAME}\n"));
    let agent = root.agent(&node);
    dialled(&listener.expect("the port is free"), &agent);
}

#[test]
fn names_are_asked_of_dns() {
    let (root, world) = (Root::unpack(), World::new());
    let node = Node::new(&world, 1);
    let (listener, dns) = node.netns().inside(|| {
        let listener = TcpListener::bind(("127.0.0.1", PORT)).expect("the port is free");
        (
            listener,
            UdpSocket::bind("127.0.0.1:53").expect("the port is free"),
        )
    });
    root.write("etc/resolv.conf", "nameserver 127.0.0.1\n");
    std::thread::spawn(move || serve_dns(&dns));
    let agent = root.agent(&node);
    dialled(&listener, &agent);
}

/// Answers every question about an IPv4 address with 127.0.0.1, and others with nothing
/// (RFC 1035, section 4).
fn serve_dns(socket: &UdpSocket) {
    let mut buffer = [0; 512];
    while let Ok((len, peer)) = socket.recv_from(&mut buffer) {
        let query = &buffer[..len];
        // The name: labels with their lengths, then the root; type and class follow.
        let mut end = 12;
        while query.get(end).is_some_and(|label| *label != 0) {
            end += 1 + usize::from(query[end]);
        }
        let Some(question) = query.get(12..end + 5) else {
            continue;
        };
        let is_a = question.ends_with(&[0, 1, 0, 1]);
        // A response, recursion available; one question, perhaps one answer.
        let header = [0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0];
        let mut answer = [&query[..2], &header, question].concat();
        if is_a {
            // The name of the question, type A, class IN, 60 seconds, 4 bytes.
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
        }
        let _ = socket.send_to(&answer, peer);
    }
}
