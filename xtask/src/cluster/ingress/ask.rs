//! A client outside the cluster: curl, in the control plane's network namespace.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Entry;
use crate::cluster::process::{Place, command, output};

/// Seconds that a request may take.
const PATIENCE: &str = "5";

/// A host, and how it is asked.
#[derive(Clone, Debug)]
pub(super) struct Site<'a> {
    host: &'a str,
    /// The certificate that it has to show, of a host with TLS.
    certificate: Option<PathBuf>,
    headers: Vec<&'a str>,
}

/// What came back.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Answer {
    /// Its status.
    pub(super) status: u16,
    /// Where a redirect leads.
    pub(super) location: String,
    /// Its body.
    pub(super) body: String,
}

impl<'a> Site<'a> {
    /// Asked by HTTP.
    pub(super) fn plain(host: &'a str) -> Self {
        Self {
            host,
            certificate: None,
            headers: Vec::new(),
        }
    }

    /// Asked by HTTPS: it has to show this very certificate.
    pub(super) fn secure(host: &'a str, certificate: PathBuf) -> Self {
        Self {
            certificate: Some(certificate),
            ..Self::plain(host)
        }
    }

    /// With a header more.
    pub(super) fn header(mut self, header: &'a str) -> Self {
        self.headers.push(header);
        self
    }

    /// Dialled there.
    pub(super) fn at(self, entry: &'a Entry) -> Dial<'a> {
        Dial { site: self, entry }
    }
}

/// A host by one of the ways to it.
#[derive(Debug)]
pub(super) struct Dial<'a> {
    site: Site<'a>,
    entry: &'a Entry,
}

impl Dial<'_> {
    /// Asks for a path. Each is a connection of its own, and no redirect is followed.
    ///
    /// # Errors
    /// There is no answer, or another certificate than the one that it has to be.
    pub(super) fn get(&self, path: &str) -> Result<Answer> {
        let said = output(self.curl(path)?)?;
        understand(&said).with_context(|| format!("curl says {said:?}"))
    }

    fn curl(&self, path: &str) -> Result<Command> {
        let (host, Entry { addr, port }) = (self.site.host, self.entry);
        let scheme = match &self.site.certificate {
            Some(_) => "https",
            None => "http",
        };
        let mut curl = command(Place::Control, "curl")?;
        curl.args(["--silent", "--show-error", "--globoff", "--noproxy", "*"])
            .args(["--max-time", PATIENCE])
            .args(["--write-out", "\n%{http_code} %{redirect_url}"])
            .args(["--resolve", &format!("{host}:{port}:{addr}")]);
        for header in &self.site.headers {
            curl.args(["--header", header]);
        }
        if let Some(certificate) = &self.site.certificate {
            curl.arg("--cacert").arg(certificate);
        }
        curl.arg(format!("{scheme}://{host}:{port}{path}"));
        Ok(curl)
    }
}

/// The body, and in a last line the status and where it leads.
fn understand(said: &str) -> Option<Answer> {
    let (body, last) = said.rsplit_once('\n')?;
    let (status, location) = last.split_once(' ').unwrap_or((last, ""));
    Some(Answer {
        status: status.parse().ok()?,
        location: location.to_owned(),
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_status() {
        let answer = |status, location: &str, body: &str| {
            let (location, body) = (location.to_owned(), body.to_owned());
            Some(Answer {
                status,
                location,
                body,
            })
        };
        assert_eq!(understand("a\nb\n200"), answer(200, "", "a\nb"));
        assert_eq!(
            understand("\n308 https://h/"),
            answer(308, "https://h/", "")
        );
        assert_eq!(understand("200"), None);
    }
}
