//! The proxy of Ingresses as a process, between clients and backends that say what they saw.

pub mod ask;
pub mod backend;
pub mod case;
pub mod certificates;
pub mod client;
pub mod proxy;
pub mod run;
pub mod services;
