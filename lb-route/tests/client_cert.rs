//! What requests are answered for what their connections have shown.

use http::StatusCode;
use lb_route::{
    client_cert::{Refusal, check, verdict},
    input::Name,
    request::{Certificate, Tls},
    settings::{ClientCert, VerifyClient},
};

fn demand(verify: VerifyClient, match_cn: Option<&str>) -> ClientCert {
    ClientCert {
        secret: Name::new("default", "ca"),
        verify,
        depth: 1,
        error_page: None,
        pass_to_upstream: false,
        match_cn: match_cn.map(|text| regex::bytes::Regex::new(text).unwrap()),
    }
}

fn certificate(trouble: Option<&str>) -> Certificate {
    Certificate {
        trouble: trouble.map(str::to_owned),
        is_of_unknown_issuer: trouble.is_some_and(|why| !why.contains("expired")),
        subject: "CN=client,O=Acme".into(),
        issuer: "CN=Authority".into(),
        pem: String::new(),
    }
}

/// As nginx 1.22.1 answered by each `ssl_verify_client`; and the condition for
/// `auth-tls-match-cn` in ingress-nginx's template.
#[test]
fn verdicts() {
    use VerifyClient::{Off, On, Optional, OptionalNoCa};
    let good = certificate(None);
    let unknown = certificate(Some("unable to verify the first certificate"));
    let own = certificate(Some("self-signed certificate"));
    let expired = certificate(Some("certificate has expired"));
    let (missing, bad) = (Some(Refusal::NoCertificate), Some(Refusal::BadCertificate));
    let other = Some(Refusal::Unauthorized);
    for (verify, match_cn, shown, want) in [
        (On, None, None, missing),
        (On, None, Some(&good), None),
        (On, None, Some(&unknown), bad),
        (On, None, Some(&expired), bad),
        (Off, None, None, None),
        (Off, None, Some(&expired), None),
        (Optional, None, None, None),
        (Optional, None, Some(&good), None),
        (Optional, None, Some(&unknown), bad),
        (Optional, None, Some(&expired), bad),
        (OptionalNoCa, None, None, None),
        (OptionalNoCa, None, Some(&good), None),
        (OptionalNoCa, None, Some(&unknown), None),
        (OptionalNoCa, None, Some(&own), None),
        (OptionalNoCa, None, Some(&expired), bad),
        (On, Some("CN=client"), Some(&good), None),
        (On, Some("^CN=(a|b)"), Some(&good), other),
        (On, Some("^CN=(a|b)"), Some(&unknown), bad),
        (On, Some("CN=client"), None, missing),
        (Optional, Some("CN=client"), None, other),
        (Off, Some("CN=client"), None, other),
    ] {
        let demand = demand(verify, match_cn);
        assert_eq!(
            verdict(&demand, shown),
            want,
            "{verify:?} {match_cn:?} {shown:?}"
        );
    }
    let status = |refusal: Refusal| refusal.status();
    assert_eq!(status(Refusal::NoCertificate), StatusCode::BAD_REQUEST);
    assert_eq!(status(Refusal::BadCertificate), StatusCode::BAD_REQUEST);
    assert_eq!(status(Refusal::Unauthorized), StatusCode::FORBIDDEN);
    assert_eq!(
        status(Refusal::Misdirected),
        StatusCode::MISDIRECTED_REQUEST
    );
}

#[test]
fn the_certificate_of_one_host_is_not_that_of_another() {
    use VerifyClient::{Off, On, Optional};
    let misdirected = Some(Refusal::Misdirected);
    let good = Some(certificate(None));
    for (server_name, shown, host, verify, want) in [
        (Some("a.test"), &good, "a.test", On, None),
        (Some("A.test"), &good, "a.test", On, None),
        (Some("b.test"), &good, "a.test", On, misdirected),
        (Some("b.test"), &None, "a.test", On, misdirected),
        (Some("b.test"), &None, "a.test", Optional, misdirected),
        (Some("b.test"), &good, "a.test", Off, None),
        // Without a name there was no host to show it to.
        (None, &None, "a.test", On, Some(Refusal::NoCertificate)),
        (None, &None, "a.test", Optional, None),
        (None, &good, "a.test", On, misdirected),
    ] {
        let tls = Tls {
            server_name: server_name.map(str::to_owned),
            certificate: shown.clone(),
            ..Tls::default()
        };
        let seen = check(Some(&demand(verify, None)), &tls, host);
        assert_eq!(seen, want, "{server_name:?} {host} {verify:?}");
        assert_eq!(check(None, &tls, host), None);
    }
}
