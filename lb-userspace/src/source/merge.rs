//! Joins the objects of many files. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use crate::change::{Change, Object, ObjectKey, ObjectProblem};

/// The objects of every file. An object that several files hold counts as in the
/// last of them, by the files' names.
#[derive(Default, Debug)]
pub struct Merged {
    files: BTreeMap<PathBuf, HashMap<ObjectKey, Object>>,
    holders: HashMap<ObjectKey, BTreeSet<PathBuf>>,
}

impl Merged {
    /// Whether a file's content is in force.
    pub fn contains(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }

    /// The files whose content is in force.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.files.keys().cloned().collect()
    }

    /// Replaces the content of a file, and says what changes by that. A file
    /// that is gone has no objects.
    pub fn replace(&mut self, path: &Path, objects: Vec<Object>) -> Vec<Change> {
        let mut new: HashMap<ObjectKey, Object> = HashMap::with_capacity(objects.len());
        let mut twice = Vec::new();
        for object in objects {
            let key = object.key.clone();
            if new.insert(key.clone(), object).is_some() {
                twice.push(key);
            }
        }
        for key in twice {
            if let Some(object) = new.get_mut(&key) {
                let message = format!("{} has {key} twice; the last counts", path.display());
                object.problems.push(duplicate(message));
            }
        }
        let old = self.files.remove(path).unwrap_or_default();
        let mut affected: BTreeSet<ObjectKey> = old.keys().cloned().collect();
        for key in &affected {
            if let Some(holders) = self.holders.get_mut(key) {
                holders.remove(path);
            }
        }
        affected.retain(|key| old.get(key) != new.get(key));
        for (key, object) in &new {
            self.holders
                .entry(key.clone())
                .or_default()
                .insert(path.to_owned());
            if old.get(key) != Some(object) {
                affected.insert(key.clone());
            }
        }
        self.files.insert(path.to_owned(), new);
        affected
            .into_iter()
            .filter_map(|key| self.effective(key))
            .collect()
    }

    /// Forgets a file, and says what changes by that.
    pub fn remove(&mut self, path: &Path) -> Vec<Change> {
        let changes = self.replace(path, Vec::new());
        self.files.remove(path);
        changes
    }

    fn effective(&mut self, key: ObjectKey) -> Option<Change> {
        let holders = self.holders.get(&key)?;
        let Some(last) = holders.last() else {
            self.holders.remove(&key);
            return Some(Change::Delete(key));
        };
        let mut object = self.files.get(last)?.get(&key)?.clone();
        if holders.len() > 1 {
            let names: Vec<_> = holders.iter().map(|p| p.display().to_string()).collect();
            let message = format!("{key} is in {}; the last counts", names.join(" and in "));
            object.problems.push(duplicate(message));
        }
        Some(Change::Put(object))
    }
}

fn duplicate(message: String) -> ObjectProblem {
    ObjectProblem {
        reason: "DuplicateObject",
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        change::{Content, Kind},
        intern::Interner,
        watch::manifest,
    };

    fn service(name: &str, ip: &str) -> Vec<Object> {
        let text =
            format!("kind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIPs: [{ip}]}}\n");
        manifest::parse(&text, &Kind::AGENT, &Interner::default()).objects
    }

    fn ips(changes: &[Change]) -> Vec<String> {
        let text = |change: &Change| match change {
            Change::Put(object) => match &object.content {
                Content::Service(s) => {
                    format!("{} {:?} {}", s.key, s.cluster_ips, object.problems.len())
                }
                other => format!("{other:?}"),
            },
            Change::Delete(key) => format!("delete {key}"),
            other => format!("{other:?}"),
        };
        changes.iter().map(text).collect()
    }

    #[test]
    fn the_last_file_by_name_wins_and_gives_way_when_it_goes() {
        let mut merged = Merged::default();
        let (a, b) = (Path::new("a.yaml"), Path::new("b.yaml"));
        assert_eq!(
            ips(&merged.replace(b, service("x", "10.0.0.2"))),
            ["default/x [10.0.0.2] 0"]
        );
        assert_eq!(
            ips(&merged.replace(a, service("x", "10.0.0.1"))),
            ["default/x [10.0.0.2] 1"]
        );
        assert_eq!(ips(&merged.remove(b)), ["default/x [10.0.0.1] 0"]);
        assert_eq!(ips(&merged.remove(a)), ["delete Service default/x"]);
        assert!(merged.holders.is_empty() && merged.files.is_empty());
    }

    #[test]
    fn only_what_changed_is_told() {
        let mut merged = Merged::default();
        let a = Path::new("a.yaml");
        let two = || [service("x", "10.0.0.1"), service("y", "10.0.0.2")].concat();
        assert_eq!(merged.replace(a, two()).len(), 2);
        assert_eq!(ips(&merged.replace(a, two())), Vec::<String>::new());
        let other = [service("x", "10.0.0.1"), service("y", "10.0.0.3")].concat();
        assert_eq!(ips(&merged.replace(a, other)), ["default/y [10.0.0.3] 0"]);
        assert_eq!(
            ips(&merged.replace(a, service("y", "10.0.0.3"))),
            ["delete Service default/x"]
        );
    }

    #[test]
    fn an_object_twice_in_a_file_is_a_problem() {
        let mut merged = Merged::default();
        let both = [service("x", "10.0.0.1"), service("x", "10.0.0.2")].concat();
        assert_eq!(
            ips(&merged.replace(Path::new("a"), both)),
            ["default/x [10.0.0.2] 1"]
        );
    }
}
