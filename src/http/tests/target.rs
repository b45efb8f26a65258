//! Whom and what a request may ask for (RFC 9112 section 3.2).

use super::*;
use crate::http::is_valid_authority;

/// Target and Host with which a request goes on, or why it doesn't.
fn goes_on(start: &str, lines: &[&str]) -> Result<(String, String), Flaw> {
    with_request(head(start, lines).as_bytes(), |verdict| {
        let written = text_of(joined(&forward_request(&verdict.map_err(without_text)?, &STRANGER), "", "backend:81"));
        let target = written.split(' ').nth(1).unwrap_or_default().to_owned();
        let hosts = values(&written, "host");
        assert_eq!(hosts.len(), 1, "{written:?}");
        Ok((target, hosts[0].to_owned()))
    })
}

#[test]
fn a_path_and_a_query_pass_byte_for_byte() {
    let all: String = (0x21..=0x7e_u8).map(char::from).filter(|&c| c != '#').collect();
    let rows = [
        "/",
        "//",
        "//evil.example/x",
        "/../..//./a",
        "/?",
        "/??a?",
        "/%2e%2E/%00/%zz/%",
        "/http://x/?u=http://y",
        "/\\",
        "/*",
        &format!("/{all}"),
    ];
    for target in rows {
        let start = format!("GET {target} HTTP/1.1");
        assert_eq!(goes_on(&start, &["Host: a"]), Ok((target.to_owned(), "a".to_owned())), "{start}");
    }
}

#[test]
fn an_absolute_target_goes_on_as_a_path_and_a_host() {
    let rows = [
        ("GET http://b/x?y", "/x?y", "b"),
        ("GET HTTP://B:8080/", "/", "B:8080"),
        ("GET hTTp://b", "/", "b"),
        ("GET http://b:", "/", "b:"),
        ("GET http://b?", "/?", "b"),
        ("GET http://b?q@r/s", "/?q@r/s", "b"),
        ("GET http://b//c", "//c", "b"),
        ("GET http://[::1]:81/x", "/x", "[::1]:81"),
        ("OPTIONS http://b", "*", "b"),
        ("OPTIONS http://b/", "/", "b"),
        ("OPTIONS http://b?q", "/?q", "b"),
        ("OPTIONS *", "*", "a"),
        ("OPTIONS /", "/", "a"),
    ];
    for (start, target, host) in rows {
        let expected = Ok((target.to_owned(), host.to_owned()));
        for version in ["1.0", "1.1"] {
            assert_eq!(goes_on(&format!("{start} HTTP/{version}"), &["Host: a"]), expected, "{start} {version}");
        }
        if host != "a" {
            assert_eq!(goes_on(&format!("{start} HTTP/1.0"), &[]), expected, "{start} without Host");
        }
    }
}

