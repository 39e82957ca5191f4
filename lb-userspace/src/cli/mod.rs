//! The command line.

pub mod args;
pub mod flows;
pub mod log;
pub mod rows;
pub mod status;
pub mod text;
