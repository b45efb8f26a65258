//! Single values out of a request head.

use super::*;
use crate::http::{cookie_value, query_value};

#[test]
fn a_cookie_is_found_by_its_whole_name() {
    let rows: [(&str, Option<&str>); 24] = [
        ("a=1", Some("1")),
        ("b=2; a=1", Some("1")),
        ("a=1; b=2", Some("1")),
        ("a=1; a=2", Some("1")),
        ("b=2;a=1;c=3", Some("1")),
        ("  a = 1 ;b=2", Some("1")),
        ("\ta=1\t", Some("1")),
        ("a=", Some("")),
        ("a=; a=2", Some("")),
        ("a=1=2", Some("1=2")),
        ("a=\"1\"", Some("\"1\"")),
        ("a=\"1; b=2\"", Some("\"1")),
        ("b=\"; a=1; \"", Some("1")),
        ("a=%31", Some("%31")),
        ("a=1 2", Some("1 2")),
        ("a=1,2", Some("1,2")),
        ("a=\u{e9}", Some("\u{e9}")),
        ("", None),
        (";;;", None),
        ("a", None),
        ("=a", None),
        ("A=1", None),
        ("aa=1; ba=2", None),
        ("b=a=1", None),
    ];
    for (field, value) in rows {
        assert_eq!(cookie_value(field.as_bytes(), b"a"), value.map(str::as_bytes), "{field:?}");
    }
}

#[test]
fn a_parameter_is_found_byte_for_byte() {
    let rows: [(&str, Option<&str>); 22] = [
        ("/?a=1", Some("1")),
        ("/?b=2&a=1", Some("1")),
        ("/?a=1&a=2", Some("1")),
        ("/?&&a=1", Some("1")),
        ("/?a", Some("")),
        ("/?a=", Some("")),
        ("/?a&a=1", Some("")),
        ("/?a=1=2", Some("1=2")),
        ("/?a=1?a=2", Some("1?a=2")),
        ("/?a=1;b=2", Some("1;b=2")),
        ("/?a=%31+2", Some("%31+2")),
        ("/?a=\"1\"", Some("\"1\"")),
        ("?a=1", Some("1")),
        ("/", None),
        ("/?", None),
        ("", None),
        ("*", None),
        ("/a=1", None),
        ("/?%61=1", None),
        ("/?A=1", None),
        ("/?aa=1", None),
        ("/?b=2;a=1", None),
    ];
    for (target, value) in rows {
        assert_eq!(query_value(target.as_bytes(), b"a"), value.map(str::as_bytes), "{target:?}");
    }
    assert_eq!(query_value(b"/?&=1", b""), Some(&b"1"[..]), "a parameter without a name is one");
}

#[test]
fn a_path_ends_before_its_query() {
    let rows = [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a?b", "/a"),
        ("/a?", "/a"),
        ("/a?b?c", "/a"),
        ("/a%3Fb?c", "/a%3Fb"),
        ("/?a", "/"),
        ("//a", "//a"),
        ("http://h", "/"),
        ("http://h?a", "/"),
        ("http://h/a?b", "/a"),
    ];
    for (target, path) in rows {
        let head = head(&format!("GET {target} HTTP/1.1"), &["Host: a"]);
        let found = with_request(head.as_bytes(), |verdict| verdict.unwrap().path_without_query().to_owned());
        assert_eq!(show(found), path, "{target}");
    }
}

#[test]
fn the_first_of_several_fields_is_the_one() {
    let head = head(
        "GET /a?key=1&key=2 HTTP/1.1",
        &["Host: h", "X-Key: one", "x-key: two", "X-None:", "Cookie: b=0", "cookie: a=1; b=1", "COOKIE: a=2"],
    );
    with_request(head.as_bytes(), |verdict| {
        let request = verdict.unwrap();
        let rows = [
            ("field x-key", request.field("x-key"), Some("one")),
            ("field X-KEY", request.field("X-KEY"), Some("one")),
            ("field x-none", request.field("x-none"), Some("")),
            ("field host", request.field("host"), Some("h")),
            ("field x", request.field("x"), None),
            ("cookie a", request.cookie("a"), Some("1")),
            ("cookie b", request.cookie("b"), Some("0")),
            ("cookie c", request.cookie("c"), None),
            ("query key", request.query("key"), Some("1")),
            ("query x", request.query("x"), None),
        ];
        for (what, found, value) in rows {
            assert_eq!(found.map(show), value.map(str::to_owned), "{what}");
        }
    });
}

#[test]
fn whom_a_request_is_for_is_said_by_an_absolute_target_or_else_by_its_host() {
    let rows = [
        ("GET / HTTP/1.1\r\nHost: a:81\r\n\r\n", Some("a:81")),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", Some("b")),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", Some("")),
        ("GET / HTTP/1.0\r\n\r\n", None),
    ];
    for (head, authority) in rows {
        with_request(head.as_bytes(), |verdict| assert_eq!(verdict.unwrap().authority(), authority, "{}", show(head)));
    }
}
