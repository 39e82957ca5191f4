//! A table of Ingresses, and its changes, under a proxy.

mod common;

use std::{net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use common::{SOON, Talk, backend::Backend, body, header, status};
use lb_proxy::{Nobody, Options, Plain, Proxy};
use lb_route::{
    Compiler, Mode, PathType, Table,
    input::{BackendRef, Ingress, IngressPath, IngressRule, Name, PortRef, Service, ServicePort},
};

fn service(endpoints: &[SocketAddr]) -> Option<Arc<Service>> {
    let port = ServicePort {
        name: "".into(),
        number: 80,
        address: None,
        endpoints: endpoints.into(),
    };
    Some(Arc::new(Service {
        ports: vec![port],
        external_name: None,
    }))
}

fn ingress(annotations: &[(&str, &str)]) -> Arc<Ingress> {
    let prefixed = |(key, value): &(&str, &str)| {
        (
            format!("nginx.ingress.kubernetes.io/{key}"),
            (*value).to_owned(),
        )
    };
    let path = IngressPath {
        path: "/app".to_owned(),
        kind: PathType::Prefix,
        backend: Some(BackendRef {
            service: "app".into(),
            port: PortRef::Number(80),
        }),
    };
    Arc::new(Ingress {
        key: Name::new("default", "app"),
        mode: Mode::Nginx,
        uid: "uid".into(),
        created: 1,
        annotations: annotations.iter().map(prefixed).collect(),
        default_backend: None,
        rules: vec![IngressRule {
            host: "app.example".to_owned(),
            paths: vec![path],
        }],
        tls: Vec::new(),
    })
}

struct Running {
    _listeners: lb_proxy::listen::Listeners,
    address: SocketAddr,
    proxy: Arc<Proxy<Plain>>,
    table: Arc<ArcSwap<Table>>,
    compiler: Compiler,
}

async fn start(endpoints: &[SocketAddr], annotations: &[(&str, &str)]) -> Running {
    let mut compiler = Compiler::new(lb_route::Options::default());
    compiler.put_service(&Name::new("default", "app"), service(endpoints));
    compiler.put_ingress(ingress(annotations));
    let table = Arc::new(ArcSwap::from_pointee(compiler.compile()));
    let options = Options::from(&**table.load());
    let proxy = Proxy::new(options, table.clone(), Arc::new(Nobody), Plain);
    let (listeners, address) = common::listen(&proxy, Default::default());
    Running {
        _listeners: listeners,
        address,
        proxy,
        table,
        compiler,
    }
}

impl Running {
    async fn get(&self, host: &str, path: &str) -> String {
        let mut talk = Talk::to(self.address).await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        talk.send(request.as_bytes()).await;
        talk.rest().await
    }

    fn change(&mut self) {
        let table = Arc::new(self.compiler.compile());
        self.table.store(table.clone());
        self.proxy.adapt(&table);
    }
}

#[tokio::test]
async fn hosts_and_paths_lead_to_backends() {
    let backend = Backend::plain().await;
    let annotations = [("rewrite-target", "/inner$2"), ("use-regex", "true")];
    let plain = start(&[backend.address], &[]).await;
    let rewritten = start(&[backend.address], &annotations).await;
    let found = plain.get("app.example", "/app/x").await;
    assert_eq!((status(&found), body(&found)), (200, "/app/x"));
    assert_eq!(status(&plain.get("app.example", "/other").await), 404);
    assert_eq!(status(&plain.get("other.example", "/app").await), 404);
    assert_eq!(body(&rewritten.get("app.example", "/app").await), "/inner");
    let sent = backend.requests();
    assert_eq!(header(&sent[0], "x-forwarded-host"), Some("app.example"));
    assert_eq!(header(&sent[0], "x-real-ip"), Some("127.0.0.1"));
    assert_eq!(header(&sent[0], "x-request-id").map(str::len), Some(32));
}

#[tokio::test]
async fn endpoints_come_and_go() {
    let backends = [Backend::plain().await, Backend::plain().await];
    let mut running = start(&[backends[0].address], &[]).await;
    for _ in 0..3 {
        assert_eq!(status(&running.get("app.example", "/app").await), 200);
    }
    assert_eq!(
        (running.proxy.waiting(), backends[0].requests().len()),
        (1, 3)
    );
    let name = Name::new("default", "app");
    running
        .compiler
        .put_service(&name, service(&[backends[1].address]));
    running.change();
    assert_eq!(running.proxy.waiting(), 0);
    assert_eq!(status(&running.get("app.example", "/app").await), 200);
    assert_eq!(backends[1].requests().len(), 1);
    running.compiler.put_service(&name, service(&[]));
    running.change();
    assert_eq!(status(&running.get("app.example", "/app").await), 503);
    assert!(running.proxy.drain(SOON).await);
}
