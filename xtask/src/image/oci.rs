//! The archive: an OCI image layout in a tar, with one layer.
//!
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md>. Nothing in it
//! depends on when and where it is made: files are sorted, times and owners are set, and JSON
//! has its keys in order.

use std::collections::BTreeSet;
use std::io::Write as _;

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::stamp::Stamp;
use super::target::Arch;

/// Where the program is in the image.
pub(super) const PROGRAM: &str = "/usr/bin/bascule";

/// A file of the image.
pub(super) struct File {
    /// Its path, without the first slash.
    pub(super) path: String,
    /// Permission bits.
    pub(super) mode: u32,
    /// Its content.
    pub(super) bytes: Vec<u8>,
}

/// What the image says of itself.
pub(super) struct Description<'a> {
    /// Whose machine code it has.
    pub(super) arch: Arch,
    /// Where it comes from.
    pub(super) stamp: &'a Stamp,
    /// Name and tag.
    pub(super) name: &'a str,
}

/// An archive.
pub(super) struct Archive {
    /// The tar.
    pub(super) bytes: Vec<u8>,
    /// Digest of the image's manifest, by which registries know it.
    pub(super) digest: String,
    /// Size of the layer's tar, in bytes.
    pub(super) unpacked: usize,
}

/// Makes the archive.
///
/// # Errors
/// A path is too long for a tar, or the time is out of range.
pub(super) fn archive(files: Vec<File>, about: &Description<'_>) -> Result<Archive> {
    let layer = tar_of(files, about.stamp.epoch, true)?;
    let packed = gzip(&layer)?;
    let config = json_bytes(&config(about, &digest(&layer))?);
    let manifest = json_bytes(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &packed)],
        "annotations": labels(about)?,
    }));
    let index = json_bytes(&index(about, &manifest));
    let image = digest(&manifest);
    let mut contents = vec![
        (
            "oci-layout".to_owned(),
            json_bytes(&json!({"imageLayoutVersion": "1.0.0"})),
        ),
        ("index.json".to_owned(), index),
    ];
    let blobs = [config, manifest, packed].map(|blob| {
        let hex = digest(&blob).replace("sha256:", "");
        (format!("blobs/sha256/{hex}"), blob)
    });
    contents.extend(blobs);
    let contents = contents.into_iter().map(|(path, bytes)| File {
        path,
        mode: 0o644,
        bytes,
    });
    Ok(Archive {
        bytes: tar_of(contents.collect(), about.stamp.epoch, false)?,
        digest: image,
        unpacked: layer.len(),
    })
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn index(about: &Description<'_>, manifest: &[u8]) -> Value {
    let mut entry = descriptor(MANIFEST, manifest);
    entry["platform"] = json!({"os": "linux", "architecture": about.arch.to_string()});
    let tag = about.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    entry["annotations"] = json!({
        "org.opencontainers.image.ref.name": tag,
        // By this containerd knows the whole name.
        "io.containerd.image.name": about.name,
    });
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    })
}

/// <https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md>.
fn config(about: &Description<'_>, layer: &str) -> Result<Value> {
    Ok(json!({
        "os": "linux",
        "architecture": about.arch.to_string(),
        "created": about.stamp.created()?,
        "config": {
            "Entrypoint": [PROGRAM],
            "Env": ["PATH=/usr/bin"],
            "Labels": labels(about)?,
        },
        "rootfs": {"type": "layers", "diff_ids": [layer]},
        "history": [{"created": about.stamp.created()?, "created_by": "cargo xtask image"}],
    }))
}

/// <https://github.com/opencontainers/image-spec/blob/v1.1.1/annotations.md>; the same on the
/// manifest, for registries, and in the configuration, for engines.
fn labels(about: &Description<'_>) -> Result<Value> {
    let url = env!("CARGO_PKG_REPOSITORY");
    Ok(json!({
        "org.opencontainers.image.created": about.stamp.created()?,
        "org.opencontainers.image.title": "bascule",
        "org.opencontainers.image.description":
            "The service load balancer of a Kubernetes node: an agent, and the eBPF programs that it loads",
        "org.opencontainers.image.documentation": format!("{url}/blob/main/docs/install.md"),
        "org.opencontainers.image.licenses": "Apache-2.0 AND (MIT OR GPL-2.0-only)",
        "org.opencontainers.image.revision": about.stamp.commit,
        "org.opencontainers.image.source": url,
        "org.opencontainers.image.url": url,
        "org.opencontainers.image.version": about.stamp.version,
    }))
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()})
}

/// The keys of a `serde_json::Value` are in order.
fn json_bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    // Neither a name nor a time, and no operating system, in the header.
    let mut packer = GzBuilder::new()
        .operating_system(255)
        .write(Vec::new(), Compression::best());
    packer.write_all(bytes).context("cannot pack the layer")?;
    packer.finish().context("cannot pack the layer")
}

