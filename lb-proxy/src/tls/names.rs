//! Distinguished names as OpenSSL writes them with `-nameopt RFC2253`, and so nginx in
//! `$ssl_client_s_dn`.

use std::fmt::Write as _;

use x509_parser::{
    asn1_rs::{Any, Tag, ToDer as _},
    x509::{AttributeTypeAndValue, X509Name},
};

/// OpenSSL's short names of attributes (crypto/objects/objects.txt); one that is not here is
/// written by its number.
const SHORT: [(&str, &str); 29] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.13", "description"),
    ("2.5.4.15", "businessCategory"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.20", "telephoneNumber"),
    ("2.5.4.41", "name"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "initials"),
    ("2.5.4.44", "generationQualifier"),
    ("2.5.4.45", "x500UniqueIdentifier"),
    ("2.5.4.46", "dnQualifier"),
    ("2.5.4.65", "pseudonym"),
    ("2.5.4.97", "organizationIdentifier"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.3", "mail"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("1.3.6.1.4.1.311.60.2.1.1", "jurisdictionL"),
    ("1.3.6.1.4.1.311.60.2.1.2", "jurisdictionST"),
    ("1.3.6.1.4.1.311.60.2.1.3", "jurisdictionC"),
];

/// A name, its last part first.
pub(super) fn rfc2253(name: &X509Name<'_>) -> String {
    let mut out = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for (index, part) in parts.iter().rev().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let attributes: Vec<_> = part.iter().collect();
        for (index, attribute) in attributes.iter().rev().enumerate() {
            if index > 0 {
                out.push('+');
            }
            write_attribute(&mut out, attribute);
        }
    }
    out
}

fn write_attribute(out: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let number = attribute.attr_type().to_id_string();
    let short = SHORT.iter().find(|(known, _)| *known == number);
    out.push_str(short.map_or(&number, |(_, short)| short));
    out.push('=');
    let text = text(attribute.attr_value());
    match text.filter(|_| short.is_some()) {
        Some(text) => write_escaped(out, &text),
        None => write_dumped(out, attribute.attr_value()),
    }
}

/// The value of a type of text, in UTF-8.
fn text(value: &Any<'_>) -> Option<String> {
    let bytes = value.data;
    match value.tag() {
        Tag::Utf8String => Some(String::from_utf8_lossy(bytes).into_owned()),
        // Latin 1, as OpenSSL takes them.
        Tag::PrintableString
        | Tag::Ia5String
        | Tag::NumericString
        | Tag::TeletexString
        | Tag::VisibleString => Some(bytes.iter().map(|byte| char::from(*byte)).collect()),
        Tag::BmpString => {
            let units = bytes
                .chunks_exact(2)
                .map(|two| u16::from_be_bytes([two[0], two[1]]));
            let units: Vec<_> = units.collect();
            Some(String::from_utf16_lossy(&units))
        }
        Tag::UniversalString => {
            let chars = bytes.chunks_exact(4);
            let chars = chars.map(|four| u32::from_be_bytes([four[0], four[1], four[2], four[3]]));
            Some(
                chars
                    .map(|c| char::from_u32(c).unwrap_or(char::REPLACEMENT_CHARACTER))
                    .collect(),
            )
        }
        _ => None,
    }
}

/// RFC 2253, section 2.4, and each byte that is no printable ASCII as `\XX`.
fn write_escaped(out: &mut String, text: &str) {
    let last = text.len().saturating_sub(1);
    for (at, byte) in text.bytes().enumerate() {
        let special = match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => true,
            b'#' => at == 0,
            b' ' => at == 0 || at == last,
            _ => false,
        };
        match byte {
            0x20..=0x7e => {
                if special {
                    out.push('\\');
                }
                out.push(byte.into());
            }
            // A String takes everything.
            _ => drop(write!(out, "\\{byte:02X}")),
        }
    }
}

/// `#`, and the encoding in hexadecimal digits.
fn write_dumped(out: &mut String, value: &Any<'_>) {
    out.push('#');
    // It was read from an encoding.
    for byte in value.to_der_vec().unwrap_or_default() {
        // A String takes everything.
        let _ = write!(out, "{byte:02X}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(pem: &str) -> String {
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        rfc2253(pem.parse_x509().unwrap().subject())
    }

    /// Certificates made by openssl 3.0.19, and what `openssl x509 -noout -subject -nameopt
    /// RFC2253` prints of them.
    #[test]
    fn as_openssl_prints_them() {
        let every = include_str!("testdata/every-attribute.pem");
        assert_eq!(
            subject(every),
            r#"CN=\E6\97\A5,jurisdictionC=US,organizationIdentifier=VATDE-1,description=desc,name=Nm,initials=AB,generationQualifier=III,dnQualifier=dq,pseudonym=ps,businessCategory=Private,postalCode=12345,street=Road 1,title=Dr,serialNumber=42,GN=Given,SN=Sur,UID=u1,DC=example,emailAddress=x@example.com,CN=a\+b\"c\\d\<e\>f\;g=h,OU=\#hash,OU=\ lead and trail\ ,O=Acme\, Inc.,L=M\C3\BCnchen,ST=Bayern,C=DE"#
        );
        let two_in_one = include_str!("testdata/two-in-one.pem");
        assert_eq!(subject(two_in_one), r"CN=tab\09here,OU=in one+O=Two");
        let odd = include_str!("testdata/odd.pem");
        assert_eq!(
            subject(odd),
            r"1.2.3.4=#130576616C7565,O=\E6\97\A5\E6\9C\AC,CN=Zo\C3\AB"
        );
    }
}
