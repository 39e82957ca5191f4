//! What is wrong with an object of the cluster, for an Event and a metric.

/// Something that a user should know of an Ingress, or of the ConfigMap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    /// `reason` of the Event: one of [`reason`].
    pub reason: &'static str,
    /// What it leads to.
    pub severity: Severity,
    /// One sentence: what is wrong, and the remedy.
    pub message: String,
}

/// What a trouble leads to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Severity {
    /// Nothing: requests are served as they were meant to be.
    Note,
    /// A setting is left out, and its default is in force.
    Warning,
    /// What is asked for is not done on purpose; an admission webhook says no.
    Refused,
    /// Every request is answered 503, for it would be served without protection otherwise.
    Denied,
}

/// Reasons.
pub mod reason {
    /// An annotation's value is none (the name is ingress-nginx's).
    pub const PARSING_FAILED: &str = "AnnotationParsingFailed";
    /// There is no such annotation.
    pub const UNSUPPORTED: &str = "UnsupportedAnnotation";
    /// An annotation has no effect here.
    pub const WITHOUT_EFFECT: &str = "AnnotationWithoutEffect";
    /// An annotation is refused.
    pub const REFUSED: &str = "RefusedAnnotation";
    /// Each proxy has a limit for itself that is meant for all of them.
    pub const COUNTED_ALONE: &str = "CountedByEachProxy";
    /// A value of the ConfigMap is none.
    pub const CONFIG_INVALID: &str = "ConfigMapValueInvalid";
    /// There is no such key of the ConfigMap.
    pub const CONFIG_UNSUPPORTED: &str = "UnsupportedConfigMapKey";
    /// A key of the ConfigMap has no effect here.
    pub const CONFIG_WITHOUT_EFFECT: &str = "ConfigMapKeyWithoutEffect";
    /// A key of the ConfigMap is refused.
    pub const CONFIG_REFUSED: &str = "RefusedConfigMapKey";
    /// A path is of an older Ingress already.
    pub const CONFLICTING_PATH: &str = "ConflictingPath";
    /// A path has a canary already.
    pub const CONFLICTING_CANARY: &str = "ConflictingCanary";
    /// A path cannot be served as it is written.
    pub const INVALID_PATH: &str = "InvalidPath";
    /// A Secret that is named is not there.
    pub const MISSING_SECRET: &str = "MissingSecret";
    /// A ConfigMap that is named is not there.
    pub const MISSING_CONFIG_MAP: &str = "MissingConfigMap";
}

/// What becomes of an annotation, or of a key of the ConfigMap.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mark {
    /// It does what it does in ingress-nginx.
    Served,
    /// It is accepted, and nothing has to be done for it.
    Accepted,
    /// What it asks for is not done.
    Refused,
}

/// A name that is known and much like another; `None` if there is none.
pub(crate) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let distances = known.map(|known| (strsim::damerau_levenshtein(name, known), known));
    let (distance, nearest) = distances.min()?;
    // With more than a third of it changed it is another name.
    (distance * 3 <= name.len()).then_some(nearest)
}

/// A value for a message: quoted, without line ends, not too long.
pub(crate) fn quoted(value: &str) -> String {
    const LONGEST: usize = 60;
    let mut cut: String = value.chars().take(LONGEST).collect();
    if cut.len() < value.len() {
        cut.push('…');
    }
    format!("{cut:?}")
}
