//! What an image says of where it comes from: version, commit, time.

use anyhow::{Context as _, Result};

use crate::paths;
use crate::sh::Sh;

/// Time that an archive's files bear, in seconds since 1970
/// (<https://reproducible-builds.org/specs/source-date-epoch/>).
pub(super) const EPOCH: &str = "SOURCE_DATE_EPOCH";
/// The commit, where the source is not in a git repository.
pub(super) const COMMIT: &str = "BASCULE_COMMIT";
/// Hexadecimal digits of a commit.
const DIGITS: usize = 12;

/// The origin of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The workspace's version.
    pub(crate) version: String,
    /// The commit; `-dirty` at its end says that files differ from it.
    pub(crate) commit: String,
    /// Seconds since 1970: the commit's time, or what the environment says.
    pub(super) epoch: u64,
}

impl Stamp {
    /// Asks the environment and git.
    ///
    /// # Errors
    /// Neither knows.
    pub(crate) fn read() -> Result<Self> {
        let commit = match std::env::var(COMMIT) {
            Ok(commit) => commit,
            Err(_) => commit().context(
                "the commit is not known: build in a git checkout, or set BASCULE_COMMIT",
            )?,
        };
        let epoch = match std::env::var(EPOCH) {
            Ok(text) => text,
            Err(_) => git(&["log", "-1", "--format=%ct"]).context(
                "the commit's time is not known: build in a git checkout, or set SOURCE_DATE_EPOCH",
            )?,
        };
        let epoch = epoch
            .parse()
            .with_context(|| format!("SOURCE_DATE_EPOCH={epoch}: not seconds since 1970"))?;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit,
            epoch,
        })
    }

    /// The time as RFC 3339 has it.
    pub(super) fn created(&self) -> Result<String> {
        let second = i64::try_from(self.epoch).context("SOURCE_DATE_EPOCH is too large")?;
        let time = jiff::Timestamp::from_second(second).context("SOURCE_DATE_EPOCH")?;
        Ok(time.to_string())
    }
}

fn commit() -> Result<String> {
    let head = git(&["rev-parse", &format!("--short={DIGITS}"), "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Ok(if changed.is_empty() {
        head
    } else {
        format!("{head}-dirty")
    })
}

fn git(args: &[&str]) -> Result<String> {
    Sh::new("git").args(args).dir(&paths::root()).read()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_in_utc() {
        let stamp = Stamp {
            version: "1".to_owned(),
            commit: "abc".to_owned(),
            epoch: 1_767_225_600,
        };
        assert_eq!(stamp.created().unwrap(), "2026-01-01T00:00:00Z");
    }
}
