//! Which Ingresses are ours: by their class.

use std::collections::BTreeMap;

use crate::Mode;

/// The annotation that was there before `spec.ingressClassName`.
pub const ANNOTATION: &str = "kubernetes.io/ingress.class";
/// `spec.controller` of IngressClasses whose Ingresses are served as the specification says.
pub const OWN: &str = "bascule.dev/ingress";
/// `spec.controller` of IngressClasses of ingress-nginx.
pub const INGRESS_NGINX: &str = "k8s.io/ingress-nginx";

/// The IngressClasses, and which of them are ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Classes {
    /// `spec.controller` of the classes that are ours, and how their paths are compared.
    pub controllers: BTreeMap<String, Mode>,
    /// The class of the annotation that is ours; its paths are compared as nginx does.
    pub annotation: String,
    /// Whether Ingresses without a class are ours, as of the annotation's.
    pub without_class: bool,
    /// `spec.controller` of every IngressClass.
    pub known: BTreeMap<String, String>,
}

impl Default for Classes {
    /// Ours, and those of ingress-nginx with its defaults.
    fn default() -> Self {
        let controllers = [(OWN, Mode::Specification), (INGRESS_NGINX, Mode::Nginx)];
        let controllers = controllers.map(|(name, mode)| (name.to_owned(), mode));
        Self {
            controllers: controllers.into(),
            annotation: "nginx".to_owned(),
            without_class: false,
            known: BTreeMap::new(),
        }
    }
}

impl Classes {
    /// How the paths of an Ingress are compared, by its `spec.ingressClassName` and its
    /// annotation; `None` for one that is another controller's. The name counts before the
    /// annotation (ingress-nginx v1.15.1, internal/ingress/controller/store/store.go).
    pub fn mode(&self, name: Option<&str>, annotation: Option<&str>) -> Option<Mode> {
        match (name, annotation) {
            (Some(name), _) => self.controllers.get(self.known.get(name)?).copied(),
            (None, Some(class)) if !class.is_empty() => {
                (class == self.annotation).then_some(Mode::Nginx)
            }
            (None, _) => self.without_class.then_some(Mode::Nginx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_counts_before_the_annotation() {
        let known = [
            ("own", OWN),
            ("nginx", INGRESS_NGINX),
            ("other", "example.com/other"),
        ];
        let known = known.map(|(name, controller)| (name.to_owned(), controller.to_owned()));
        let mut classes = Classes {
            known: known.into(),
            ..Classes::default()
        };
        for (name, annotation, expected) in [
            (Some("own"), None, Some(Mode::Specification)),
            (Some("nginx"), None, Some(Mode::Nginx)),
            (Some("own"), Some("nginx"), Some(Mode::Specification)),
            (Some("other"), Some("nginx"), None),
            (Some("gone"), Some("nginx"), None),
            (None, Some("nginx"), Some(Mode::Nginx)),
            (None, Some("other"), None),
            (None, Some(""), None),
            (None, None, None),
        ] {
            assert_eq!(
                classes.mode(name, annotation),
                expected,
                "{name:?} {annotation:?}"
            );
        }
        classes.without_class = true;
        assert_eq!(classes.mode(None, None), Some(Mode::Nginx));
        assert_eq!(classes.mode(None, Some("")), Some(Mode::Nginx));
        assert_eq!(classes.mode(Some("other"), None), None);
        assert_eq!(classes.mode(None, Some("other")), None);
    }
}
