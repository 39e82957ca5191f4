//! What Ingresses and their annotations do, over real connections: the cases of `ingress/*.yaml`.

use std::path::Path;

use bascule_tests::ingress::run;

fn check(name: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ingress");
    run::check(&dir, name);
}

#[test]
fn routing() {
    check("routing.yaml");
}

#[test]
fn any_host() {
    check("any-host.yaml");
}

#[test]
fn rewrite() {
    check("rewrite.yaml");
}

#[test]
fn redirects() {
    check("redirects.yaml");
}

#[test]
fn tls_redirect() {
    check("tls-redirect.yaml");
}

#[test]
fn canary() {
    check("canary.yaml");
}

#[test]
fn affinity() {
    check("affinity.yaml");
}

#[test]
fn auth_basic() {
    check("auth-basic.yaml");
}

#[test]
fn auth_external() {
    check("auth-external.yaml");
}

#[test]
fn compression() {
    check("compression.yaml");
    check("brotli.yaml");
}

#[test]
fn mirror() {
    check("mirror.yaml");
}

#[test]
fn satisfy() {
    check("satisfy.yaml");
}

#[test]
fn source_ranges() {
    check("source-ranges.yaml");
}

#[test]
fn limits() {
    check("limits.yaml");
}

#[test]
fn global_limits() {
    check("global-limits.yaml");
}

#[test]
fn cors() {
    check("cors.yaml");
}

#[test]
fn upstream() {
    check("upstream.yaml");
}

#[test]
fn upstream_tls() {
    check("upstream-tls.yaml");
}

#[test]
fn body_size() {
    check("body-size.yaml");
}

#[test]
fn timeouts() {
    check("timeouts.yaml");
}

#[test]
fn retries() {
    check("retries.yaml");
}

#[test]
fn errors() {
    check("errors.yaml");
}

#[test]
fn headers() {
    check("headers.yaml");
}

#[test]
fn forwarded() {
    check("forwarded.yaml");
}

#[test]
fn forwarded_full() {
    check("forwarded-full.yaml");
}

#[test]
fn real_ip() {
    check("real-ip.yaml");
}

#[test]
fn proxy_protocol() {
    check("proxy-protocol.yaml");
}

#[test]
fn more_headers() {
    check("more-headers.yaml");
}

#[test]
fn config_access() {
    check("config-access.yaml");
}

#[test]
fn aliases() {
    check("aliases.yaml");
}

#[test]
fn client_certificates() {
    check("client-certificates.yaml");
}

#[test]
fn refused() {
    check("refused.yaml");
}

#[test]
fn specification() {
    check("specification.yaml");
}
