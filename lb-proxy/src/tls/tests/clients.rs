use std::time::Duration;

use lb_route::client_cert::verify_variable;
use rcgen::{ExtendedKeyUsagePurpose, IsCa, SerialNumber};
use rustls::pki_types::UnixTime;

use super::{
    super::{
        clients::ClientAuth,
        hosts::{Demand, Options, Shows},
    },
    authority::{Authority, Issued, days, params, secret},
    server::{BOTH, Server, client_with, demanding, der, table},
};

/// A certificate of a client with a serial number.
fn own(authority: &Authority, serial: u64) -> Issued {
    let mut params = params(&[], "client");
    params.serial_number = Some(SerialNumber::from(serial));
    authority.issue(params)
}

/// Shows certificates to a host, and compares what it records: what `$ssl_client_verify` is in
/// nginx 1.22.1 with OpenSSL 3.0.19 and `ssl_verify_client optional_no_ca`, or was in its log.
async fn records(authority: &Authority, cases: &[(&str, Option<Issued>, &str)]) {
    let server = authority.host(&["a.test"]);
    let ca = secret(&[("ca.crt", &authority.pem)]);
    let demand = Demand {
        secret: Some(ca),
        depth: 1,
    };
    let hosts = vec![demanding("a.test", Shows::Secret(server.secret()), demand)];
    let server = Server::new(table(&Options::default(), hosts), None).await;
    for (what, shown, want) in cases {
        for version in BOTH {
            let config = client_with(authority, &[version], shown.as_ref(), &[]);
            let heard = server.ask("a.test", &config).await.unwrap();
            let want = match shown {
                Some(_) => format!("|{want}|CN=client"),
                None => format!("|{want}|"),
            };
            assert!(heard.text.ends_with(&want), "{what}: {}", heard.text);
        }
    }
}

#[tokio::test]
async fn handshakes_record_who_vouches() {
    let authority = Authority::new("Authority");
    let other = Authority::new("Other");
    let between = authority.below("Between");
    let deep = between.below("Deep");
    let chained = |issuer: &Authority, above: &[&Authority]| {
        let issued = own(issuer, 5);
        let above: String = above.iter().map(|authority| &authority.pem[..]).collect();
        Some(Issued {
            chain: issued.chain + &above,
            ..issued
        })
    };
    let in_chain = "FAILED:self-signed certificate in certificate chain";
    let cases = [
        ("none", None, "NONE"),
        ("good", chained(&authority, &[]), "SUCCESS"),
        ("one between", chained(&between, &[&between]), "SUCCESS"),
        (
            "two between",
            chained(&deep, &[&deep, &between]),
            "FAILED:unable to get local issuer certificate",
        ),
        (
            "of another",
            chained(&other, &[]),
            "FAILED:unable to verify the first certificate",
        ),
        (
            "of another, which it shows",
            chained(&other, &[&other]),
            in_chain,
        ),
        (
            "between is missing",
            chained(&deep, &[&deep]),
            "FAILED:unable to get local issuer certificate",
        ),
    ];
    records(&authority, &cases).await;
}