#[test]
fn a_target_in_another_form_is_refused() {
    let rows = [
        ("GET *", SYNTAX),
        ("options *", SYNTAX),
        ("OPTIONS **", SYNTAX),
        ("OPTIONS *?q", SYNTAX),
        ("GET x", SYNTAX),
        ("GET ?q", SYNTAX),
        ("GET a:80", SYNTAX),
        ("GET http:/b/", SYNTAX),
        ("GET http:b", SYNTAX),
        ("GET ://b/", SYNTAX),
        ("GET ftp://b/", SYNTAX),
        ("GET ws://b/", SYNTAX),
        ("GET httpx://b/", SYNTAX),
        ("GET https://b/", Flaw::Misdirected),
        ("GET HTTPS://b:443", Flaw::Misdirected),
        ("GET http://", SYNTAX),
        ("GET http:///x", SYNTAX),
        ("GET http://?q", SYNTAX),
        ("GET http://:80/", SYNTAX),
        ("GET http://u@b/", SYNTAX),
        ("GET http://u:p@b/", SYNTAX),
        ("GET http://b@/", SYNTAX),
        ("GET http://b:x/", SYNTAX),
        ("GET http://b:+80/", SYNTAX),
        ("GET http://b:80:80/", SYNTAX),
        ("GET http://[::1/", SYNTAX),
        ("GET http://b\\c/", SYNTAX),
        ("GET /#", SYNTAX),
        ("GET /a?b#c", SYNTAX),
        ("GET http://b/#c", SYNTAX),
        ("GET http://b#c", SYNTAX),
        ("GET /\u{e4}", SYNTAX),
        ("CONNECT b:443", Flaw::Connect),
        ("CONNECT /", Flaw::Connect),
        ("connect b:443", SYNTAX),
    ];
    for (start, flaw) in rows {
        assert_eq!(goes_on(&format!("{start} HTTP/1.1"), &["Host: a"]), Err(flaw), "{start}");
    }
    for byte in (0x7f..=0xff_u8).chain(0..=0x20) {
        let head = [b"GET /x", &[byte][..], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        assert_eq!(refusal_of_request(&head), Some(SYNTAX), "{}", show(&head));
    }
}

#[test]
fn there_is_one_valid_host_or_none_in_http_1_0() {
    let rows: [(&str, &[&str], Result<&str, Flaw>); 17] = [
        ("1.1", &["Host: a"], Ok("a")),
        ("1.1", &["hOST:A.b:80"], Ok("A.b:80")),
        ("1.1", &["Host:"], Ok("")),
        ("1.1", &[], Err(SYNTAX)),
        ("1.2", &[], Err(SYNTAX)),
        ("1.1", &["X-Host: a", "Forwarded: host=a"], Err(SYNTAX)),
        ("1.0", &[], Ok("backend:81")),
        ("1.0", &["Host: a"], Ok("a")),
        ("1.1", &["Host: a", "Host: a"], Err(SYNTAX)),
        ("1.0", &["Host: a", "Host: a"], Err(SYNTAX)),
        ("1.1", &["Host: a", "X: y", "host: b"], Err(SYNTAX)),
        ("1.1", &["Host: a", "Host:"], Err(SYNTAX)),
        ("1.1", &["Host:", "Host: a"], Err(SYNTAX)),
        ("1.1", &["Host: a b"], Err(SYNTAX)),
        ("1.0", &["Host: a:x"], Err(SYNTAX)),
        ("1.1", &["Host: u@a"], Err(SYNTAX)),
        ("1.1", &["Host: http://a"], Err(SYNTAX)),
    ];
    for (version, lines, expected) in rows {
        let host = goes_on(&format!("GET / HTTP/{version}"), lines).map(|(_, host)| host);
        assert_eq!(host, expected.map(str::to_owned), "{version} {lines:?}");
    }
    for host in ["", "Host: a b", "Host: a\r\nHost: a", "Host: b:x"] {
        let lines: &[&str] = if host.is_empty() { &[] } else { &[host] };
        assert_eq!(goes_on("GET http://b/ HTTP/1.1", lines), Err(SYNTAX), "an absolute target excuses {host:?}");
    }
}

#[test]
fn an_authority_is_a_host_and_maybe_a_port() {
    let valid = [
        "",
        "a",
        "A-b.c_d~e",
        "a.",
        "a:",
        "a:0",
        "a:80",
        "a:99999999999999999999",
        "127.0.0.1",
        "127.0.0.1:80",
        "1.2.3.4.5",
        "%41",
        "%c3%A4.example",
        "!$&'()*+,;=",
        "[::]",
        "[::1]",
        "[::1]:",
        "[::1]:80",
        "[2001:DB8::a]",
        "[::ffff:1.2.3.4]",
        "[v1.x:y]",
        "[VF.a]",
    ];
    let invalid = [
        ":",
        ":80",
        "a:b",
        "a:80b",
        "a:+80",
        "a:-80",
        "a: 80",
        "a:80:80",
        "a b",
        "a\tb",
        "u@a",
        "a/b",
        "a?b",
        "a#b",
        "a\\b",
        "a\"b",
        "a<b>",
        "{a}",
        "a|b",
        "a^b",
        "a`b",
        "%",
        "%4",
        "%4g",
        "%g4",
        "\u{e4}",
        "a\0",
        "::1",
        "[",
        "[]",
        "[:]",
        "[::1",
        "::1]",
        "[::1]x",
        "[::1]80",
        "[::1]:x",
        "[[::1]]",
        "[::1%25eth0]",
        "[::1%eth0]",
        "[127.0.0.1]",
        "[a]",
        "[v1]",
        "[v.a]",
        "[v1.]",
        "[vg.a]",
        "[v1.%41]",
        "[v1.a<b]",
        "[v1.a]b",
        "a[::1]",
    ];
    for authority in valid {
        assert!(is_valid_authority(authority), "{authority:?}");
    }
    for authority in invalid {
        assert!(!is_valid_authority(authority), "{authority:?}");
    }
}

#[test]
fn a_prefix_goes_before_the_path_and_a_missing_host_gets_the_backends() {
    let rows = [
        ("GET /x HTTP/1.1", true, "GET /b/x HTTP/1.1\r\nHost: a\r\n"),
        ("GET / HTTP/1.1", true, "GET /b/ HTTP/1.1\r\nHost: a\r\n"),
        ("GET //x?y HTTP/1.1", true, "GET /b//x?y HTTP/1.1\r\nHost: a\r\n"),
        ("GET http://c HTTP/1.1", true, "GET /b/ HTTP/1.1\r\nHost: c\r\n"),
        ("GET http://c?q HTTP/1.1", true, "GET /b/?q HTTP/1.1\r\nHost: c\r\n"),
        ("OPTIONS * HTTP/1.1", true, "OPTIONS * HTTP/1.1\r\nHost: a\r\n"),
        ("OPTIONS http://c HTTP/1.1", true, "OPTIONS * HTTP/1.1\r\nHost: c\r\n"),
        ("OPTIONS /x HTTP/1.1", true, "OPTIONS /b/x HTTP/1.1\r\nHost: a\r\n"),
        ("GET /x HTTP/1.0", false, "GET /b/x HTTP/1.1\r\nHost: backend:81\r\n"),
        ("GET http://c/x HTTP/1.0", false, "GET /b/x HTTP/1.1\r\nHost: c\r\n"),
        ("OPTIONS * HTTP/1.0", false, "OPTIONS * HTTP/1.1\r\nHost: backend:81\r\n"),
    ];
    for (start, with_host, expected) in rows {
        let lines: &[&str] = if with_host { &["Host: a", "X: y"] } else { &["X: y"] };
        with_request(head(start, lines).as_bytes(), |request| {
            let head = forward_request(&request.unwrap(), &STRANGER);
            let written = text_of(joined(&head, "/b", "backend:81"));
            assert!(written.starts_with(&format!("{expected}X: y\r\n")), "{start}: {written:?}");
            assert_eq!(values(&written, "host").len(), 1, "{start}: {written:?}");
            // What the log shows is the request without the prefix.
            let (method, target) = (show(head.method()), show(head.target()));
            assert_eq!(
                expected.replace("/b/", "/").split(' ').take(2).collect::<Vec<_>>(),
                [method, target],
                "{start}"
            );
        });
    }
}
