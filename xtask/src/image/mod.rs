//! `cargo xtask image`: a container image of one static binary and its manual, made without a container
//! engine, and the same bit for bit wherever the same commit is built by the same tools.

mod binary;
mod oci;
pub(crate) mod stamp;
mod target;
mod twice;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::{paths, setup, ui};
use oci::{Description, File};
use stamp::Stamp;
pub(crate) use target::Arch;

/// Largest archive, in bytes: a node pulls it before it has a service.
const LARGEST: u64 = 25 << 20;
/// Name of the image without its tag. `localhost` is what container engines call images that
/// were built and not pulled; whoever publishes one names it after their registry.
pub(crate) const NAME: &str = "localhost/bascule";

/// What to make.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask image                  # target/image/bascule-amd64.tar\n  cargo xtask image \
                  --arch arm64\n  cargo xtask image --check          # builds it twice, in two places, and compares\n  ctr -n \
                  k8s.io images import target/image/bascule-amd64.tar   # on a node\n\nBeside the archive lies its list of \
                  components (CycloneDX); the binary carries the same list.\nSOURCE_DATE_EPOCH sets the times in it, which \
                  are the commit's otherwise."
)]
pub(crate) struct Args {
    /// Whose machine code
    #[arg(long, value_enum, default_value_t = Arch::Amd64)]
    arch: Arch,
    /// The archive (OCI image layout in a tar) [default: target/image/bascule-ARCH.tar]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Name of the image [default: localhost/bascule:VERSION]
    #[arg(long, value_name = "NAME:TAG")]
    name: Option<String>,
    /// Build it again from a copy of the source in another place, and fail if it is not the same
    #[arg(long)]
    check: bool,
}

/// The subcommand.
///
/// # Errors
/// A tool or toolchain is missing, something does not compile, the archive is too large, or
/// with `--check` the second one differs.
pub(crate) fn run(args: &Args) -> Result<()> {
    let nightly = setup::ensure(setup::Need::Build)?;
    let stamp = Stamp::read()?;
    let output = match &args.output {
        Some(path) => path.clone(),
        None => directory().join(format!("bascule-{}.tar", args.arch)),
    };
    let name = args.name.clone().unwrap_or_else(|| default_name(&stamp));
    let built = binary::build(&nightly, args.arch, &stamp)?;
    let archive = assemble(&built, args.arch, &stamp, &name)?;
    write(&output, &archive.bytes)?;
    write(&output.with_extension("cdx.json"), &built.components)?;
    println!("{}", summary(&output, &archive, &name));
    if args.check {
        twice::check(args.arch, &stamp, &name, &archive)?;
    }
    Ok(())
}

/// Where images are put: `target/image`.
fn directory() -> PathBuf {
    paths::root().join("target/image")
}

fn default_name(stamp: &Stamp) -> String {
    format!("{NAME}:{}", stamp.version)
}

fn assemble(built: &binary::Built, arch: Arch, stamp: &Stamp, name: &str) -> Result<oci::Archive> {
    let text = |file: &str| {
        let path = paths::root().join(file);
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let doc = "usr/share/doc/bascule";
    let file = |path: String, bytes: Vec<u8>| File {
        path,
        mode: 0o644,
        bytes,
    };
    let mut files = vec![
        File {
            path: oci::PROGRAM.trim_start_matches('/').to_owned(),
            mode: 0o755,
            bytes: built.program.clone(),
        },
        file(format!("{doc}/LICENSE"), text("LICENSE")?),
        file(format!("{doc}/LICENSE-MIT"), text("LICENSE-MIT")?),
        file(format!("{doc}/LICENSE-GPL-2.0"), text("LICENSE-GPL-2.0")?),
        file(format!("{doc}/bascule.cdx.json"), built.components.clone()),
    ];
    let manual = built.manual.iter();
    files.extend(manual.map(|(name, bytes)| file(format!("usr/share/{name}"), bytes.clone())));
    let archive = oci::archive(files, &Description { arch, stamp, name })?;
    let size = archive.bytes.len() as u64;
    if size > LARGEST {
        bail!("the image has {size} bytes, {LARGEST} are allowed: see what the binary grew by");
    }
    Ok(archive)
}

fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(failed)?;
    }
    // Whoever reads the earlier one meanwhile keeps it.
    let partial = path.with_extension(format!("partial.{}", std::process::id()));
    let mut file = fs::File::create(&partial).with_context(failed)?;
    file.write_all(bytes.as_ref()).with_context(failed)?;
    fs::rename(&partial, path).with_context(failed)
}

fn summary(path: &Path, archive: &oci::Archive, name: &str) -> String {
    ui::say(format!(
        "{name}: {:.1} MB, layer {:.1} MB unpacked",
        archive.bytes.len() as f64 / 1e6,
        archive.unpacked as f64 / 1e6
    ));
    format!("{} {}", archive.digest, path.display())
}
