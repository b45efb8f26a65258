//! Which names mean something to a proxy.

use super::super::fields::{Name, recognise};

const KNOWN: [(&str, Name); 21] = [
    ("Connection", Name::Connection),
    ("Content-Length", Name::ContentLength),
    ("Date", Name::Date),
    ("Expect", Name::Expect),
    ("Forwarded", Name::Forwarded),
    ("Host", Name::Host),
    ("HTTP2-Settings", Name::Http2Settings),
    ("Keep-Alive", Name::KeepAlive),
    ("Max-Forwards", Name::MaxForwards),
    ("Proxy-Authenticate", Name::ProxyAuthenticate),
    ("Proxy-Authorization", Name::ProxyAuthorization),
    ("Proxy-Connection", Name::ProxyConnection),
    ("TE", Name::Te),
    ("Trailer", Name::Trailer),
    ("Transfer-Encoding", Name::TransferEncoding),
    ("Upgrade", Name::Upgrade),
    ("Via", Name::Via),
    ("X-Forwarded-For", Name::XForwardedFor),
    ("X-Forwarded-Host", Name::XForwardedHost),
    ("X-Forwarded-Proto", Name::XForwardedProto),
    ("X-Request-Id", Name::XRequestId),
];

#[test]
fn a_known_name_is_known_in_any_case() {
    for (name, meaning) in KNOWN {
        for spelling in [name.to_owned(), name.to_ascii_lowercase(), name.to_ascii_uppercase()] {
            assert_eq!(recognise(&spelling), meaning, "{spelling}");
        }
    }
}

#[test]
fn a_name_with_something_else_for_a_dash_is_a_twin() {
    for (name, _) in KNOWN.iter().filter(|(name, _)| name.contains('-')) {
        for instead in ["_", ".", "!", "~"] {
            assert_eq!(recognise(&name.replace('-', instead)), Name::Twin, "{name} with {instead}");
            assert_eq!(recognise(&name.replacen('-', instead, 1)), Name::Twin, "{name} with one {instead}");
        }
    }
}

#[test]
fn a_name_that_differs_in_any_other_byte_is_none_that_is_known() {
    for (name, _) in KNOWN {
        for (at, byte) in name.bytes().enumerate() {
            // A letter that no known name has there; and for a letter or digit, what CGI takes for a dash.
            for other in ["j", "7", "_", "-"].into_iter().filter(|_| byte != b'-') {
                let mut changed = name.to_owned();
                changed.replace_range(at..=at, other);
                assert_eq!(recognise(&changed), Name::Other, "{changed} is not {name}");
            }
            if byte == b'-' {
                let mut changed = name.to_owned();
                changed.replace_range(at..=at, "j");
                assert_eq!(recognise(&changed), Name::Other, "{changed} is not {name}");
            }
        }
        for changed in [format!("{name}j"), format!("j{name}"), name[1..].to_owned()] {
            assert_eq!(recognise(&changed), Name::Other, "{changed} is not {name}");
        }
    }
}
