//! The command line.

pub mod args;
pub mod rows;
pub mod text;
