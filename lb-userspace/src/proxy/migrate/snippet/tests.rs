use proptest::prelude::*;

use super::*;

/// What a snippet of one directive becomes, as the report says it.
fn becomes(snippet: &str) -> (Place, String) {
    let all = advise(snippet);
    assert_eq!(all.len(), 1, "{snippet}: {all:?}");
    (all[0].advice.place, all[0].advice.sentence())
}

/// Directives, where the same is set, and what is said.
const CASES: &[(&str, Place, &str)] = &[
    (
        "more_set_headers \"X-Frame-Options: DENY\";",
        Place::Annotation,
        "custom-headers, which names a ConfigMap with X-Frame-Options: \"DENY\", and \
         X-Frame-Options in global-allowed-response-headers of the proxy's ConfigMap",
    ),
    (
        "more_set_headers -s 404 'X-A: b';",
        Place::Annotation,
        "custom-headers, which names a ConfigMap with X-A: \"b\", and X-A in \
         global-allowed-response-headers of the proxy's ConfigMap; then it counts for every status \
         and type",
    ),
    (
        "more_set_headers 'X-Id: $request_id';",
        Place::ConfigMap,
        "in the ConfigMap: add-headers, which names a ConfigMap with X-Id: \"$request_id\"; it counts \
         for all Ingresses",
    ),
    (
        "more_set_headers 'Strict-Transport-Security: max-age=600; includeSubDomains';",
        Place::ConfigMap,
        "in the ConfigMap: hsts-max-age: \"600\", hsts-include-subdomains: \"true\", hsts-preload: \
         \"false\"; it counts for all Ingresses, over HTTPS",
    ),
    (
        "more_clear_headers X-Powered-By Server;",
        Place::ConfigMap,
        "in the ConfigMap: hide-headers: \"X-Powered-By,Server\"; it counts for all Ingresses; what \
         is named there already stays",
    ),
    (
        "more_set_headers 'Server:';",
        Place::Nowhere,
        "remove it: it is not sent, but where server-tokens says so",
    ),
    (
        "add_header Access-Control-Allow-Origin https://a.example always;",
        Place::Annotation,
        "enable-cors: \"true\", cors-allow-origin: \"https://a.example\"; other headers of CORS \
         have defaults then",
    ),
    (
        "add_header X-A b;",
        Place::Annotation,
        "custom-headers, which names a ConfigMap with X-A: \"b\", and X-A in \
         global-allowed-response-headers of the proxy's ConfigMap; nginx leaves it out of errors, \
         custom-headers does not",
    ),
    (
        "proxy_set_header Host internal.example;",
        Place::Annotation,
        "upstream-vhost: \"internal.example\"",
    ),
    (
        "proxy_set_header Upgrade $http_upgrade;",
        Place::Nowhere,
        "remove it: the backend gets it in any case",
    ),
    (
        "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
        Place::ConfigMap,
        "in the ConfigMap: use-forwarded-headers: \"true\", compute-full-forwarded-for: \"true\"; \
         for proxies in front that are to be believed; proxy-real-ip-cidr names them",
    ),
    (
        "proxy_set_header X-Team shop;",
        Place::ConfigMap,
        "in the ConfigMap: proxy-set-headers, which names a ConfigMap with X-Team: \"shop\"; it \
         counts for all Ingresses",
    ),
    (
        "proxy_set_header X-Method $request_method;",
        Place::ConfigMap,
        "in the ConfigMap: proxy-set-headers, which names a ConfigMap with X-Method: \
         \"$request_method\"; it counts for all Ingresses",
    ),
    (
        "proxy_set_header X-Country $geoip_country_code;",
        Place::Backend,
        "let the backend do it: there is no variable $geoip_country_code",
    ),
    (
        "return 301 https://new.example/;",
        Place::Annotation,
        "permanent-redirect: \"https://new.example/\"",
    ),
    (
        "return 307 https://new.example/a;",
        Place::Annotation,
        "temporal-redirect: \"https://new.example/a\", temporal-redirect-code: \"307\"",
    ),
    (
        "return 301 https://$host$request_uri;",
        Place::Annotation,
        "force-ssl-redirect: \"true\"",
    ),
    (
        "return 403;",
        Place::Annotation,
        "denylist-source-range: \"0.0.0.0/0,::/0\"",
    ),
    (
        "return 404;",
        Place::Rules,
        "leave the path out: what no rule has gets 404",
    ),
    (
        "return 200 ok;",
        Place::Backend,
        "let the backend do it: answers of the proxy's own are redirects and errors",
    ),
    (
        "proxy_cookie_domain internal.example shop.example;",
        Place::Annotation,
        "proxy-cookie-domain: \"internal.example shop.example\"",
    ),
    (
        "proxy_cookie_path /app /;",
        Place::Annotation,
        "proxy-cookie-path: \"/app /\"",
    ),
    (
        "proxy_redirect http://internal/ /;",
        Place::Annotation,
        "proxy-redirect-from: \"http://internal/\", proxy-redirect-to: \"/\"",
    ),
    (
        "rewrite ^/old(/|$)(.*) /new/$2 break;",
        Place::Annotation,
        "use-regex: \"true\", rewrite-target: \"/new/$2\"; on an Ingress with the path \
         /old(/|$)(.*) of pathType ImplementationSpecific",
    ),
    (
        "rewrite ^/old https://new.example/ permanent;",
        Place::Annotation,
        "permanent-redirect: \"https://new.example/\"; on an Ingress with the path /old of pathType \
         ImplementationSpecific",
    ),
    (
        "proxy_read_timeout 2m;",
        Place::Annotation,
        "proxy-read-timeout: \"120\"",
    ),
    (
        "client_max_body_size 50m;",
        Place::Annotation,
        "proxy-body-size: \"50m\"",
    ),
    ("limit_rate 100k;", Place::Annotation, "limit-rate: \"100\""),
    (
        "allow 10.0.0.0/8;",
        Place::Annotation,
        "allowlist-source-range: \"10.0.0.0/8\"; all that are allowed, with commas; others get 403",
    ),
    (
        "underscores_in_headers on;",
        Place::ConfigMap,
        "in the ConfigMap: enable-underscores-in-headers: \"true\"; it counts for all Ingresses",
    ),
    (
        "proxy_buffers 8 16k;",
        Place::Nowhere,
        "remove it: answers stream through the proxy",
    ),
    (
        "charset utf-8;",
        Place::Backend,
        "let the backend do it: no annotation and no key of the ConfigMap does it",
    ),
    (
        "proxy_buffer_size 16k;",
        Place::Nowhere,
        "remove it: answers stream through the proxy",
    ),
    (
        "sub_filter a b;",
        Place::Backend,
        "let the backend do it: bodies are not changed",
    ),
    (
        "if ($request_method = OPTIONS) { add_header X y; return 204; }",
        Place::Annotation,
        "enable-cors: \"true\"; preflights are answered, by what cors-allow-* say",
    ),
    (
        "if ($arg_debug) { return 301 https://a.example/; }",
        Place::Backend,
        "let the backend do it: requests are not told apart by conditions",
    ),
    (
        "error_page 404 503 /error.html;",
        Place::Annotation,
        "custom-http-errors: \"404,503\"; default-backend names the Service that answers them",
    ),
    (
        "auth_request /auth;",
        Place::Annotation,
        "auth-url, which has the server's address, and auth-response-headers",
    ),
];

