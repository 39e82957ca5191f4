//! `bascule sysdump`: everything that a report of a bug needs, in one archive.

mod kernel;
mod members;
mod scrape;

use std::{
    fs,
    io::{self, IsTerminal as _, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use clap::Args;
use flate2::{Compression, write::GzEncoder};
use tar::{Builder, Header};

use super::{args::Paths, secrets};
use crate::health;
use members::{MEMBERS, Node};

/// `bascule sysdump`.
#[derive(Args, Clone, Debug)]
pub struct SysdumpArgs {
    /// The archive, which must not be there yet; - writes it to standard output [default: bascule-NODE-TIME.tar.gz]
    pub file: Option<PathBuf>,
    /// The paths.
    #[command(flatten)]
    pub paths: Paths,
}

/// Directory of everything in the archive.
const ROOT: &str = "bascule-sysdump";
/// What could not be had, a line each.
const ERRORS: &str = "errors.txt";

/// Writes the archive. What cannot be had is named in it.
///
/// # Errors
/// The archive cannot be written.
pub fn run(args: &SysdumpArgs) -> anyhow::Result<()> {
    let node = Node(&args.paths);
    let now = SystemTime::now();
    let path = match &args.file {
        Some(path) => path.clone(),
        None => default_name(&node.name().unwrap_or_default(), now).into(),
    };
    if path == Path::new("-") {
        anyhow::ensure!(
            !io::stdout().is_terminal(),
            "the archive is not for terminals: name a file, or lead standard output to one"
        );
        write(io::stdout().lock(), &node, now)?;
        return Ok(());
    }
    let failed = || {
        format!(
            "{}: name a file that can be made, and is not there yet",
            path.display()
        )
    };
    // It tells who talks to whom.
    let mut options = fs::File::options();
    let file = options.write(true).create_new(true).mode(0o600).open(&path);
    let written = write(io::BufWriter::new(file.with_context(failed)?), &node, now);
    if written.is_err() {
        // Half an archive helps nobody.
        let _ = fs::remove_file(&path);
    }
    written?;
    println!("{}", path.display());
    Ok(())
}

/// `bascule-n1-20270115T080000Z.tar.gz`
fn default_name(node: &str, now: SystemTime) -> String {
    let whole = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = SystemTime::UNIX_EPOCH + Duration::from_secs(whole.as_secs());
    let time = health::time(seconds).replace(['-', ':'], "");
    match node {
        "" => format!("bascule-{time}.tar.gz"),
        node => format!("bascule-{node}-{time}.tar.gz"),
    }
}

fn write(out: impl Write, node: &Node<'_>, now: SystemTime) -> anyhow::Result<()> {
    let mut archive = Builder::new(GzEncoder::new(out, Compression::default()));
    let mut errors = String::new();
    for (name, make) in MEMBERS {
        eprintln!("bascule: {name}");
        match make(node) {
            Ok(bytes) => append(&mut archive, name, &bytes, now)?,
            Err(error) => {
                eprintln!("bascule: {name} is left out: {error:#}");
                errors.push_str(&format!("{name}: {error:#}\n"));
            }
        }
    }
    append(&mut archive, ERRORS, errors.as_bytes(), now)?;
    archive.into_inner()?.finish()?.flush()?;
    Ok(())
}

fn append(
    archive: &mut Builder<impl Write>,
    name: &str,
    bytes: &[u8],
    now: SystemTime,
) -> io::Result<()> {
    let text = secrets::without(&String::from_utf8_lossy(bytes));
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let mut header = Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o600);
    header.set_mtime(since.as_secs());
    archive.append_data(&mut header, format!("{ROOT}/{name}"), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_has_the_node_and_the_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_999);
        let names = ["n1", ""].map(|node| default_name(node, now));
        let expected = [
            "bascule-n1-20270115T080000Z.tar.gz",
            "bascule-20270115T080000Z.tar.gz",
        ];
        assert_eq!(names, expected);
    }
}
