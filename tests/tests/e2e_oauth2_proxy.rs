//! `auth-url` and `auth-signin` with the real oauth2-proxy, set up as its own documentation does
//! for ingress-nginx
//! (<https://oauth2-proxy.github.io/oauth2-proxy/configuration/integrations/nginx>): `/oauth2` of a
//! host leads to it, all else of the host asks it. Users sign in with a password that it checks, as
//! there is no provider of identities here.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use bascule_tests::{
    e2e::{eventually, netns::Netns},
    ingress::{
        certificates::Certificates,
        client::{Answer, ask},
        proxy::Proxy,
        services,
    },
};
use serde_json::{Value, json};
use tempfile::TempDir;

const PROXY: [u8; 4] = [10, 79, 0, 1];
/// Where oauth2-proxy serves: the endpoint of the Service `sign-in`.
const SIGN_IN: &str = "10.79.1.71:8080";
const PATIENCE: Duration = Duration::from_secs(20);
const HOST: &str = "app.test";
/// `ann` with the password `secret`, by `printf secret | openssl sha1 -binary | base64`.
const USERS: &str = "ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n";

/// A running oauth2-proxy.
struct SignIn(Child);

impl Drop for SignIn {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl SignIn {
    fn start(dir: &Path) -> Self {
        let programs = std::env::var_os("OAUTH2_PROXY_DIR").expect(
            "`cargo xtask test netns` builds oauth2-proxy, and sets OAUTH2_PROXY_DIR; by hand, set it to its directory",
        );
        fs::write(dir.join("users"), USERS).expect("it can be written");
        let log = File::create(dir.join("log")).expect("a log can be made");
        let child = Command::new(PathBuf::from(programs).join("oauth2-proxy"))
            .arg(format!("--http-address={SIGN_IN}"))
            .arg(format!("--htpasswd-file={}", dir.join("users").display()))
            .args([
                "--reverse-proxy",
                "--set-xauthrequest",
                "--upstream=static://202",
            ])
            .args([
                "--email-domain=*",
                "--cookie-secret=0123456789abcdef",
                "--cookie-secure=false",
            ])
            // A provider is wanted, and is nowhere.
            .args([
                "--provider=oidc",
                "--skip-oidc-discovery",
                "--oidc-issuer-url=http://id.test/",
            ])
            .args([
                "--login-url=http://id.test/login",
                "--redeem-url=http://id.test/token",
            ])
            .args([
                "--oidc-jwks-url=http://id.test/keys",
                "--client-id=app",
                "--client-secret=x",
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor can be duplicated"))
            .stderr(log)
            .spawn()
            .expect("oauth2-proxy can be started");
        let running = Self(child);
        eventually(PATIENCE, || {
            let address = SIGN_IN.parse().expect("it is an address and a port");
            let ping = ask(address, "GET /ping HTTP/1.1\r\nhost: ping\r\n", "");
            match &ping {
                Ok(answer) if answer.status == 200 => Ok(()),
                _ => Err(format!(
                    "{ping:?}; its log:\n{}",
                    fs::read_to_string(dir.join("log")).unwrap_or_default()
                )),
            }
        });
        running
    }
}

fn ingress(name: &str, annotations: &Value, path: &str, service: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "spec": {
            "ingressClassName": "nginx",
            "rules": [{"host": HOST, "http": {"paths": [{
                "path": path, "pathType": "Prefix",
                "backend": {"service": {"name": service, "port": {"number": 80}}},
            }]}}],
        },
    })
}

fn manifests() -> String {
    let guarded = json!({
        "nginx.ingress.kubernetes.io/auth-url": format!("http://{SIGN_IN}/oauth2/auth"),
        "nginx.ingress.kubernetes.io/auth-signin":
            "http://$host/oauth2/start?rd=$escaped_request_uri",
        "nginx.ingress.kubernetes.io/auth-response-headers": "X-Auth-Request-User",
    });
    let mut all = services::manifests();
    all.extend([
        ingress("app", &guarded, "/", "one"),
        ingress("sign-in", &json!({}), "/oauth2", "sign-in"),
    ]);
    let documents = all.iter().map(Value::to_string);
    documents.collect::<Vec<_>>().join("\n---\n")
}

/// A user's browser, as far as it matters.
struct Browser {
    to: SocketAddr,
    cookie: String,
}

impl Browser {
    fn ask(&mut self, method: &str, target: &str, more: &str, body: &str) -> Answer {
        let cookie = &self.cookie;
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\ncookie: {cookie}\r\n{more}"
        );
        let answer = ask(self.to, &head, body).unwrap_or_else(|e| panic!("{target}: {e}"));
        for cookie in answer.header("set-cookie") {
            let pair = cookie.split(';').next().unwrap_or_default();
            if pair.starts_with("_oauth2_proxy=") {
                pair.clone_into(&mut self.cookie);
            }
        }
        answer
    }

