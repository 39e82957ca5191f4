//! The defaults of ingress-nginx v1.15.1 (`NewDefault` in
//! internal/ingress/controller/config/config.go).

use std::time::Duration;

use http::{HeaderName, StatusCode};

use super::{Client, Coding, Collector, Compression, Forwarded, Globals, Hsts, Log, Pool, Tls};
use crate::{
    annotations::Risk,
    settings::{
        Errors, Forwarding, Limits, NextUpstream, Redirect, Response, Settings, UpstreamTls,
    },
    trace::{Sampler, Tracing},
    values,
    variables::{Escape, Template},
};

/// A line of the access log.
pub(super) const FORMAT: &str = "$remote_addr - $remote_user [$time_local] \"$request\" $status \
     $body_bytes_sent \"$http_referer\" \"$http_user_agent\" $request_length $request_time \
     [$proxy_upstream_name] [$proxy_alternative_upstream_name] $upstream_addr \
     $upstream_response_length $upstream_response_time $upstream_status $req_id";

/// Media types that are worth it.
const TYPES: &str = "application/atom+xml application/javascript application/x-javascript \
     application/json application/rss+xml application/vnd.ms-fontobject application/x-font-ttf \
     application/x-web-app-manifest+json application/xhtml+xml application/xml font/opentype \
     image/svg+xml image/x-icon text/css text/javascript text/plain text/x-component";

/// Where certificates are fetched over HTTP (RFC 8555, section 8.3).
const ACME: &str = "/.well-known/acme-challenge";

impl Default for Globals {
    /// Without a ConfigMap.
    fn default() -> Self {
        Self {
            defaults: settings(),
            client: client(),
            forwarded: Forwarded {
                trust: false,
                real_ip: false,
                header: HeaderName::from_static("x-forwarded-for"),
                full: false,
                proxies: values::network("0.0.0.0/0").into_iter().collect(),
                original_uri: false,
                request_id: true,
            },
            pool: Pool {
                connections: 320,
                requests: 10_000,
                timeout: Duration::from_secs(60),
                time: Duration::from_secs(3_600),
            },
            tls: tls(),
            headers: Default::default(),
            compression: compression(),
            block: Default::default(),
            log: Log {
                on: true,
                // Its variables are known; a test reads it.
                format: Template::parse(FORMAT).expect("the default format is one"),
                escape: Escape::Default,
                skip: Vec::new(),
                default_backend: false,
            },
            collector: collector(),
            auth: None,
            no_auth: vec![ACME.to_owned()],
            rate_status: StatusCode::SERVICE_UNAVAILABLE,
            connections_status: StatusCode::SERVICE_UNAVAILABLE,
            overall_status: StatusCode::TOO_MANY_REQUESTS,
            retry_non_idempotent: false,
            strict_paths: true,
            cross_namespace: false,
            blocked_words: Vec::new(),
            risk: Risk::High,
            drain: Duration::from_secs(240),
            auth_unreadable: None,
            allow_unreadable: None,
            firewall_refused: None,
        }
    }
}

/// The settings of an Ingress without annotations.
fn settings() -> Settings {
    Settings {
        redirect: Redirect {
            ssl: true,
            ssl_code: StatusCode::PERMANENT_REDIRECT,
            ..Default::default()
        },
        upstream: Forwarding {
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(60),
            next: NextUpstream {
                error: true,
                timeout: true,
                tries: 3,
                ..Default::default()
            },
            tls: UpstreamTls {
                verify_depth: 1,
                ..Default::default()
            },
            request_buffering: true,
            ..Default::default()
        },
        limits: Limits {
            burst_multiplier: 5,
            ..Default::default()
        },
        errors: Errors::default(),
        response: Response::default(),
        body_size: Some(1 << 20),
        access_log: true,
        tracing: Tracing {
            on: false,
            trust: true,
            name: None,
            sampler: Sampler::AlwaysOn,
            parent_based: true,
        },
        ..Default::default()
    }
}

fn client() -> Client {
    Client {
        keep_alive: Duration::from_secs(75),
        keep_alive_requests: 1_000,
        header_timeout: Duration::from_secs(60),
        body_timeout: Duration::from_secs(60),
        header_buffers: (4, 8 << 10),
        http2: true,
        http2_streams: 128,
        underscores: false,
        ignore_invalid: true,
        proxy_protocol: false,
        proxy_protocol_timeout: Duration::from_secs(5),
    }
}

fn tls() -> Tls {
    Tls {
        v12: true,
        v13: true,
        reject: false,
        session_cache: true,
        tickets: false,
        session_timeout: Duration::from_secs(600),
        hsts: Hsts {
            on: true,
            max_age: 31_536_000,
            subdomains: true,
            preload: false,
        },
        no_redirect: vec![ACME.to_owned()],
    }
}

fn compression() -> Compression {
    let types = || TYPES.split_whitespace();
    let coding = |level, min_length, types: &mut dyn Iterator<Item = &str>| Coding {
        on: false,
        level,
        min_length,
        types: types.map(str::to_owned).collect(),
    };
    Compression {
        gzip: coding(1, 256, &mut types()),
        gzip_disabled: None,
        brotli: coding(4, 20, &mut types().chain(["application/xml+rss"])),
    }
}

fn collector() -> Collector {
    Collector {
        host: String::new(),
        port: 4_317,
        service: "nginx".to_owned(),
        queue: 2_048,
        delay: Duration::from_millis(5_000),
        batch: 512,
    }
}
