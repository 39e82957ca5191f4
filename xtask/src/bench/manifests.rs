//! Manifests for the agent under measurement.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Services in a file.
const IN_A_FILE: u32 = 100;

/// Writes services with endpoints on other nodes into files of a directory.
///
/// # Errors
/// A file cannot be written.
pub(super) fn many(dir: &Path, services: u32, endpoints: u32) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for file in 0..services.div_ceil(IN_A_FILE) {
        let mut text = String::new();
        for i in (file * IN_A_FILE)..services.min((file + 1) * IN_A_FILE) {
            service(&mut text, i);
            slice(&mut text, i, endpoints);
        }
        write(&dir.join(format!("{file}.yaml")), &text)?;
    }
    Ok(())
}

/// Writes a manifest.
///
/// # Errors
/// The file cannot be written.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn service(text: &mut String, i: u32) {
    let ip = Ipv4Addr::from_bits(0x0a60_0000 + i + 1);
    let _ = write!(
        text,
        "---\napiVersion: v1\nkind: Service\n\
         metadata: {{name: service-{i}, namespace: ns-{}}}\n\
         spec:\n  clusterIP: {ip}\n  clusterIPs: [{ip}]\n  \
         ports: [{{name: http, port: 80, targetPort: 8080, protocol: TCP}}]\n",
        i % 100
    );
}

fn slice(text: &mut String, i: u32, endpoints: u32) {
    let _ = write!(
        text,
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata:\n  name: service-{i}-abcde\n  namespace: ns-{}\n  \
         labels: {{kubernetes.io/service-name: service-{i}}}\n\
         addressType: IPv4\nports: [{{name: http, port: 8080, protocol: TCP}}]\nendpoints:\n",
        i % 100
    );
    for n in 0..endpoints {
        let ip = Ipv4Addr::from_bits(0x0b00_0000 + i * endpoints + n);
        let _ = writeln!(
            text,
            "- {{addresses: [{ip}], nodeName: node-{}, conditions: {{ready: true, serving: true, terminating: false}}}}",
            1 + n
        );
    }
}
