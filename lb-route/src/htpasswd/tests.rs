use super::*;

/// Hashes, and the passwords that htpasswd 2.4.71 (`-nbB -C 5`, `-nbm`, `-nbs`, `-nbd`, `-nb2`,
/// `-nb5`), `openssl passwd` 3.0 (`-1`, `-apr1`, `-5`, `-6`) and crypt(3) of libxcrypt 4.4 made
/// them of; `{SSHA}` is of Perl's Digest::SHA.
const HASHES: &[(&str, &str)] = &[
    (
        "$2y$05$ZQvjeTwqBFUKJQKOdEC8/eSEff0Psfn5MVZh07h/FWHzOvew3mgHS",
        "open sesame",
    ),
    (
        "$2a$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy",
        "open sesame",
    ),
    (
        "$2b$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy",
        "open sesame",
    ),
    ("$apr1$1kyokw7q$zTtZw0iLp.2y4NejUipjz/", "open sesame"),
    (
        "$apr1$abcdefgh$ptvj49q2LjgR2jIs01oCq0",
        "pässwörd:with:colons",
    ),
    ("$1$8sFt66rZ$IlVO4qRuUPixOqw2VDf3n/", "open sesame"),
    ("$1$$qRPK7m23GJusamGpoGLby/", ""),
    (
        "$1$s$/qU56AV814za6ztngbplW.",
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    ),
    (
        "$5$saltsaltsaltsalt$EHLyHXQ/sD5YeLFki3vi2iwPTWCvemZWpD2ZcVxNSm.",
        "open sesame",
    ),
    (
        "$5$rounds=1000$abc$YfUpbOb1DthsfsHxCQrfwTuwysfDsVaL9/g52LvETD8",
        "open sesame",
    ),
    (
        "$5$nkeHHYOLj37kU8UD$1TuZe8dXtBA/yBj03ZhV3Q9TlKS30PqTHv6QvluctV2",
        "open sesame",
    ),
    (
        "$6$saltsaltsaltsalt$bFDPCeim1lAoNHIVuV/pMLnUrlFnTeup0Y2rY3Qzhrpc5jt4juzyyDqJOnx7GDYBMXDgBtUoroCXtDWBR9jZX.",
        "open sesame",
    ),
    (
        "$6$rounds=1400$anotherlongsalts$2l0jObIiaejfNiPOnS8UkCZybkbfORkEQ5QJcjK0ZKxrYceQQLT7mW1pzTjpmzy9m5pFl.PGA2y7rXxFKs0Zg.",
        "open sesame",
    ),
    ("{SHA}W8r/fyL/UzygmbNAjq2HbA67qac=", "open sesame"),
    ("{SSHA}QI9+SvRfrQ9TrJHhf2c7GAElLdFzYWx0IQ==", "open sesame"),
    ("{PLAIN}open sesame", "open sesame"),
    ("{PLAIN}", ""),
    ("Aj.B4jGYg.c9Y", "open ses"),
    ("zZRACt9r1PC6E", "open ses"),
    ("abNANd1rDfiNc", "secret"),
    ("abmF1QH4PEr.E", ""),
    ("./vSKP6OY7B7E", "äö"),
    ("9qWM5J/sNpgd2", "x"),
];

fn users(file: &str) -> Users {
    let (users, problems) = Users::from_file(file.as_bytes());
    assert_eq!(problems, []);
    users
}

#[test]
fn each_kind_of_hash_knows_its_password_only() {
    for (hash, password) in HASHES {
        let users = users(&format!("me:{hash}"));
        assert!(users.check("me", password.as_bytes()), "{hash}");
        let wrong = [
            "wrong".to_owned(),
            format!("{password}\0"),
            format!("x{password}"),
            password.to_uppercase() + "?",
        ];
        for wrong in wrong {
            assert!(!users.check("me", wrong.as_bytes()), "{hash} {wrong}");
        }
        assert!(!users.check("you", password.as_bytes()), "{hash}");
    }
}

