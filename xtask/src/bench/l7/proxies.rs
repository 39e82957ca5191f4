//! The proxies: what they are told, so that all do the same work.
//!
//! nginx does what the configuration of ingress-nginx does by its defaults: no buffering of
//! answers, connections to endpoints that are kept, the same headers. haproxy sets the same
//! headers. None writes a log of requests.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

/// Whose name all proxies have.
pub(super) const HOST: &str = "bench.example.com";
/// The endpoints: one server, which is not measured.
pub(super) const ENDPOINTS: [&str; 2] = ["10.79.9.1", "10.79.9.2"];
/// Bytes of an answer's body.
const BODY: usize = 1024;
/// Connections that a proxy can have, as far as it can open as many files.
pub(super) const CONNECTIONS: u32 = 16384;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Proxy {
    /// Bascule.
    Bascule,
    /// nginx: what all are compared with.
    Nginx,
    /// haproxy.
    Haproxy,
}

impl Proxy {
    /// All, in the order of the tables.
    pub(super) const ALL: [Self; 3] = [Self::Bascule, Self::Nginx, Self::Haproxy];

    /// Its name in the tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bascule => "Bascule",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }

    /// Where it serves.
    pub(super) fn address(self) -> &'static str {
        match self {
            Self::Bascule => "10.79.9.10",
            Self::Nginx => "10.79.9.11",
            Self::Haproxy => "10.79.9.12",
        }
    }
}

/// All addresses.
pub(super) fn addresses() -> impl Iterator<Item = &'static str> {
    ENDPOINTS.into_iter().chain(Proxy::ALL.map(Proxy::address))
}

