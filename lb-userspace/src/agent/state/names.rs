//! The names of services, and where each is dialled: for the command line, which finds in the
//! maps numbers only, and would have to walk all frontends for those of one service.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc};

use lb_plan::model::{Protocol, ServiceKey, ServicePortKey};
use serde::{Deserialize, Serialize, Serializer, de::IgnoredAny};

use super::{NAMES, StateDir};

/// What is known of services beside the maps.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServiceNames {
    /// Service ids and their service ports.
    pub ports: BTreeMap<u32, ServicePortKey>,
    /// Service ids, in order, each with an address and port that clients in the cluster dial;
    /// NodePorts are left out. The maps may hold something else by now.
    pub vips: Vec<(u32, SocketAddr)>,
}

impl ServiceNames {
    fn vips_of(&self, id: u32) -> impl Iterator<Item = SocketAddr> {
        let first = self.vips.partition_point(|(of, _)| *of < id);
        let from = self.vips[first..].iter();
        from.take_while(move |(of, _)| *of == id).map(|(_, at)| *at)
    }
}

/// One name: [`ServicePortKey`], whose fields are here because `flatten` would be read by way of
/// maps of strings.
#[derive(Serialize, Deserialize)]
struct Name<V> {
    id: u32,
    service: ServiceKey,
    port: Arc<str>,
    protocol: Protocol,
    /// Earlier agents write none.
    #[serde(default)]
    vips: V,
}

impl<V> Name<V> {
    fn port(self) -> (u32, ServicePortKey) {
        let key = ServicePortKey {
            service: self.service,
            port: self.port,
            protocol: self.protocol,
        };
        (self.id, key)
    }
}

/// A list that is written as it is made.
struct List<I>(I);

impl<I: Iterator<Item: Serialize> + Clone> Serialize for List<I> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.clone())
    }
}

impl StateDir {
    /// Writes the names of services.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_names(&self, names: &ServiceNames) -> io::Result<()> {
        let list = names.ports.iter().map(|(id, key)| Name {
            id: *id,
            service: key.service.clone(),
            port: Arc::clone(&key.port),
            protocol: key.protocol,
            vips: names.vips_of(*id).collect::<Vec<_>>(),
        });
        self.write(NAMES, &List(list))
    }

    /// The names of services, as the agent wrote them last.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read_names(&self) -> io::Result<BTreeMap<u32, ServicePortKey>> {
        let list: Vec<Name<IgnoredAny>> = self.read(NAMES)?.unwrap_or_default();
        Ok(list.into_iter().map(Name::port).collect())
    }

    /// The same, with where each service is dialled, which takes longer.
    ///
    /// # Errors
    /// As [`Self::read_names`].
    pub fn read_vips(&self) -> io::Result<ServiceNames> {
        let list: Vec<Name<Vec<SocketAddr>>> = self.read(NAMES)?.unwrap_or_default();
        let vips = list.iter().flat_map(|name| {
            let of = name.vips.iter();
            of.map(|at| (name.id, *at))
        });
        Ok(ServiceNames {
            vips: vips.collect(),
            ports: list.into_iter().map(Name::port).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names() -> ServiceNames {
        let port = |protocol| ServicePortKey {
            service: ServiceKey {
                namespace: "shop".into(),
                name: "web".into(),
            },
            port: "http".into(),
            protocol,
        };
        let ports = [(7, Protocol::Udp), (8, Protocol::Tcp), (9, Protocol::Sctp)];
        let vips = [
            (7, "10.96.0.7:80"),
            (7, "[fd00::7]:80"),
            (9, "10.96.0.9:80"),
        ];
        ServiceNames {
            ports: ports.map(|(id, protocol)| (id, port(protocol))).into(),
            vips: vips.map(|(id, at)| (id, at.parse().unwrap())).into(),
        }
    }

    #[test]
    fn names_are_read_back_and_nothing_else_is_left() {
        let dir = tempfile::TempDir::new().unwrap();
        let state = StateDir::new(&dir.path().join("state"));
        assert_eq!(state.read_names().unwrap(), BTreeMap::new());
        state.write_names(&names()).unwrap();
        state.write_names(&names()).unwrap();
        assert_eq!(state.read_names().unwrap(), names().ports);
        assert_eq!(state.read_vips().unwrap(), names());
        let files: Vec<_> = fs::read_dir(dir.path().join("state")).unwrap().collect();
        assert_eq!(files.len(), 1);
        fs::write(dir.path().join("state/names.json"), "[{").unwrap();
        let error = state.read_names().unwrap_err().to_string();
        assert!(error.contains("names.json"), "{error}");
    }

    #[test]
    fn what_an_earlier_agent_wrote_is_read_without_addresses() {
        let dir = tempfile::TempDir::new().unwrap();
        let old = r#"[{"id":7,"service":{"namespace":"shop","name":"web"},"port":"http","protocol":"UDP"}]"#;
        fs::write(dir.path().join("names.json"), old).unwrap();
        let read = StateDir::new(dir.path()).read_vips().unwrap();
        assert_eq!(read.ports[&7], names().ports[&7]);
        assert_eq!(read.vips, []);
    }
}