#[test]
fn each_idiom_has_its_setting() {
    for (snippet, place, sentence) in CASES {
        assert_eq!(
            becomes(snippet),
            (*place, (*sentence).to_owned()),
            "{snippet}"
        );
    }
}

#[test]
fn what_a_setting_does_not_take_is_not_advised() {
    for (snippet, why) in [
        // A `;` in a value is no character of annotations.
        ("proxy_cookie_path / \"/; Secure\";", "proxy-cookie-path"),
        // Redirects have no groups, and no variables.
        (
            "rewrite ^/a/(.*) https://b.example/$1 permanent;",
            "permanent-redirect",
        ),
        ("return 302 https://a.example$uri;", "temporal-redirect"),
        ("rewrite ^/(.*) /index.php?q=$1 last;", "rewrite-target"),
        ("proxy_set_header Connection $x;", "connection-proxy-header"),
        ("ssl_protocols TLSv1;", "ssl-protocols"),
        ("more_clear_headers \"X-*\";", "hide-headers"),
    ] {
        let (place, sentence) = becomes(snippet);
        assert_eq!(place, Place::Backend, "{snippet}: {sentence}");
        assert!(sentence.contains(why), "{snippet}: {sentence}");
        assert!(sentence.contains("it has to be"), "{snippet}: {sentence}");
    }
}

#[test]
fn a_location_is_an_ingress_of_its_own_and_its_lines_follow() {
    let text = "location = /x {\n  return 301 https://a.example/;\n}\nserver_tokens off;";
    let all = advise(text);
    let lines: Vec<_> = all
        .iter()
        .map(|line| (line.line, line.advice.place))
        .collect();
    let expected = [
        (1, Place::Rules),
        (2, Place::Annotation),
        (4, Place::ConfigMap),
    ];
    assert_eq!(lines, expected);
    assert_eq!(
        all[0].advice.sentence(),
        "an Ingress of its own with the path /x of pathType Exact, and the annotations below"
    );
    assert_eq!(all[0].text, "location = /x { … }");
}

/// All directives that are known, without and with arguments of any kind.
fn snippets() -> impl Strategy<Value = String> {
    let names: Vec<&str> = CASES
        .iter()
        .filter_map(|(text, ..)| text.split(' ').next())
        .collect();
    let words = "(\\$?[a-z0-9/.:*-]{0,8} ?){0,4}";
    let one = (prop::sample::select(names), words, "[;{}]");
    let one = one.prop_map(|(name, words, end)| format!("{name} {words}{end}\n"));
    prop::collection::vec(one, 0..6).prop_map(|all| all.concat())
}

proptest! {
    #[test]
    fn what_is_advised_is_taken(snippet in snippets()) {
        for line in advise(&snippet) {
            prop_assert_eq!(line.advice.clone().checked(), line.advice);
        }
    }
}
