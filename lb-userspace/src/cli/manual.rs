//! `bascule manual`: what packages put into /usr/share.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::{Generator as _, Shell};

use super::args::Cli;

/// Where each shell looks for completions below /usr/share.
const SHELLS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions"),
    (Shell::Fish, "fish/vendor_completions.d"),
    (Shell::Zsh, "zsh/site-functions"),
];

/// Writes a manual page of each command, and the completions.
///
/// # Errors
/// A file cannot be written.
pub fn run(share: &Path) -> anyhow::Result<()> {
    let pages = share.join("man/man1");
    let made = directory(&pages).and_then(|dir| clap_mangen::generate_to(Cli::command(), dir));
    made.with_context(|| remedy(&pages))?;
    for (shell, place) in SHELLS {
        let dir = share.join(place);
        // Bash loads a file that has the command's own name.
        let name = match shell {
            Shell::Bash => "bascule".to_owned(),
            _ => shell.file_name("bascule"),
        };
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "bascule", &mut text);
        let made = directory(&dir).and_then(|dir| fs::write(dir.join(name), text));
        made.with_context(|| remedy(&dir))?;
    }
    Ok(())
}

fn directory(dir: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(dir)?;
    Ok(dir.to_owned())
}

fn remedy(dir: &Path) -> String {
    format!("{}: give a directory that can be written", dir.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_with_its_examples() {
        let dir = tempfile::TempDir::new().unwrap();
        run(dir.path()).unwrap();
        for (file, words) in [
            ("man/man1/bascule.1", "bascule\\-sysdump(1)"),
            (
                "man/man1/bascule-status.1",
                "Exit status: 0 well; 3 degraded",
            ),
            (
                "man/man1/bascule-service-list.1",
                "bascule service list \\-\\-scope external",
            ),
            ("man/man1/bascule-conntrack-flush.1", "\\-\\-yes"),
            (
                "bash-completion/completions/bascule",
                "complete -F _bascule",
            ),
            (
                "fish/vendor_completions.d/bascule.fish",
                "complete -c bascule",
            ),
            ("zsh/site-functions/_bascule", "#compdef bascule"),
        ] {
            let text = fs::read_to_string(dir.path().join(file)).unwrap();
            assert!(text.contains(words), "{file} has no {words}: {text}");
        }
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = format!("{:#}", run(file.path()).unwrap_err());
        assert!(error.contains(file.path().to_str().unwrap()), "{error}");
    }
}
