//! The command line.

pub mod args;
pub mod log;
pub mod rows;
pub mod status;
pub mod text;
