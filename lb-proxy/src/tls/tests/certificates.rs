use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::SerialNumber;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::{
    super::{SecretError, certificates::Loaded},
    authority::{Authority, days, params, secret},
};

#[test]
fn keys_of_every_kind() {
    let authority = Authority::new("Authority");
    for kind in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let issued = authority.issue_with(params(&["a.test"], "a"), kind);
        let loaded = Loaded::from_secret(&issued.secret()).unwrap();
        assert_eq!(loaded.key().cert.len(), 1);
    }
}

/// Keys of openssl 3.0.19: `openssl ecparam -genkey -name prime256v1`, which writes parameters
/// in front, and `openssl genrsa -traditional 2048`; certificates by `openssl req -x509` and,
/// without extensions, by `openssl x509 -req`.
#[test]
fn what_openssl_writes() {
    let sec1 = include_str!("../testdata/sec1.pem");
    let pkcs1 = include_str!("../testdata/pkcs1.pem");
    for pem in [sec1, pkcs1] {
        let loaded = Loaded::from_secret(&secret(&[("tls.crt", pem), ("tls.key", pem)])).unwrap();
        assert_eq!(loaded.facts().subject, "CN=a.test");
        assert_eq!(loaded.facts().names, ["a.test"]);
    }
    let mixed = secret(&[("tls.crt", sec1), ("tls.key", pkcs1)]);
    assert_eq!(
        Loaded::from_secret(&mixed).unwrap_err(),
        SecretError::Mismatch
    );
}

#[test]
fn what_it_says() {
    let authority = Authority::new("Authority");
    let mut wanted = params(
        &["a.test", "*.b.test", "192.0.2.1", "2001:db8::1"],
        "Common",
    );
    wanted.serial_number = Some(SerialNumber::from(123_456_789_u64));
    days(&mut wanted, -2, 30);
    let facts = Loaded::from_secret(&authority.issue(wanted).secret())
        .unwrap()
        .facts()
        .clone();
    assert_eq!(
        facts.names,
        ["a.test", "*.b.test", "192.0.2.1", "2001:db8::1"]
    );
    assert_eq!(facts.subject, "CN=Common");
    assert_eq!(facts.issuer, "CN=Authority");
    assert_eq!(facts.serial, "123456789");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let now = i64::try_from(now).unwrap();
    for (seen, days) in [(facts.not_before, -2), (facts.not_after, 30)] {
        assert!((seen - now - days * 24 * 3600).abs() < 60, "{seen}");
    }
    for (host, covered) in [
        ("a.test", true),
        ("A.Test", true),
        ("x.b.test", true),
        ("*.b.test", true),
        ("b.test", false),
        ("x.y.b.test", false),
        ("x.a.test", false),
        ("*.test", false),
        ("Common", false),
    ] {
        assert_eq!(facts.covers(host), covered, "{host}");
    }
    let common = authority.issue(params(&[], "only.test"));
    let common = Loaded::from_secret(&common.secret()).unwrap();
    assert!(common.facts().covers("only.test"));
}

#[test]
fn the_chain_stays_as_it_is() {
    let authority = Authority::new("Authority");
    let between = authority.below("Between");
    let issued = between.host(&["a.test"]);
    let chain = format!("# leaf\n{}\n{}{}", issued.chain, between.pem, authority.pem);
    let loaded = Loaded::from_secret(&secret(&[("tls.crt", &chain), ("tls.key", &issued.key)]));
    let want = [&issued.chain, &between.pem, &authority.pem];
    let want = want.map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap());
    assert_eq!(loaded.unwrap().key().cert, want);
}

#[test]
fn secrets_that_do_not_do() {
    let authority = Authority::new("Authority");
    let (own, other) = (authority.host(&["a.test"]), authority.host(&["b.test"]));
    let (crt, key) = (&own.chain[..], &own.key[..]);
    let cut = &crt[..crt.len() / 2];
    let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let junk_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let sealed =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (crt, key, want) in [
        ("", key, "it has no tls.crt"),
        (crt, "", "it has no tls.key"),
        (cut, key, "tls.crt is not PEM"),
        (key, key, "tls.crt has no certificate"),
        (junk, key, "certificate 1 of tls.crt cannot be read"),
        (crt, "nothing", "tls.key has no private key"),
        (crt, sealed, "tls.key has no private key"),
        (crt, junk_key, "tls.key cannot be used"),
        (crt, &other.key, "tls.key is not the key"),
    ] {
        let error = Loaded::from_secret(&secret(&[("tls.crt", crt), ("tls.key", key)]));
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with(want), "{error}");
    }
}

#[test]
fn one_for_hosts_without() {
    let loaded = Loaded::self_signed().unwrap();
    let facts = loaded.facts();
    // What getFakeHostSSLCert of ingress-nginx makes.
    assert_eq!(
        facts.subject,
        "CN=Kubernetes Ingress Controller Fake Certificate,O=Acme Co"
    );
    assert_eq!(facts.names, ["ingress.local"]);
    assert_eq!(facts.not_after - facts.not_before, 365 * 24 * 3600);
    assert_ne!(Loaded::self_signed().unwrap().facts().serial, facts.serial);
}
