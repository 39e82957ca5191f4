//! Services that Ingresses of cases lead to, and who is behind them.

use std::{net::SocketAddr, sync::Arc};

use serde_json::{Value, json};

use super::{
    backend::{self, Kind},
    certificates::Certificates,
};

/// Each Service with its endpoints, of which 99 is nobody, and 71 whom a test puts there.
const SERVICES: [(&str, &[u8]); 25] = [
    ("one", &[1]),
    ("two", &[2]),
    ("three", &[11, 12, 13]),
    ("canary", &[21]),
    ("canaries", &[21, 22]),
    ("errors", &[31]),
    ("own-errors", &[32]),
    ("none", &[]),
    ("refused", &[99]),
    ("half-refused", &[1, 99]),
    ("failing", &[51]),
    ("half-failing", &[1, 51]),
    ("unavailable", &[56]),
    ("half-unavailable", &[1, 56]),
    ("half-silent", &[1, 52]),
    ("half-reset", &[1, 53]),
    ("half-garbage", &[1, 54]),
    ("full", &[55]),
    ("half-full", &[1, 55]),
    ("auth", &[41]),
    ("secure", &[61]),
    ("mutual", &[62]),
    ("named", &[2]),
    ("sign-in", &[71]),
    ("copies", &[72]),
];

fn endpoint(last: u8) -> SocketAddr {
    ([10, 79, 1, last], 8080).into()
}

/// The address of a Service.
fn address(index: usize) -> String {
    format!("10.79.2.{}", index + 1)
}

/// The Services, their endpoints, and the classes.
#[must_use]
pub fn manifests() -> Vec<Value> {
    let mut all = Vec::new();
    for (index, (name, endpoints)) in SERVICES.into_iter().enumerate() {
        let meta = json!({"name": name, "namespace": "default"});
        all.push(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": meta,
            "spec": {
                "clusterIP": address(index),
                "ports": [{"name": "web", "port": 80, "targetPort": 8080}],
            },
        }));
        let address = |last: &u8| json!({"addresses": [endpoint(*last).ip().to_string()]});
        let endpoints: Vec<_> = endpoints.iter().map(address).collect();
        all.push(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": name, "namespace": "default",
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "web", "port": 8080}],
        }));
    }
    all.push(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "external", "namespace": "default"},
        "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": 8080}]},
    }));
    let classes = [
        ("nginx", "k8s.io/ingress-nginx"),
        ("bascule", "bascule.dev/ingress"),
        ("others", "example.com/others"),
    ];
    all.extend(classes.map(|(name, controller)| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
            "metadata": {"name": name}, "spec": {"controller": controller},
        })
    }));
    all
}

/// Serves all endpoints in the calling thread's namespace, and `three` by its own address too.
pub fn serve(certificates: &Certificates) {
    let all: [(&str, u8, Kind); 18] = [
        ("one", 1, Kind::Echo),
        ("two", 2, Kind::Echo),
        ("three-11", 11, Kind::Echo),
        ("three-12", 12, Kind::Echo),
        ("three-13", 13, Kind::Echo),
        ("canary", 21, Kind::Echo),
        ("canary-22", 22, Kind::Echo),
        ("errors", 31, Kind::Errors),
        ("own-errors", 32, Kind::Errors),
        ("auth", 41, Kind::Auth),
        ("failing", 51, Kind::Always("502")),
        ("silent", 52, Kind::Always("200|!wait 30000")),
        ("reset", 53, Kind::Always("200|!reset")),
        ("garbage", 54, Kind::Always("200|!garbage")),
        ("full", 55, Kind::Full),
        ("unavailable", 56, Kind::Always("503")),
        ("copies", 72, Kind::Last(Arc::default())),
        ("secure", 61, Kind::Tls(certificates.server(false))),
    ];
    for (name, last, kind) in all {
        backend::serve(name, endpoint(last), kind);
    }
    let mutual = Kind::Tls(certificates.server(true));
    backend::serve("mutual", endpoint(62), mutual);
    let three = SERVICES.iter().position(|(name, _)| *name == "three");
    let three = three.map(|index| format!("{}:80", address(index)).parse());
    let three = three
        .expect("there is one")
        .expect("it is an address and a port");
    backend::serve("three-itself", three, Kind::Echo);
    backend::serve("external", ([127, 0, 0, 1], 8080).into(), Kind::Echo);
}
