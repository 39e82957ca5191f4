//! What goes wrong with a watch, and what is said about it.

use kube::runtime::watcher;

/// What the server answered, if it did.
pub(super) fn status(error: &watcher::Error) -> Option<&kube::core::Status> {
    match error {
        watcher::Error::WatchError(status) => Some(status),
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => Some(status),
        _ => None,
    }
}

/// The server has forgotten where the watch stopped: listing again is the cure,
/// and no trouble.
pub(super) fn is_gone(error: &watcher::Error) -> bool {
    status(error).is_some_and(|s| s.code == 410)
}

/// The server refuses `sendInitialEvents`: 400 or 422, by its version.
pub(super) fn refuses_streaming(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(_))
        && status(error).is_some_and(|s| matches!(s.code, 400 | 422))
}

/// What is said of a server that does not answer.
pub(super) fn unreachable(url: &str, error: &dyn std::error::Error) -> String {
    let error = describe(error);
    format!(
        "{url}: {error}: check that the API server runs, and its URL in the kubeconfig or --apiserver"
    )
}

/// An error with its causes on one line, each said once.
pub(super) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
