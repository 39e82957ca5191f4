//! Reviews of `admission.k8s.io/v1`: what is asked, and what is said to it. Pure.
//!
//! An Ingress is only read. What it names is not asked for: no Secret, no backend, no resolver.

use lb_route::Check;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    change::{ClassedIngress, Content, Object, ObjectProblem},
    watch::ingress,
};

/// A review that is none of an Ingress.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The body is no review.
    #[error("the body is no AdmissionReview of admission.k8s.io/v1 with a request: {0}")]
    Review(String),
    /// It is of something else.
    #[error("{0} is not reviewed: let the webhook's rules name ingresses of networking.k8s.io/v1")]
    Kind(String),
    /// The object cannot be read as an Ingress.
    #[error("the object is no Ingress: {0}")]
    Object(#[source] serde_json::Error),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    kind: String,
    request: Request,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    kind: Kind,
    #[serde(default)]
    sub_resource: String,
    #[serde(default)]
    namespace: String,
    operation: String,
    #[serde(default)]
    object: Value,
    #[serde(default)]
    old_object: Value,
}

#[derive(Deserialize)]
struct Kind {
    group: String,
    version: String,
    kind: String,
}

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    uid: String,
    /// The Ingress, with what could not be read of it; `None` where there is nothing to say: it
    /// goes, or nothing of it changes that is served.
    pub ingress: Option<(ClassedIngress, Vec<ObjectProblem>)>,
}

/// What is said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// Why it is not allowed; it is if there is nothing.
    pub refusals: Vec<String>,
    /// What its writer should know.
    pub warnings: Vec<String>,
}

impl Asked {
    /// Reads a review.
    ///
    /// # Errors
    /// It is none, or none of an Ingress.
    pub fn read(body: &[u8]) -> Result<Self, Error> {
        let review: Review =
            serde_json::from_slice(body).map_err(|error| Error::Review(error.to_string()))?;
        if (&*review.api_version, &*review.kind) != ("admission.k8s.io/v1", "AdmissionReview") {
            let is = format!("it is {} of {}", review.kind, review.api_version);
            return Err(Error::Review(is));
        }
        let Request {
            uid,
            kind,
            sub_resource,
            namespace,
            operation,
            object,
            old_object,
        } = review.request;
        if (&*kind.group, &*kind.version, &*kind.kind) != ("networking.k8s.io", "v1", "Ingress") {
            let Kind {
                group,
                version,
                kind,
            } = kind;
            return Err(Error::Kind(format!("{kind} of {group}/{version}")));
        }
        // What is about to go must be let go: its finalizers are removed by updates.
        let goes = object.pointer("/metadata/deletionTimestamp").is_some();
        let is_new = operation == "CREATE";
        if goes || !sub_resource.is_empty() || !(is_new || operation == "UPDATE") {
            return Ok(Self { uid, ingress: None });
        }
        let (mut ingress, problems) = read(object, &namespace)?;
        if is_new {
            // It is the youngest, whatever it says.
            std::sync::Arc::make_mut(&mut ingress.ingress).created = i64::MAX;
        } else if read(old_object, &namespace).is_ok_and(|(old, _)| old.is_same(&ingress)) {
            return Ok(Self { uid, ingress: None });
        }
        let ingress = Some((ingress, problems));
        Ok(Self { uid, ingress })
    }

    /// The review with what is said.
    pub fn answer(&self, verdict: &Verdict) -> String {
        let mut response = json!({"uid": self.uid, "allowed": verdict.refusals.is_empty()});
        if !verdict.refusals.is_empty() {
            // The status is ingress-nginx's (v1.15.1, internal/admission/controller/main.go).
            response["status"] = json!({
                "status": "Failure",
                "code": 400,
                "reason": "BadRequest",
                "message": verdict.refusals.join("; "),
            });
        }
        if !verdict.warnings.is_empty() {
            response["warnings"] = json!(verdict.warnings);
        }
        let review = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "response": response,
        });
        review.to_string()
    }
}

fn read(mut object: Value, namespace: &str) -> Result<(ClassedIngress, Vec<ObjectProblem>), Error> {
    if let Some(own) = object.pointer_mut("/metadata") {
        own["namespace"] = json!(namespace);
    }
    let Object {
        content, problems, ..
    } = ingress::from_json(object).map_err(Error::Object)?;
    match content {
        Content::Ingress(ingress) => Ok((*ingress, problems)),
        // An Ingress is always converted to one.
        _ => Err(Error::Review("its object is no Ingress".to_owned())),
    }
}

/// What is said of an Ingress that is ours, by what could not be read of it, and by what it would
/// be told; of another controller's (`None`) nothing.
pub fn verdict(problems: &[ObjectProblem], check: Option<&Check>) -> Verdict {
    let mut verdict = Verdict::default();
    let Some(check) = check else {
        return verdict;
    };
    for problem in problems {
        // What has no path is not served at all; the rest of it would be.
        match problem.reason {
            "InvalidPath" | "UnknownPathType" => verdict.refusals.push(problem.message.clone()),
            _ => verdict.warnings.push(problem.message.clone()),
        }
    }
    for trouble in &check.own {
        match trouble.is_refusal() {
            true => verdict.refusals.push(trouble.message.clone()),
            false => verdict.warnings.push(trouble.message.clone()),
        }
    }
    let others = check.others.iter();
    verdict
        .warnings
        .extend(others.map(|(name, trouble)| format!("Ingress {name}: {}", trouble.message)));
    verdict
}
