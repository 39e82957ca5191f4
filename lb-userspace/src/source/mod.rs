//! Manifests in a directory as a source of objects.
//!
//! [`dir`] reads and watches the files, [`merge`] joins what they hold.

pub mod dir;
pub mod merge;
