//! Manifests: YAML (or JSON, which is YAML) with any number of documents.

use serde::{Deserialize, de::DeserializeOwned};

use super::{convert, ingress};
use crate::{
    change::{Kind, Object},
    intern::Interner,
};

/// A document that could not be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bad {
    /// Number of the document in its file, from 1.
    pub document: usize,
    /// Line, field, and what is wrong.
    pub message: String,
}

impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "document {}: {}", self.document, self.message)
    }
}

/// What a file holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Parsed {
    /// The objects of the kinds that we read; others are skipped.
    pub objects: Vec<Object>,
    /// The documents that could not be read.
    pub bad: Vec<Bad>,
}

/// The start of every object.
#[derive(Deserialize)]
struct Head {
    kind: Option<String>,
}

/// A `List`, as `kubectl get -o yaml` writes it.
#[derive(Deserialize)]
struct List {
    #[serde(default)]
    items: Vec<serde_json::Value>,
}

/// Reads the objects of some kinds of a file.
pub fn parse(text: &str, kinds: &[Kind], interner: &Interner) -> Parsed {
    let reader = Reader { kinds, interner };
    let mut parsed = Parsed::default();
    let mut line = 0;
    for (index, document) in documents(text).enumerate() {
        match reader.document(document, line) {
            Ok(objects) => parsed.objects.extend(objects),
            Err(message) => parsed.bad.push(Bad {
                document: index + 1,
                message,
            }),
        }
        line += document.lines().count();
    }
    parsed
}

/// Splits at the lines that separate documents. They stay at the start of the
/// document which they open.
pub(crate) fn documents(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = rest.len();
        for (at, _) in rest.match_indices("\n---") {
            let after = rest[at + 4..].chars().next();
            if after.is_none_or(|c| c.is_whitespace()) {
                end = at + 1;
                break;
            }
        }
        let (document, tail) = rest.split_at(end);
        rest = tail;
        Some(document)
    })
}

/// Reads objects of some kinds.
struct Reader<'a> {
    kinds: &'a [Kind],
    interner: &'a Interner,
}

impl Reader<'_> {
    fn document(&self, text: &str, line: usize) -> Result<Vec<Object>, String> {
        let meaningful = |l: &str| {
            let l = l.trim();
            !l.is_empty() && !l.starts_with('#') && l != "---" && l != "..."
        };
        if !text.lines().any(meaningful) {
            return Ok(Vec::new());
        }
        let kind = match kind_line(text) {
            Some(kind) => Some(kind.to_owned()),
            None => read::<Head>(text, line)?.kind,
        };
        match kind.as_deref() {
            Some(kind) if kind.ends_with("List") => {
                let list: List = read(text, line)?;
                let items = list.items.into_iter().enumerate();
                items
                    .filter_map(|(i, item)| self.item_of_list(i, item).transpose())
                    .collect()
            }
            Some(kind) => match self.kind(kind) {
                Some(kind) => self
                    .convert(kind, &Document { text, line })
                    .map(|o| vec![o]),
                None => Ok(Vec::new()),
            },
            None => {
                let kinds: Vec<_> = self.kinds.iter().map(|kind| kind.name()).collect();
                Err(format!(
                    "line {}: field kind is missing: it must be {} or List",
                    line + 1,
                    kinds.join(", ")
                ))
            }
        }
    }

    fn item_of_list(
        &self,
        index: usize,
        item: serde_json::Value,
    ) -> Result<Option<Object>, String> {
        let kind = item.get("kind").and_then(|k| k.as_str());
        match kind.and_then(|kind| self.kind(kind)) {
            Some(kind) => self.convert(kind, &Item { index, item }).map(Some),
            None => Ok(None),
        }
    }

    /// A kind that is read, by its name.
    fn kind(&self, name: &str) -> Option<Kind> {
        self.kinds.iter().copied().find(|kind| kind.name() == name)
    }

    fn convert(&self, kind: Kind, source: &impl Typed) -> Result<Object, String> {
        let interner = self.interner;
        named(match kind {
            Kind::Service => convert::service(&source.typed()?, interner),
            Kind::EndpointSlice => convert::slice(&source.typed()?, interner),
            Kind::Node => convert::node(&source.typed()?, interner),
            Kind::Ingress => ingress::ingress(&source.typed()?, interner),
            Kind::IngressClass => ingress::class(&source.typed()?, interner),
            Kind::Secret => ingress::secret(&source.typed()?, interner),
            Kind::ConfigMap => ingress::config_map(&source.typed()?, interner),
        })
    }
}

/// What an object of the API is decoded from.
trait Typed {
    fn typed<T: DeserializeOwned>(&self) -> Result<T, String>;
}

struct Document<'a> {
    text: &'a str,
    line: usize,
}

impl Typed for Document<'_> {
    fn typed<T: DeserializeOwned>(&self) -> Result<T, String> {
        read(self.text, self.line)
    }
}

/// An object of a List.
struct Item {
    index: usize,
    item: serde_json::Value,
}

impl Typed for Item {
    fn typed<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_path_to_error::deserialize(&self.item)
            .map_err(|e| format!("items[{}]: {}{}", self.index, field_of(e.path()), e.inner()))
    }
}

/// The kind, where it stands on a line of its own as it nearly always does: a
/// document need not be decoded twice then.
fn kind_line(text: &str) -> Option<&str> {
    let kind = text
        .lines()
        .find_map(|line| line.strip_prefix("kind: "))?
        .trim();
    kind.chars()
        .all(|c| c.is_ascii_alphanumeric())
        .then_some(kind)
}

fn named(object: Object) -> Result<Object, String> {
    if object.key.name.is_empty() {
        return Err(format!(
            "field metadata.name of this {} is missing",
            object.key.kind
        ));
    }
    Ok(object)
}

/// Decodes a document that starts after `line` lines of its file.
fn read<T: DeserializeOwned>(text: &str, line: usize) -> Result<T, String> {
    let options = serde_saphyr::options! {
        // A file that the operator wrote may be as large as a whole cluster: the
        // limits against hostile input stay only where they bound recursion.
        budget: serde_saphyr::budget! {
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
        },
        with_snippet: false,
    };
    if let Ok(decoded) = serde_saphyr::from_str_with_options(text, options.clone()) {
        return Ok(decoded);
    }
    // Once more, to know the field: keeping track of it costs time.
    let mut field = String::new();
    let decoded = serde_saphyr::with_deserializer_from_str_with_options(text, options, |yaml| {
        serde_path_to_error::deserialize(yaml).map_err(|e| {
            field = field_of(e.path());
            e.into_inner()
        })
    });
    decoded.map_err(|e| {
        let mut message = e.without_snippet().to_string();
        let mut place = String::new();
        if let Some(at) = e.location() {
            // The decoder counts lines from the start of the document.
            let own = format!(" at line {}, column {}", at.line(), at.column());
            message.truncate(message.strip_suffix(&own).unwrap_or(&message).len());
            let line = line as u64 + at.line();
            place = format!("line {line}, column {}: ", at.column());
        }
        format!("{place}{field}{message}")
    })
}

fn field_of(path: &serde_path_to_error::Path) -> String {
    match path.to_string() {
        // The document itself.
        path if path == "." => String::new(),
        path => format!("field {path}: "),
    }
}
