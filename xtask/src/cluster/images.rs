//! Container images, made from what this machine has: a registry is not asked.
//!
//! Each is an OCI image layout in a tar archive
//! (<https://github.com/opencontainers/image-spec/blob/main/image-layout.md>) of one layer.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::topology::{AGNHOST, COREDNS, PAUSE, REGRESSION, source};
use super::{rootfs, tools};
use crate::cache::{Entry, remake};
use crate::debian::list;
use crate::sh::Sh;
use crate::ui;

/// An image to make.
struct Image<'a> {
    /// Name of its archive.
    file: &'a str,
    /// Its reference.
    name: &'a str,
    entrypoint: &'a str,
    cmd: &'a [&'a str],
    user: &'a str,
}

/// Their entry in the cache.
fn entry() -> Entry {
    let files = rootfs::OWN.map(|name| source().join("rootfs").join(name));
    let mut inputs: Vec<Vec<u8>> = files
        .iter()
        .map(|file| fs::read(file).unwrap_or_default())
        .collect();
    let programs = [tools::programs(), tools::COREDNS.entry()];
    inputs.extend(programs.map(|p| p.name().as_bytes().to_vec()));
    let names = [PAUSE, COREDNS, REGRESSION, AGNHOST];
    inputs.extend(
        [&names[..], &rootfs::PACKAGES]
            .concat()
            .iter()
            .map(|n| n.as_bytes().to_vec()),
    );
    Entry::new("images", inputs)
}

/// Makes the images unless they are there.
///
/// # Errors
/// A package cannot be had, or a program does not compile.
pub(super) fn ensure() -> Result<()> {
    entry().ensure(make).map(drop)
}

fn make(whole: &Path, scratch: &Path) -> Result<()> {
    let image = |file, name, entrypoint| Image {
        file,
        name,
        entrypoint,
        cmd: &[],
        user: "",
    };
    let work = scratch.join("image");
    let pause = Image {
        user: "65535:65535",
        ..image("pause.tar", PAUSE, "/pause")
    };
    build(&pause, (whole, &work), rootfs::pause)?;
    build(
        &image("coredns.tar", COREDNS, "/coredns"),
        (whole, &work),
        |root| copy(&tools::COREDNS.path("coredns"), &root.join("coredns")),
    )?;
    let regression = image("regression.tar", REGRESSION, "/regression-issue-74839");
    build(&regression, (whole, &work), |root| {
        let program = "regression-issue-74839";
        copy(&tools::program(program), &root.join(program))
    })?;
    let agnhost = Image {
        cmd: &["pause"],
        ..image("agnhost.tar", AGNHOST, "/agnhost")
    };
    build(&agnhost, (whole, &work), |root| {
        rootfs::agnhost(root, scratch)
    })
}

/// The archives of all images.
///
/// # Errors
/// The directory cannot be read.
pub(super) fn archives() -> Result<Vec<PathBuf>> {
    list(&entry().dir())
}

/// Copies a file with its mode.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(|_| ())
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// Makes one image in the first directory, by way of the second; `fill` makes its files in an
/// empty one.
fn build(
    image: &Image<'_>,
    (whole, work): (&Path, &Path),
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    ui::say(format!("making the image {}", image.name));
    let (root, layout) = (work.join("root"), work.join("layout"));
    remake(work)?;
    remake(&root)?;
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).with_context(|| format!("cannot make {}", blobs.display()))?;
    fill(&root)?;
    let layer = work.join("layer");
    tar(&root, &layer)?;
    let layer = file_blob(&blobs, &layer)?;
    let config = text_blob(&blobs, &config(image, &layer))?;
    let manifest = text_blob(&blobs, &manifest(&config, &layer))?;
    write(
        &layout.join("oci-layout"),
        &json!({"imageLayoutVersion": "1.0.0"}).to_string(),
    )?;
    write(
        &layout.join("index.json"),
        &index(image.name, &manifest).to_string(),
    )?;
    tar(&layout, &whole.join(image.file))
}

/// A blob of the layout.
struct Blob {
    /// `sha256:…`
    digest: String,
    /// Bytes.
    size: u64,
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn config(image: &Image<'_>, layer: &Blob) -> Value {
    json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Entrypoint": [image.entrypoint],
            "Cmd": image.cmd,
            "User": image.user,
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
    })
}

fn manifest(config: &Blob, layer: &Blob) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config.digest, "size": config.size,
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": layer.digest, "size": layer.size,
        }],
    })
}

fn index(name: &str, manifest: &Blob) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": manifest.digest, "size": manifest.size,
            "platform": {"architecture": architecture(), "os": "linux"},
            // The name that containerd imports it under.
            "annotations": {"io.containerd.image.name": name},
        }],
    })
}

/// Archives a directory the same way every time.
fn tar(dir: &Path, archive: &Path) -> Result<()> {
    Sh::new("tar")
        .args([
            "--sort=name",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "--mtime=@0",
            "--format=gnu",
        ])
        .arg("-cf")
        .arg(archive)
        .arg("-C")
        .arg(dir)
        .arg(".")
        .read()
        .map(|_| ())
}

fn text_blob(blobs: &Path, value: &Value) -> Result<Blob> {
    let partial = blobs.join("partial");
    write(&partial, &value.to_string())?;
    file_blob(blobs, &partial)
}

/// Moves a file to where its digest says.
fn file_blob(blobs: &Path, file: &Path) -> Result<Blob> {
    let sum = Sh::new("sha256sum").arg(file).read()?;
    let digest = sum
        .split_whitespace()
        .next()
        .context("sha256sum prints no digest")?;
    let size = fs::metadata(file)
        .with_context(|| format!("cannot read {}", file.display()))?
        .len();
    let place = blobs.join(digest);
    fs::rename(file, &place).with_context(|| format!("cannot make {}", place.display()))?;
    Ok(Blob {
        digest: format!("sha256:{digest}"),
        size,
    })
}

/// Writes a file.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