#[tokio::test]
async fn handshakes_record_what_is_wrong() {
    let authority = Authority::new("Authority");
    let with = |change: &dyn Fn(&mut rcgen::CertificateParams)| {
        let mut params = params(&[], "client");
        change(&mut params);
        Some(authority.issue(params))
    };
    let of_server = with(&|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let may_sign = with(&|params| {
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    let cases = [
        (
            "expired",
            with(&|params| days(params, -9, -1)),
            "FAILED:certificate has expired",
        ),
        (
            "not yet",
            with(&|params| days(params, 1, 9)),
            "FAILED:certificate is not yet valid",
        ),
        (
            "of a server",
            of_server,
            "FAILED:unsuitable certificate purpose",
        ),
        (
            "without usages",
            with(&|params| params.extended_key_usages.clear()),
            "SUCCESS",
        ),
        // As OpenSSL takes it.
        ("that may sign", may_sign, "SUCCESS"),
    ];
    records(&authority, &cases).await;
}

/// A client that shows a certificate without its key is no client.
#[tokio::test]
async fn a_certificate_without_its_key() {
    let authority = Authority::new("Authority");
    let server = authority.host(&["a.test"]);
    let ca = secret(&[("ca.crt", &authority.pem)]);
    let demand = Demand {
        secret: Some(ca),
        depth: 1,
    };
    let hosts = vec![demanding("a.test", Shows::Secret(server.secret()), demand)];
    let server = Server::new(table(&Options::default(), hosts), None).await;
    let stolen = own(&authority, 1);
    let thief = Issued {
        chain: stolen.chain,
        key: own(&authority, 2).key,
    };
    for version in BOTH {
        let config = client_with(&authority, &[version], None, &[]);
        let mut config = config.as_ref().clone();
        config.client_auth_cert_resolver = super::upstream::shows_unchecked(&thief);
        let config = std::sync::Arc::new(config);
        server.ask("a.test", &config).await.unwrap_err();
    }
    assert_eq!(server.acceptor.established(), 0);
}

#[test]
fn revoked_certificates() {
    let authority = Authority::new("Authority");
    let between = authority.below("Between");
    let (revoked, good) = (own(&authority, 7), own(&authority, 8));
    let indirect = own(&between, 9);
    let indirect = Issued {
        chain: indirect.chain + &between.pem,
        ..indirect
    };
    let list = authority.revoke(&[7], 1);
    let both = list.clone() + &between.revoke(&[], 1);
    let second = list.clone() + &between.revoke(&[9], 1);
    let stale = authority.revoke(&[], -1);
    let forged = Authority::new("Authority").revoke(&[8], 1);
    for (what, list, shown, want) in [
        ("in the list", &list, &revoked, "FAILED:certificate revoked"),
        ("not in the list", &list, &good, "SUCCESS"),
        (
            "no list of what is between",
            &list,
            &indirect,
            "FAILED:unable to get certificate CRL",
        ),
        ("both lists", &both, &indirect, "SUCCESS"),
        (
            "in the second list",
            &second,
            &indirect,
            "FAILED:certificate revoked",
        ),
        ("an old list", &stale, &good, "FAILED:CRL has expired"),
    ] {
        let data = secret(&[("ca.crt", &authority.pem), ("ca.crl", list)]);
        let auth = ClientAuth::read(&data, 1).unwrap();
        let certificate = auth.certificate(&der(shown), UnixTime::now());
        assert_eq!(verify_variable(certificate.as_ref()), want, "{what}");
    }
    let data = secret(&[("ca.crt", &authority.pem), ("ca.crl", &forged)]);
    let auth = ClientAuth::read(&data, 1).unwrap();
    let certificate = auth.certificate(&der(&good), UnixTime::now()).unwrap();
    assert!(certificate.trouble.is_some());
}

/// A certificate of a client by `openssl x509 -req` (3.0.19) without an extension file, as
/// guides to ingress-nginx make it: of version 1. `openssl verify -CAfile ca.crt` says OK.
#[test]
fn certificates_of_version_1() {
    let ca = include_str!("../testdata/v1-ca.pem");
    let client = include_str!("../testdata/v1-client.pem");
    let crl = include_str!("../testdata/v1-crl.pem");
    let shown = der(&Issued {
        chain: client.into(),
        key: String::new(),
    });
    let now = UnixTime::now();
    let verify = |entries: &[(&str, &str)], now| {
        let auth = ClientAuth::read(&secret(entries), 1).unwrap();
        let certificate = auth.certificate(&shown, now);
        verify_variable(certificate.as_ref()).into_owned()
    };
    assert_eq!(verify(&[("ca.crt", ca)], now), "SUCCESS");
    // Itself among the authorities.
    assert_eq!(
        verify(&[("ca.crt", &format!("{ca}{client}"))], now),
        "SUCCESS"
    );
    let other = Authority::new("CA").pem;
    let unknown = "FAILED:unable to verify the first certificate";
    assert_eq!(verify(&[("ca.crt", &other)], now), unknown);
    let early = UnixTime::since_unix_epoch(Duration::from_secs(1_000_000_000));
    assert_eq!(
        verify(&[("ca.crt", ca)], early),
        "FAILED:certificate is not yet valid"
    );
    let late = UnixTime::since_unix_epoch(Duration::from_secs(9_000_000_000));
    assert_eq!(
        verify(&[("ca.crt", ca)], late),
        "FAILED:certificate has expired"
    );
    let revoked = verify(&[("ca.crt", ca), ("ca.crl", crl)], now);
    assert_eq!(revoked, "FAILED:certificate revoked");
    let other = Authority::new("Other").revoke(&[], 1);
    let none = verify(&[("ca.crt", ca), ("ca.crl", &other)], now);
    assert_eq!(none, "FAILED:unable to get certificate CRL");
}

/// Certificates that may sign, which webpki does not look at further.
#[test]
fn certificates_that_may_sign() {
    let plain = Authority::new("Authority");
    let limited = Authority::with("Authority", |params| {
        params.name_constraints = Some(rcgen::NameConstraints {
            permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("a.test".into())],
            excluded_subtrees: Vec::new(),
        });
    });
    let none: &dyn Fn(&mut rcgen::CertificateParams) = &|_| {};
    let only_signs: &dyn Fn(&mut _) = &|params: &mut rcgen::CertificateParams| {
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    };
    let critical: &dyn Fn(&mut _) = &|params: &mut rcgen::CertificateParams| {
        let mut odd = rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        odd.set_criticality(true);
        params.custom_extensions = vec![odd];
    };
    for (what, authority, change, want) in [
        ("good", &plain, none, "SUCCESS"),
        (
            "limits",
            &limited,
            none,
            "FAILED:permitted subtree violation",
        ),
        (
            "key usage",
            &plain,
            only_signs,
            "FAILED:unsuitable certificate purpose",
        ),
        (
            "critical",
            &plain,
            critical,
            "FAILED:unhandled critical extension",
        ),
    ] {
        let mut params = params(&["b.test"], "client");
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        change(&mut params);
        let issued = authority.issue(params);
        let auth = ClientAuth::read(&secret(&[("ca.crt", &authority.pem)]), 1).unwrap();
        let certificate = auth.certificate(&der(&issued), UnixTime::now());
        assert_eq!(verify_variable(certificate.as_ref()), want, "{what}");
    }
}

#[test]
fn what_requests_learn() {
    let authority = Authority::new("Authority");
    let issued = own(&authority, 1);
    let auth = ClientAuth::read(&secret(&[("ca.crt", &authority.pem)]), 1).unwrap();
    let certificate = auth.certificate(&der(&issued), UnixTime::now()).unwrap();
    assert_eq!(certificate.issuer, "CN=Authority");
    // rcgen writes it with the other end of line.
    assert_eq!(certificate.pem, issued.chain.replace("\r\n", "\n"));
    assert!(auth.certificate(&[], UnixTime::now()).is_none());
}
