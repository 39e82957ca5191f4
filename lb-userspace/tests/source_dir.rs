//! A directory of manifests as a source: what is in force while files change.

use std::{fs, path::Path, time::Duration};

use lb_userspace::{
    change::{Change, Content, Kind},
    source::dir::Dir,
    store::Store,
};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle, time};

struct Followed {
    dir: TempDir,
    changes: mpsc::Receiver<Change>,
    store: Store,
    troubles: std::collections::BTreeMap<String, String>,
    task: JoinHandle<()>,
}

impl Followed {
    fn new(dir: TempDir) -> Self {
        let (tx, changes) = mpsc::channel(16);
        let task = tokio::spawn(Dir::new(dir.path(), &Kind::AGENT).follow(tx));
        Self {
            dir,
            changes,
            store: Store::new(),
            troubles: Default::default(),
            task,
        }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    /// The addresses of the services that are in force, and the troubled files.
    fn seen(&self) -> (Vec<String>, Vec<&str>) {
        let mut services: Vec<String> = self
            .store
            .services()
            .map(|k| {
                format!(
                    "{} {}",
                    k.name,
                    self.store.service(k).unwrap().0.cluster_ips[0]
                )
            })
            .collect();
        services.sort();
        let names = self
            .troubles
            .keys()
            .map(|p| Path::new(p).file_name().unwrap().to_str().unwrap());
        (services, names.collect())
    }

    /// Takes changes in until the services and troubled files are these.
    async fn until(&mut self, services: &[&str], troubled: &[&str]) {
        let result = time::timeout(Duration::from_secs(10), async {
            loop {
                let (s, t) = self.seen();
                if self.store.synced() && s == services && t == troubled {
                    return;
                }
                match self.changes.recv().await.expect("the source has ended") {
                    Change::Trouble {
                        place,
                        message: Some(m),
                    } => {
                        self.troubles.insert(place, m);
                    }
                    Change::Trouble {
                        place,
                        message: None,
                    } => {
                        self.troubles.remove(&place);
                    }
                    change => self.store.apply(change),
                }
            }
        })
        .await;
        assert!(
            result.is_ok(),
            "{:?} instead of {services:?}, {troubled:?}",
            self.seen()
        );
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn service(name: &str, ip: &str) -> String {
    format!("kind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: {ip}}}\n---\n")
}

#[tokio::test]
async fn files_are_followed_as_they_change() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("a.yaml"), service("a", "10.0.0.1")).unwrap();
    fs::write(dir.path().join("notes.txt"), "kind: nonsense: [").unwrap();
    fs::write(dir.path().join(".hidden.yaml"), "kind: nonsense: [").unwrap();
    let mut f = Followed::new(dir);
    f.until(&["a 10.0.0.1"], &[]).await;

    f.write("b.yaml", &service("b", "10.0.0.2"));
    f.until(&["a 10.0.0.1", "b 10.0.0.2"], &[]).await;

    // Renamed over, as editors and `kubectl apply`-like tools do.
    f.write("b.yaml.new", &service("b", "10.0.0.3"));
    fs::rename(f.dir.path().join("b.yaml.new"), f.dir.path().join("b.yaml")).unwrap();
    f.until(&["a 10.0.0.1", "b 10.0.0.3"], &[]).await;

    fs::remove_file(f.dir.path().join("a.yaml")).unwrap();
    f.until(&["b 10.0.0.3"], &[]).await;
}

#[tokio::test]
async fn a_malformed_file_keeps_its_last_good_content_and_everything_else_works() {
    let dir = TempDir::new().unwrap();
    fs::write(
        dir.path().join("a.yaml"),
        service("a", "10.0.0.1") + &service("b", "10.0.0.2"),
    )
    .unwrap();
    let mut f = Followed::new(dir);
    f.until(&["a 10.0.0.1", "b 10.0.0.2"], &[]).await;

    f.write(
        "a.yaml",
        &(service("a", "10.0.0.7") + "kind: Service\nmetadata: [\n"),
    );
    f.until(&["a 10.0.0.1", "b 10.0.0.2"], &["a.yaml"]).await;
    let message = f.troubles.values().next().unwrap();
    assert!(
        message.contains("document 2") && message.contains("last good content"),
        "{message}"
    );

    f.write("c.yaml", &service("c", "10.0.0.3"));
    f.until(&["a 10.0.0.1", "b 10.0.0.2", "c 10.0.0.3"], &["a.yaml"])
        .await;

    f.write("a.yaml", &service("a", "10.0.0.8"));
    f.until(&["a 10.0.0.8", "c 10.0.0.3"], &[]).await;

    fs::remove_file(f.dir.path().join("a.yaml")).unwrap();
    f.until(&["c 10.0.0.3"], &[]).await;
}

#[tokio::test]
async fn a_file_that_is_bad_from_the_start_serves_what_can_be_read() {
    let dir = TempDir::new().unwrap();
    fs::write(
        dir.path().join("a.yaml"),
        service("a", "10.0.0.1") + "kind: Service\nmetadata: 7\n",
    )
    .unwrap();
    fs::write(dir.path().join("z.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    let mut f = Followed::new(dir);
    f.until(&["a 10.0.0.1"], &["a.yaml", "z.yaml"]).await;
}

#[tokio::test]
async fn a_directory_that_appears_later_is_followed_then() {
    let parent = TempDir::new().unwrap();
    let path = parent.path().join("later");
    let (tx, mut rx) = mpsc::channel(16);
    let task = tokio::spawn(Dir::new(&path, &Kind::AGENT).follow(tx));
    let Some(Change::Trouble {
        place,
        message: Some(message),
    }) = rx.recv().await
    else {
        panic!("a missing directory is no trouble")
    };
    assert!(
        place.ends_with("later") && message.contains("--source"),
        "{place}: {message}"
    );
    fs::create_dir(&path).unwrap();
    fs::write(path.join("a.yaml"), service("a", "10.0.0.1")).unwrap();
    let mut services = 0;
    let done = time::timeout(Duration::from_secs(20), async {
        let mut done = 0;
        while done < Kind::AGENT.len() {
            match rx.recv().await.unwrap() {
                Change::Put(object) => {
                    services += usize::from(matches!(object.content, Content::Service(_)))
                }
                Change::Done(_) => done += 1,
                _ => {}
            }
        }
    });
    assert!(done.await.is_ok());
    assert_eq!(services, 1);
    task.abort();
}