/// Writes what all of them read, `certificate` and `key` included, into a directory.
///
/// # Errors
/// It cannot be written.
pub(super) fn write(dir: &Path, certificate: &str, key: &str) -> Result<()> {
    let at = dir.display().to_string();
    fs::create_dir_all(dir.join("manifests"))?;
    let files = [
        ("tls.crt", certificate.to_owned()),
        ("tls.key", key.to_owned()),
        ("both.pem", format!("{certificate}{key}")),
        ("upstream.conf", upstream(&at)),
        ("nginx.conf", nginx(&at)),
        ("haproxy.conf", haproxy(&at)),
        ("manifests/all.yaml", manifests(certificate, key)),
    ];
    for (name, text) in files {
        let path = dir.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// What every nginx here has: one worker, nothing outside its directory.
fn worker(dir: &str, name: &str, http: &str) -> String {
    format!(
        "user root;\ndaemon off;\nworker_processes 1;\n\
         pid {dir}/{name}.pid;\nerror_log {dir}/{name}.log;\n\
         events {{ multi_accept on; worker_connections {CONNECTIONS}; use epoll; }}\n\
         http {{\naccess_log off;\nsendfile on;\ntcp_nopush on;\ntcp_nodelay on;\n\
         client_body_temp_path {dir}/{name}.body;\nproxy_temp_path {dir}/{name}.proxy;\n\
         fastcgi_temp_path {dir}/{name}.fastcgi;\nuwsgi_temp_path {dir}/{name}.uwsgi;\n\
         scgi_temp_path {dir}/{name}.scgi;\n{http}}}\n"
    )
}

fn upstream(dir: &str) -> String {
    let listen: String = ENDPOINTS
        .iter()
        .map(|address| format!("listen {address}:8080 backlog=4096;\n"))
        .collect();
    let body = "x".repeat(BODY);
    let server = format!(
        "keepalive_requests 1000000000;\nkeepalive_timeout 3600s;\n\
         server {{\n{listen}location / {{ return 200 \"{body}\"; }}\n}}\n"
    );
    worker(dir, "upstream", &server)
}

fn nginx(dir: &str) -> String {
    let address = Proxy::Nginx.address();
    let servers: String = ENDPOINTS
        .iter()
        .map(|address| format!("server {address}:8080;\n"))
        .collect();
    let server = format!(
        "keepalive_timeout 75s;\nkeepalive_requests 1000;\nreset_timedout_connection on;\n\
         server_tokens off;\nproxy_headers_hash_max_size 512;\n\
         map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}\n\
         map $http_x_request_id $req_id {{ default $http_x_request_id; '' $request_id; }}\n\
         upstream service {{\n{servers}keepalive 320;\nkeepalive_time 1h;\nkeepalive_timeout 60s;\n\
         keepalive_requests 10000;\n}}\n\
         ssl_protocols TLSv1.2 TLSv1.3;\nssl_session_cache shared:SSL:10m;\n\
         ssl_session_timeout 10m;\nssl_session_tickets off;\nssl_buffer_size 4k;\n\
         server {{\nlisten {address}:80 backlog=4096;\nlisten {address}:443 ssl http2 backlog=4096;\n\
         server_name {HOST};\nssl_certificate {dir}/tls.crt;\nssl_certificate_key {dir}/tls.key;\n\
         location / {{\n{PROXY_PASS}}}\n}}\n"
    );
    worker(dir, "nginx", &server)
}

/// As ingress-nginx has it by its defaults (`rootfs/etc/nginx/template/nginx.tmpl`, and
/// docs/user-guide/nginx-configuration/configmap.md).
const PROXY_PASS: &str = "client_max_body_size 1m;
proxy_set_header Host $host;
proxy_set_header Upgrade $http_upgrade;
proxy_set_header Connection $connection_upgrade;
proxy_set_header X-Request-ID $req_id;
proxy_set_header X-Real-IP $remote_addr;
proxy_set_header X-Forwarded-For $remote_addr;
proxy_set_header X-Forwarded-Host $host;
proxy_set_header X-Forwarded-Port $server_port;
proxy_set_header X-Forwarded-Proto $scheme;
proxy_set_header X-Forwarded-Scheme $scheme;
proxy_set_header X-Scheme $scheme;
proxy_set_header X-Original-Forwarded-For $http_x_forwarded_for;
proxy_set_header Proxy \"\";
proxy_connect_timeout 5s;
proxy_send_timeout 60s;
proxy_read_timeout 60s;
proxy_buffering off;
proxy_buffer_size 4k;
proxy_buffers 4 4k;
proxy_request_buffering on;
proxy_http_version 1.1;
proxy_cookie_domain off;
proxy_cookie_path off;
proxy_next_upstream error timeout;
proxy_next_upstream_tries 3;
proxy_redirect off;
proxy_pass http://service;
";

fn haproxy(dir: &str) -> String {
    let address = Proxy::Haproxy.address();
    let servers: String = (1..)
        .zip(ENDPOINTS)
        .map(|(number, address)| format!("  server s{number} {address}:8080\n"))
        .collect();
    format!(
        "global\n  nbthread 1\n  maxconn {CONNECTIONS}\n  no strict-limits\n  ssl-default-bind-options ssl-min-ver TLSv1.2\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 75s\n  timeout server 60s\n  \
         timeout http-keep-alive 75s\n  option http-keep-alive\n  http-reuse safe\n\
         frontend web\n  bind {address}:80 backlog 4096\n  \
         bind {address}:443 ssl crt {dir}/both.pem alpn h2,http/1.1 backlog 4096\n\
         {HEADERS}  use_backend service if {{ req.hdr(host) -i {HOST} }} {{ path_beg / }}\n\
         backend service\n  balance roundrobin\n{servers}"
    )
}

const HEADERS: &str = "  http-request set-header X-Request-ID %[uuid()]
  http-request set-header X-Real-IP %[src]
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Forwarded-Port %[dst_port]
  http-request set-header X-Forwarded-Proto http if !{ ssl_fc }
  http-request set-header X-Forwarded-Proto https if { ssl_fc }
  http-request set-header X-Forwarded-Scheme http if !{ ssl_fc }
  http-request set-header X-Forwarded-Scheme https if { ssl_fc }
  http-request set-header X-Scheme http if !{ ssl_fc }
  http-request set-header X-Scheme https if { ssl_fc }
";

/// What Bascule reads.
fn manifests(certificate: &str, key: &str) -> String {
    let meta = |name: &str| json!({"name": name, "namespace": "default"});
    let endpoints = ENDPOINTS.map(|address| json!({"addresses": [address]}));
    let all = [
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
            "metadata": {"name": "nginx"}, "spec": {"controller": "k8s.io/ingress-nginx"},
        }),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("settings"),
            "data": {"disable-access-log": "true"},
        }),
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": meta("certificate"),
            "stringData": {"tls.crt": certificate, "tls.key": key},
        }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": meta("service"),
            "spec": {"clusterIP": "10.79.8.1", "ports": [{"port": 80, "targetPort": 8080}]},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "service", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "service"},
            },
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 8080}],
        }),
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {
                "name": "ingress", "namespace": "default",
                "annotations": {"nginx.ingress.kubernetes.io/ssl-redirect": "false"},
            },
            "spec": {
                "ingressClassName": "nginx",
                "tls": [{"hosts": [HOST], "secretName": "certificate"}],
                "rules": [{"host": HOST, "http": {"paths": [{
                    "path": "/", "pathType": "Prefix",
                    "backend": {"service": {"name": "service", "port": {"number": 80}}},
                }]}}],
            },
        }),
    ];
    all.map(|object| object.to_string()).join("\n---\n")
}
