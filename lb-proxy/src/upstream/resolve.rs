//! Addresses of names: of Services of type `ExternalName`, and of servers that are asked whether a
//! client may pass.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long addresses are good. The system's resolver does not tell.
const GOOD: Duration = Duration::from_secs(10);

/// Addresses of names that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Names(Mutex<HashMap<String, Known>>);

#[derive(Debug)]
struct Known {
    until: Instant,
    addresses: Arc<[IpAddr]>,
}

impl Names {
    /// The addresses of a name, with a port.
    ///
    /// # Errors
    /// It has none.
    pub(crate) async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let name = name.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let known = self.known(name);
        let addresses = match known {
            Some(addresses) => addresses,
            None => self.ask(name).await?,
        };
        Ok(addresses
            .iter()
            .map(|address| SocketAddr::new(*address, port))
            .collect())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, name: &str) -> Option<Arc<[IpAddr]>> {
        let names = self.lock();
        let known = names.get(name)?;
        (known.until > Instant::now()).then(|| known.addresses.clone())
    }

    /// Whether it is an address of a name.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        let names = self.lock();
        names
            .values()
            .any(|known| known.addresses.contains(&address))
    }

    async fn ask(&self, name: &str) -> io::Result<Arc<[IpAddr]>> {
        let found = tokio::net::lookup_host((name, 0)).await?;
        let addresses: Arc<[IpAddr]> = found.map(|address| address.ip()).collect();
        if addresses.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let now = Instant::now();
        let known = Known {
            until: now + GOOD,
            addresses: addresses.clone(),
        };
        let mut names = self.lock();
        names.retain(|_, known| known.until > now);
        names.insert(name.to_owned(), known);
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_names_too() {
        let names = Names::default();
        for (name, expected) in [
            ("192.0.2.1", "192.0.2.1:80"),
            ("[2001:db8::1]", "[2001:db8::1]:80"),
        ] {
            let found = names.resolve(name, 80).await.unwrap();
            assert_eq!(found, [expected.parse().unwrap()]);
        }
        assert!(
            names.resolve("localhost", 80).await.unwrap()[0]
                .ip()
                .is_loopback()
        );
        assert!(names.known("localhost").is_some());
    }
}
