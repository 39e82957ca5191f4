//! `bascule migrate`: what becomes of the Ingresses of another controller.

mod text;

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::{proxy::ObjectArgs, text::wants_colour};
use crate::{
    proxy::{Source, migrate::Report, once},
    watch::reflect,
};

/// The controllers that there is a report for.
#[derive(Subcommand, Debug)]
pub enum MigrateCommand {
    /// Say of each Ingress of ingress-nginx, and of its ConfigMap, what becomes of it
    #[command(
        name = "ingress-nginx",
        after_help = "Examples:
  bascule migrate ingress-nginx                        # the cluster of $KUBECONFIG
  bascule migrate ingress-nginx --kubeconfig ~/.kube/config --configmap ingress/nginx-config
  bascule migrate ingress-nginx ./manifests            # YAML files instead of a cluster
  bascule migrate ingress-nginx --json | jq '.ingresses[] | select(.verdict == \"denied\")'

Each Ingress is one of: alike, it is served as ingress-nginx serves it; differs, something is accepted
without effect, and harmless; wrong, as with ingress-nginx (an object is missing, a value is none);
refused, something that it asks for is not done; denied, every request is answered 503, for it would
be served without protection otherwise. The change to make is said with each, and of snippets for
each of their directives. Nothing is changed, and of Secrets only those are read that are named.

Exit status: 0 nothing is refused or denied; 3 something is, or a file could not be read; 1 there is
no report."
    )]
    IngressNginx(Box<MigrateArgs>),
}

/// `bascule migrate ingress-nginx`.
#[derive(Args, Debug)]
pub struct MigrateArgs {
    /// Read the .yaml, .yml and .json files of a directory, but not of those below it, instead of a cluster
    #[arg(value_name = "DIR", conflicts_with_all = ["kubeconfig", "apiserver"])]
    pub dir: Option<PathBuf>,
    /// How to reach the API server [default: $KUBECONFIG, then the pod's service account]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// URL of the API server, instead of the configured one
    #[arg(long, value_name = "URL", visible_alias = "apiserver-host")]
    pub apiserver: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Which objects count.
    #[command(flatten)]
    pub objects: ObjectArgs,
}

/// Prints the report. Says whether something has to be changed.
///
/// # Errors
/// The objects cannot be read, or the report cannot be written.
pub(super) fn run(command: &MigrateCommand) -> anyhow::Result<bool> {
    let MigrateCommand::IngressNginx(args) = command;
    let source = match &args.dir {
        Some(dir) => Source::Dir(dir.clone()),
        None => Source::Cluster(reflect::Settings {
            kubeconfig: args.kubeconfig.clone(),
            apiserver: args.apiserver.clone(),
            ..reflect::Settings::default()
        }),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.context("the runtime of tasks cannot be made")?;
    let read = runtime.block_on(once::read(&source, args.objects.settings()))?;
    let report = Report::new(&read);
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        out.write_all(b"\n")?;
    } else {
        out.write_all(text::render(&report, wants_colour()).as_bytes())?;
    }
    out.flush()?;
    Ok(report.needs_change)
}