    fn get(&mut self, target: &str) -> Answer {
        // What a client says of who it is does not count.
        self.ask("GET", target, "x-auth-request-user: root\r\n", "")
    }

    fn sign_in(&mut self, password: &str) -> Answer {
        let body = format!("username=ann&password={password}&rd=%2Fx%3Fy%3D1%26z");
        let length = body.len();
        let more = format!(
            "content-type: application/x-www-form-urlencoded\r\ncontent-length: {length}\r\n"
        );
        self.ask("POST", "/oauth2/sign_in", &more, &body)
    }
}

fn location(answer: &Answer) -> &str {
    assert_eq!(answer.status, 302, "{answer:?}");
    answer.header("location").next().unwrap_or_default()
}

#[test]
fn users_sign_in_by_oauth2_proxy() {
    let netns = Netns::new(&format!("oauth2-{}", std::process::id()));
    netns.ip("addr add 10.79.0.1/16 dev lo\n");
    netns.inside(|| {
        services::serve(&Certificates::new());
        let dir = TempDir::new().expect("a directory can be made");
        let _sign_in = SignIn::start(dir.path());
        let proxy = Proxy::start(PROXY, &manifests(), &[]);
        let mut browser = Browser {
            to: proxy.http,
            cookie: String::new(),
        };
        let start = "http://app.test/oauth2/start?rd=%2Fx%3Fy%3D1%26z";

        // Who has not signed in is sent there, and by it to the provider.
        assert_eq!(location(&browser.get("/x?y=1&z")), start);
        let asked = browser.get("/oauth2/start?rd=%2Fx%3Fy%3D1%26z");
        let provider = location(&asked);
        assert!(provider.starts_with("http://id.test/login?"), "{provider}");
        // Where to come back to, of the host that the user sees.
        let back = "redirect_uri=http%3A%2F%2Fapp.test%2Foauth2%2Fcallback";
        assert!(provider.contains(back), "{provider}");

        // Neither a wrong password nor a cookie of one's own lets in.
        let refused = browser.sign_in("wrong");
        assert!((400..500).contains(&refused.status), "{refused:?}");
        assert_eq!(location(&browser.get("/x?y=1&z")), start);
        browser.cookie = "_oauth2_proxy=forged|1796053397|forged=".to_owned();
        assert_eq!(location(&browser.get("/x?y=1&z")), start);

        // The password does, and the backend is told by whom it is asked.
        assert_eq!(location(&browser.sign_in("secret")), "/x?y=1&z");
        let answer = browser.get("/x?y=1&z");
        let seen = answer
            .seen()
            .unwrap_or_else(|| panic!("no backend answered: {answer:?}"));
        assert_eq!(
            (seen.backend.as_str(), seen.target.as_str()),
            ("one", "/x?y=1&z")
        );
        let user = seen.headers.get("x-auth-request-user");
        assert_eq!(user.map(String::as_str), Some("ann"));

        // Who signs out is out.
        location(&browser.get("/oauth2/sign_out?rd=%2F"));
        assert_eq!(location(&browser.get("/x?y=1&z")), start);
    });
}