#[test]
fn long_passwords_are_cut_where_crypt_cuts_them() {
    let traditional = users("me:UDhYCdi.vmzLU");
    assert!(traditional.check("me", b"abcdefghXX") && traditional.check("me", b"abcdefgh"));
    let bcrypt = users("me:$2y$04$abcdefghijklmnopqrstuuBzzIgyKkz7xMWYSzkIjUSnxEQFQ0WNe");
    assert!(bcrypt.check("me", &[b'a'; 80]) && bcrypt.check("me", &[b'a'; 72]));
    assert!(!bcrypt.check("me", &[b'a'; 71]));
    let plain = users(&format!("me:{{PLAIN}}{}", "a".repeat(300)));
    assert!(!plain.check("me", &[b'a'; 300]));
}

#[test]
fn files_have_comments_empty_lines_and_other_ends_of_lines() {
    let file = "# people\r\n\r\n\nme:{PLAIN}one\r\nyou:{PLAIN}two:You, Yourself\n#x:{PLAIN}x\nlast:{PLAIN}a b";
    let users = users(file);
    assert_eq!(users.len(), 3);
    for (user, password) in [("me", "one"), ("you", "two"), ("last", "a b")] {
        assert!(users.check(user, password.as_bytes()), "{user}");
    }
    assert!(!users.check("#x", b"x"));
}

#[test]
fn entries_that_do_not_count_are_told_by_line_and_the_rest_counts() {
    let file = b"me:{PLAIN}one\nnobody\n:{PLAIN}x\nme:{PLAIN}two\nyou:what?\nold:$2y$31$ZQvjeTwqBFUKJQKOdEC8/eSEff0Psfn5MVZh07h/FWHzOvew3mgHS\n\xff:{PLAIN}x\nlast:{PLAIN}three";
    let (users, problems) = Users::from_file(file);
    let told: Vec<_> = problems.iter().map(|p| (&p.place, p.trouble)).collect();
    let line = [2, 3, 4, 5, 6, 7].map(Place::Line);
    let troubles = [
        Trouble::Colon,
        Trouble::User,
        Trouble::Twice,
        Trouble::Unknown,
        Trouble::Costly,
        Trouble::Text,
    ];
    assert_eq!(told, line.iter().zip(troubles).collect::<Vec<_>>());
    assert_eq!(users.len(), 2);
    assert!(users.check("me", b"one") && users.check("last", b"three"));
    assert!(!users.check("me", b"two") && !users.check("you", b"what?"));
}

#[test]
fn hashes_that_are_none_are_refused() {
    for hash in [
        "",
        "secret",
        "abNANd1rDfiN",
        "abNANd1rDfiNcc",
        "abNANd1rDfiN!",
        "abNANd1rDfiNd",
        "$9$salt$hash",
        "$apr1$toolongsalt$zTtZw0iLp.2y4NejUipjz/",
        "$apr1$1kyokw7q$zTtZw0iLp.2y4NejUipjz",
        "$apr1$1kyokw7q",
        "$5$salt$short",
        "$5$rounds=999$abc$YfUpbOb1DthsfsHxCQrfwTuwysfDsVaL9/g52LvETD8",
        "$5$rounds=many$abc$YfUpbOb1DthsfsHxCQrfwTuwysfDsVaL9/g52LvETD8",
        "$2y$05$ZQvjeTwqBFUKJQKOdEC8/eSEff0Psfn5MVZh07h/FWHzOvew3mg",
        "$2y$03$ZQvjeTwqBFUKJQKOdEC8/eSEff0Psfn5MVZh07h/FWHzOvew3mgHS",
        "{SHA}W8r/",
        "{SHA}QI9+SvRfrQ9TrJHhf2c7GAElLdFzYWx0IQ==",
        "{SSHA}W8r/",
        "{sha}W8r/fyL/UzygmbNAjq2HbA67qac=",
        "{MD5}x",
    ] {
        let (users, problems) = Users::from_map([("me", hash.as_bytes())]);
        assert!(users.is_empty(), "{hash}");
        let expected = Problem {
            place: Place::Key("me".into()),
            trouble: Trouble::Unknown,
        };
        assert_eq!(problems, [expected], "{hash}");
    }
    let rounds = "$6$rounds=999999999$anotherlongsalts$2l0jObIiaejfNiPOnS8UkCZybkbfORkEQ5QJcjK0ZKxrYceQQLT7mW1pzTjpmzy9m5pFl.PGA2y7rXxFKs0Zg.";
    assert_eq!(rounds.parse::<Hash>(), Err(Trouble::Costly));
}

