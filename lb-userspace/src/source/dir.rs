//! Follows a directory of manifests.
//!
//! Every `.yaml`, `.yml` and `.json` file directly in the directory counts; names
//! that begin with a dot do not. A file with an error keeps its last good content
//! in force; one that was never good serves the documents that can be read.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use notify::{RecursiveMode, Watcher};
use tokio::{sync::mpsc, time};

use super::merge::Merged;
use crate::{
    change::{Change, Kind},
    intern::Interner,
    watch::manifest,
};

/// Editors write a file in several steps: it is read when it has been quiet for
/// this long.
const QUIET: Duration = Duration::from_millis(20);
/// Even when the kernel tells of changes, the directory is compared this often:
/// a network file system tells nothing, and a full queue of events loses some.
const COMPARE: Duration = Duration::from_secs(5);

/// A file's identity and version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    inode: u64,
    len: u64,
    modified: Option<SystemTime>,
    changed: (i64, i64),
}

/// A directory of manifests.
#[derive(Debug)]
pub struct Dir {
    path: PathBuf,
    kinds: &'static [Kind],
    interner: Interner,
    merged: Merged,
    stamps: HashMap<PathBuf, Stamp>,
    /// What was last said about each place.
    troubles: HashMap<PathBuf, String>,
}

impl Dir {
    /// A directory, of which objects of some kinds count; nothing is read yet.
    pub fn new(path: &Path, kinds: &'static [Kind]) -> Self {
        Self {
            path: path.to_owned(),
            kinds,
            interner: Interner::default(),
            merged: Merged::default(),
            stamps: HashMap::new(),
            troubles: HashMap::new(),
        }
    }

    /// Reads what changed since the last call. `Err` when the directory itself
    /// cannot be listed; everything known stays in force then.
    fn scan(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        let listed = match list(&self.path) {
            Ok(listed) => listed,
            Err(error) => {
                let path = self.path.clone();
                let hint = "what was read from it stays in force; create it, or give another with --source";
                self.trouble(&path, Some(format!("{error}: {hint}")), &mut changes);
                return changes;
            }
        };
        self.trouble(&self.path.clone(), None, &mut changes);
        for gone in self
            .stamps
            .keys()
            .filter(|p| !listed.contains_key(*p))
            .cloned()
            .collect::<Vec<_>>()
        {
            self.stamps.remove(&gone);
            self.trouble(&gone, None, &mut changes);
            changes.extend(self.merged.remove(&gone));
        }
        let mut files: Vec<_> = listed.into_iter().collect();
        files.sort_by(|a, b| a.0.cmp(&b.0));
        for (path, stamp) in files {
            if self.stamps.get(&path) != Some(&stamp) {
                self.stamps.insert(path.clone(), stamp);
                self.read(&path, &mut changes);
            }
        }
        changes
    }

    fn read(&mut self, path: &Path, changes: &mut Vec<Change>) {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                // Without its stamp it is tried again at the next comparison.
                self.stamps.remove(path);
                return self.trouble(path, Some(error.to_string()), changes);
            }
        };
        let parsed = manifest::parse(&text, self.kinds, &self.interner);
        if parsed.bad.is_empty() {
            self.trouble(path, None, changes);
            changes.extend(self.merged.replace(path, parsed.objects));
            return;
        }
        let errors: Vec<String> = parsed.bad.iter().map(ToString::to_string).collect();
        let kept = match self.merged.contains(path) {
            true => "the last good content of the file stays in force",
            false => "the other documents of the file are served",
        };
        self.trouble(
            path,
            Some(format!("{}; {kept}", errors.join("; "))),
            changes,
        );
        if !self.merged.contains(path) && !parsed.objects.is_empty() {
            changes.extend(self.merged.replace(path, parsed.objects));
        }
    }

    fn trouble(&mut self, path: &Path, message: Option<String>, changes: &mut Vec<Change>) {
        let told = match &message {
            Some(text) => self.troubles.insert(path.to_owned(), text.clone()),
            None => self.troubles.remove(path),
        };
        if told != message {
            changes.push(Change::Trouble {
                place: path.display().to_string(),
                message,
            });
        }
    }

    /// Follows the directory until the receiver of its changes is gone.
    pub async fn follow(mut self, changes: mpsc::Sender<Change>) {
        let (wake, mut woken) = mpsc::channel(1);
        let mut watcher = watcher(&self.path, wake.clone());
        let mut synced = false;
        loop {
            let found;
            // Reading and parsing a whole cluster takes a while.
            (self, found) = match tokio::task::spawn_blocking(move || {
                let found = self.scan();
                (self, found)
            })
            .await
            {
                Ok(scanned) => scanned,
                // Only a panic of the parser gets here.
                Err(error) => return tracing::error!(%error, "reading the manifests failed"),
            };
            // A directory that cannot be listed says nothing about what is gone.
            let first = !synced && !self.troubles.contains_key(&self.path);
            let kinds = if first { self.kinds } else { &[] };
            let around = |make: fn(Kind) -> Change| kinds.iter().copied().map(make);
            for change in around(Change::Begin)
                .chain(found)
                .chain(around(Change::Done))
            {
                if changes.send(change).await.is_err() {
                    return;
                }
            }
            synced |= first;
            tokio::select! {
                _ = woken.recv() => settle(&mut woken).await,
                () = time::sleep(COMPARE) => {
                    // The directory may have been replaced by another one.
                    if self.troubles.contains_key(&self.path) || watcher.is_none() {
                        watcher = self::watcher(&self.path, wake.clone());
                    }
                }
                () = changes.closed() => return,
            }
        }
    }
}

/// Waits until nothing has happened for a while.
async fn settle(woken: &mut mpsc::Receiver<()>) {
    while let Ok(Some(())) = time::timeout(QUIET, woken.recv()).await {}
}

fn watcher(path: &Path, wake: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let on_event = move |event: notify::Result<notify::Event>| {
        let reading = matches!(&event, Ok(e) if matches!(e.kind, notify::EventKind::Access(
            notify::event::AccessKind::Open(_) | notify::event::AccessKind::Read
                | notify::event::AccessKind::Close(notify::event::AccessMode::Read))));
        if !reading {
            // A full channel means that a scan is due anyway.
            let _ = wake.try_send(());
        }
    };
    let watched = notify::recommended_watcher(on_event).and_then(|mut watcher| {
        watcher.watch(path, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    match watched {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::debug!(%error, dir = %path.display(), "changes are found by comparing every {COMPARE:?}");
            None
        }
    }
}

/// The manifests of a directory.
fn list(path: &Path) -> io::Result<HashMap<PathBuf, Stamp>> {
    use std::os::unix::fs::MetadataExt;
    let mut all = HashMap::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_none_or(|n| n.as_encoded_bytes().starts_with(b"."));
        let extension = path.extension().and_then(|e| e.to_str());
        if hidden || !matches!(extension, Some("yaml" | "yml" | "json")) {
            continue;
        }
        // A file that vanished meanwhile, or a dangling link, is not there.
        let Ok(meta) = fs::metadata(&path) else {
            continue;
        };
        if meta.is_file() {
            let stamp = Stamp {
                inode: meta.ino(),
                len: meta.len(),
                modified: meta.modified().ok(),
                changed: (meta.ctime(), meta.ctime_nsec()),
            };
            all.insert(path, stamp);
        }
    }
    Ok(all)
}