/// A tar of files in order of their paths, with their directories where asked for.
fn tar_of(mut files: Vec<File>, time: u64, directories: bool) -> Result<Vec<u8>> {
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut tar = Builder::new(Vec::new());
    let mut known = BTreeSet::new();
    for file in &files {
        let parents = file
            .path
            .match_indices('/')
            .map(|(at, _)| &file.path[..=at]);
        for parent in parents.filter(|_| directories) {
            if known.insert(parent.to_owned()) {
                append(
                    &mut tar,
                    parent,
                    header(EntryType::Directory, 0o755, time),
                    &[],
                )?;
            }
        }
        append(
            &mut tar,
            &file.path,
            header(EntryType::Regular, file.mode, time),
            &file.bytes,
        )?;
    }
    tar.into_inner().context("cannot make a tar")
}

fn header(kind: EntryType, mode: u32, time: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(time);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn append(tar: &mut Builder<Vec<u8>>, path: &str, mut header: Header, bytes: &[u8]) -> Result<()> {
    header.set_size(bytes.len() as u64);
    tar.append_data(&mut header, path, bytes)
        .with_context(|| format!("cannot put {path} into a tar"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn stamp() -> Stamp {
        Stamp {
            version: "1.2.3".to_owned(),
            commit: "abcdef".to_owned(),
            epoch: 1_767_225_600,
        }
    }

    fn files(names: &[&str]) -> Vec<File> {
        let file = |name: &&str| File {
            path: (*name).to_owned(),
            mode: 0o755,
            bytes: name.as_bytes().to_vec(),
        };
        names.iter().map(file).collect()
    }

    fn make(names: &[&str]) -> Archive {
        let about = Description {
            arch: Arch::Amd64,
            stamp: &stamp(),
            name: "localhost/bascule:1.2.3",
        };
        archive(files(names), &about).unwrap()
    }

    fn read(bytes: &[u8], name: &str) -> Vec<u8> {
        let mut tar = tar::Archive::new(bytes);
        let mut entries = tar.entries().unwrap().map(Result::unwrap);
        let mut entry = entries
            .find(|e| e.path().unwrap().to_str() == Some(name))
            .unwrap();
        let mut out = Vec::new();
        entry.read_to_end(&mut out).unwrap();
        out
    }

    fn blob(archive: &Archive, descriptor: &Value) -> Vec<u8> {
        let named = descriptor["digest"].as_str().unwrap();
        let bytes = read(
            &archive.bytes,
            &format!("blobs/{}", named.replace(':', "/")),
        );
        assert_eq!(descriptor["size"], bytes.len());
        assert_eq!(named, digest(&bytes));
        bytes
    }

    #[test]
    fn the_order_of_files_does_not_matter() {
        let (one, other) = (make(&["usr/bin/a", "usr/b"]), make(&["usr/b", "usr/bin/a"]));
        assert_eq!(one.bytes, other.bytes);
        assert_ne!(one.bytes, make(&["usr/bin/a", "usr/c"]).bytes);
    }

    #[test]
    fn every_reference_leads_to_what_it_names() {
        let archive = make(&["usr/bin/a"]);
        let index: Value = serde_json::from_slice(&read(&archive.bytes, "index.json")).unwrap();
        let entry = &index["manifests"][0];
        assert_eq!(entry["digest"], archive.digest);
        assert_eq!(entry["platform"]["architecture"], "amd64");
        assert_eq!(
            entry["annotations"]["org.opencontainers.image.ref.name"],
            "1.2.3"
        );
        let manifest: Value = serde_json::from_slice(&blob(&archive, entry)).unwrap();
        let config: Value = serde_json::from_slice(&blob(&archive, &manifest["config"])).unwrap();
        assert_eq!(
            config["config"]["Labels"]["org.opencontainers.image.revision"],
            "abcdef"
        );
        assert_eq!(config["created"], "2026-01-01T00:00:00Z");
        let mut layer = Vec::new();
        let packed = blob(&archive, &manifest["layers"][0]);
        flate2::read::GzDecoder::new(&packed[..])
            .read_to_end(&mut layer)
            .unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(&layer));
        assert_eq!(read(&layer, "usr/bin/a"), b"usr/bin/a");
    }

    #[test]
    fn directories_come_before_what_is_in_them() {
        let layer = tar_of(files(&["usr/share/x", "usr/bin/a"]), 7, true).unwrap();
        let mut tar = tar::Archive::new(&layer[..]);
        let entries = tar.entries().unwrap().map(|e| {
            let e = e.unwrap();
            let path = e.path().unwrap().display().to_string();
            (
                path,
                e.header().mode().unwrap(),
                e.header().mtime().unwrap(),
            )
        });
        let expected = [
            ("usr/", 0o755, 7),
            ("usr/bin/", 0o755, 7),
            ("usr/bin/a", 0o755, 7),
            ("usr/share/", 0o755, 7),
            ("usr/share/x", 0o755, 7),
        ];
        let expected = expected.map(|(p, m, t)| (p.to_owned(), m, t));
        assert_eq!(entries.collect::<Vec<_>>(), expected);
    }

    /// The digest of three letters, from FIPS 180-2, appendix B.1.
    #[test]
    fn digests_are_sha256() {
        let expected = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest(b"abc"), expected);
    }
}
