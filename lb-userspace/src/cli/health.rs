//! `bascule health`: answers health checks in the agent's place.

use std::path::PathBuf;

use clap::Args;
use tokio::runtime;

use super::args::STATE_DIR;
use crate::{
    agent::state::StateDir,
    health::stand_in,
    log::{self, LogFormat},
    signals,
};

/// `bascule health`.
#[derive(Args, Clone, Debug)]
pub struct HealthArgs {
    /// Where the agent keeps what it would answer; nothing is written there
    #[arg(
        long,
        value_name = "DIR",
        default_value = STATE_DIR,
        env = "BASCULE_STATE_DIR"
    )]
    pub state_dir: PathBuf,
    /// Log lines for people or for machines
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Say more: -v, -vv; $RUST_LOG chooses by module
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// Runs until a signal ends it.
///
/// # Errors
/// Signals cannot be waited for.
pub fn run(args: &HealthArgs) -> anyhow::Result<()> {
    log::init(args.log_format, args.verbose, None);
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let signal = signals::ended()?;
        let end = async {
            signal.await;
        };
        stand_in::serve(StateDir::new(&args.state_dir), end).await;
        Ok(())
    })
}
