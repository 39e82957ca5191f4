//! TLS over loopback: certificates are made by rcgen, the other end is rustls or OpenSSL.

mod accept;
mod authority;
mod certificates;
mod clients;
mod hosts;
mod openssl;
mod server;
mod upstream;
mod versions;
