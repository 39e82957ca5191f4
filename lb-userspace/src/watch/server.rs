//! Whether the API server answers: found out by one, for all watches.

use std::time::{Duration, Instant};

use kube::Client;
use tokio::{
    sync::{Mutex, mpsc},
    time,
};

use super::trouble::unreachable;
use crate::{backoff::Backoff, change::Change};

/// The first pause of a server that does not answer.
const FIRST: Duration = Duration::from_millis(250);
/// The longest one, and so the longest that a server is back before it is asked:
/// what has changed meanwhile must not wait for long. client-go waits up to 30 s
/// (1.36, tools/cache/reflector.go), for each watch by itself; this asks once for
/// all watches, and for `/version`, which costs the server next to nothing.
const LONGEST: Duration = Duration::from_secs(5);
/// The first release whose API server streams lists by default (KEP-3157).
const STREAMING_MINOR: u32 = 34;
/// What trouble with it is told of.
const PLACE: &str = "API server";

/// The API server of all watches.
pub(super) struct Server {
    client: Client,
    url: String,
    changes: mpsc::Sender<Change>,
    known: Mutex<Known>,
}

struct Known {
    backoff: Backoff,
    /// When it last answered, and whether it streams lists.
    answer: Option<(Instant, bool)>,
}

impl Server {
    pub(super) fn new(client: Client, url: String, changes: mpsc::Sender<Change>) -> Self {
        let known = Mutex::new(Known {
            backoff: Backoff::new(FIRST, LONGEST),
            answer: None,
        });
        Self {
            client,
            url,
            changes,
            known,
        }
    }

    /// Its URL, for messages.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Waits until it answers. Says whether it streams lists; `None` when the agent
    /// ends.
    pub(super) async fn answers(&self) -> Option<bool> {
        let asked = Instant::now();
        let mut known = self.known.lock().await;
        // Somebody else has waited for it meanwhile.
        if let Some((at, streams)) = known.answer
            && at >= asked
        {
            return Some(streams);
        }
        let mut troubled = false;
        loop {
            if self.changes.is_closed() {
                return None;
            }
            let streams = match self.client.apiserver_version().await {
                Ok(version) => version.major == "1" && minor(&version.minor) >= STREAMING_MINOR,
                // It answers: whether it lets us list is for the watches to see.
                Err(kube::Error::Api(_)) => false,
                Err(error) => {
                    troubled = true;
                    self.tell(Some(unreachable(&self.url, &error))).await;
                    time::sleep(known.backoff.pause()).await;
                    continue;
                }
            };
            if troubled {
                self.tell(None).await;
            }
            known.backoff.reset();
            known.answer = Some((Instant::now(), streams));
            return Some(streams);
        }
    }

    async fn tell(&self, message: Option<String>) {
        let place = PLACE.to_owned();
        // A closed channel means that the agent ends, which is noticed above.
        let _ = self.changes.send(Change::Trouble { place, message }).await;
    }
}

/// A minor version: distributors append to it, as in `36+`.
fn minor(text: &str) -> u32 {
    let end = text.find(|c: char| !c.is_ascii_digit());
    text[..end.unwrap_or(text.len())].parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::minor;

    #[test]
    fn what_distributors_append_to_a_version_does_not_matter() {
        assert_eq!([minor("36"), minor("33+"), minor("")], [36, 33, 0]);
    }
}