#[test]
fn keys_of_a_secret_are_users() {
    let map: [(&str, &[u8]); 3] = [
        ("me", b"{PLAIN}one\n"),
        ("you", b"{PLAIN}two"),
        ("bad", b"\xff"),
    ];
    let (users, problems) = Users::from_map(map);
    assert!(users.check("me", b"one") && users.check("you", b"two"));
    assert_eq!(problems.len(), 1);
    assert_eq!(
        problems[0].to_string(),
        "key bad: it is not UTF-8; write it anew with htpasswd"
    );
}

#[test]
fn users_are_slow_by_their_hash_and_strangers_as_the_slowest() {
    let file: String = HASHES
        .iter()
        .map(|(hash, _)| format!("{hash}:{hash}\n").replacen(':', "!:", 1))
        .collect();
    let all = users(&file);
    for (hash, _) in HASHES {
        let slow = ["$2", "$5$", "$6$"]
            .iter()
            .any(|kind| hash.starts_with(kind));
        assert_eq!(all.is_slow(&format!("{hash}!")), slow, "{hash}");
    }
    assert!(all.is_slow("stranger"));
    assert!(!users("me:{PLAIN}x").is_slow("stranger"));
    assert!(!Users::default().is_slow("stranger") && !Users::default().check("", b""));
}

#[test]
fn nothing_prints_a_hash() {
    let printed = format!("{:?}", users("me:{PLAIN}hush\nyou:abNANd1rDfiNc"));
    assert!(
        printed.contains("me") && !printed.contains("hush"),
        "{printed}"
    );
    assert!(!printed.contains("NANd1"), "{printed}");
}

#[test]
fn credentials_are_read_from_their_header() {
    // The first two are examples of RFC 7617, section 2 and 2.1.
    for (header, expected) in [
        (
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            Some(("Aladdin", "open sesame")),
        ),
        ("Basic dGVzdDoxMjPCow==", Some(("test", "123£"))),
        ("basic dGVzdDoxMjPCow", Some(("test", "123£"))),
        ("BASIC   dGVzdDoxMjPCow==  ", Some(("test", "123£"))),
        ("Basic YTpiOmM=", Some(("a", "b:c"))),
        ("Basic YTo=", Some(("a", ""))),
        ("Basic OmI=", None),
        ("Basic YQ==", None),
        ("Basic /zpi", None),
        ("Basic %%%%", None),
        ("Basic ", None),
        ("Basic", None),
        ("BasicQWxhZGRpbjpvcGVuIHNlc2FtZQ==", None),
        ("Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==", None),
        ("", None),
    ] {
        let read = credentials(&HeaderValue::from_static(header));
        let expected =
            expected.map(|(user, password)| (user.to_owned(), password.as_bytes().to_vec()));
        assert_eq!(read, expected, "{header}");
    }
    let latin = credentials(&HeaderValue::from_static("Basic YTrkCg=="));
    assert_eq!(latin, Some(("a".to_owned(), b"\xe4\n".to_vec())));
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(file in proptest::collection::vec(0_u8.., 0..200)) {
        let (users, _) = Users::from_file(&file);
        proptest::prop_assert!(users.len() <= file.iter().filter(|b| **b == b':').count());
        if let Ok(value) = HeaderValue::from_bytes(&file) {
            credentials(&value);
        }
    }

    #[test]
    fn any_text_is_a_hash_or_none(kind in "(\\$(2[aby]|1|5|6|apr1)\\$|\\{SS?HA\\}|)", rest in "[ -~é]{0,70}") {
        let text = kind + &rest;
        if let Ok(hash) = text.parse::<Hash>() {
            proptest::prop_assert!(hash.cost() > 100_000 || !hash.is_of(b"?"));
        }
    }
}
