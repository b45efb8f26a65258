//! What goes on of a request (RFC 9110 section 7.6).

use super::*;
use crate::http::MaxForwards;
use std::net::Ipv6Addr;

/// What stands in a forwarded request beside what the client sent.
const OURS: &str = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n\
    Forwarded: for=192.0.2.7;host=a;proto=http\r\nX-Request-Id: fresh\r\nVia: 1.1 threadbare\r\n";

#[test]
fn a_request_goes_on_with_our_fields_behind_its_own() {
    let written = forwarded("GET /x?y HTTP/1.1\r\nA: 1\r\nhOST: a\r\nb:2\r\nA:  3 \r\n\r\n", &STRANGER);
    assert_eq!(written, format!("GET /x?y HTTP/1.1\r\nA: 1\r\nHost: a\r\nb: 2\r\nA: 3\r\n{OURS}\r\n"));
    let written = forwarded("GET / HTTP/1.0\r\nHost: a\r\n\r\n", &STRANGER);
    assert_eq!(written, format!("GET / HTTP/1.1\r\nHost: a\r\n{OURS}\r\n").replace("Via: 1.1", "Via: 1.0"));
    let written = forwarded("GET / HTTP/1.0\r\n\r\n", &STRANGER);
    let without_host = OURS.replace("X-Forwarded-Host: a\r\n", "").replace(";host=a", "");
    let expected = format!("GET / HTTP/1.1\r\nHost: backend:81\r\n{without_host}\r\n").replace("Via: 1.1", "Via: 1.0");
    assert_eq!(written, expected, "the backend's own name is no claim of the client's");
}

#[test]
fn fields_that_end_here_end_here() {
    let rows: [&[&str]; 19] = [
        &["Content_Length: 5", "transfer.encoding: chunked"],
        &["X_Forwarded_For: 1.2.3.4", "x-request~id: 1"],
        &["Connection: close"],
        &["Connection: keep-alive"],
        &["Keep-Alive: timeout=5"],
        &["Proxy-Connection: keep-alive"],
        &["Proxy-Authenticate: Basic"],
        &["Proxy-Authorization: Basic YTpi"],
        &["TE: gzip"],
        &["TE: trailers", "Host-Is-Not-Te: x"],
        &["Upgrade: websocket"],
        &["HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"],
        &["Trailer: X-Sum"],
        &["Connection: x-hop", "X-Hop: 1"],
        &["X-Hop: 1", "x-hop: 2", "X-HOP: 3", "Connection: X-Hop"],
        &["Connection: close, x-hop", "X-Hop: 1"],
        &["Connection: a ,\t x-hop,,", "X-Hop: 1"],
        &["X-Hop: 1", "Connection: a", "Connection: x-hop,b", "A: 2", "B: 3"],
        &["Connection: cookie", "Cookie: a=b"],
    ];
    for lines in rows {
        let head = head("GET / HTTP/1.1", &[&["Host: a", "X-Stays: 1"], lines, &["X-Stays: 2"]].concat());
        let written = forwarded(&head, &STRANGER);
        let names: Vec<&str> = fields(&written).into_iter().map(|field| field.0).collect();
        let allowed = [
            "Host",
            "X-Stays",
            "X-Stays",
            "X-Forwarded-For",
            "X-Forwarded-Proto",
            "X-Forwarded-Host",
            "Forwarded",
            "X-Request-Id",
            "Via",
        ];
        let te = lines.contains(&"TE: trailers"); // has a row of its own below
        if !te {
            assert_eq!(names, allowed, "{lines:?}");
        }
        assert_eq!(values(&written, "X-Stays"), ["1", "2"], "{lines:?}");
    }
}

#[test]
fn connection_may_not_name_what_the_next_hop_must_have() {
    for name in ["Host", "content-length", "Transfer-Encoding", "AUTHORIZATION"] {
        let of_response = (name == "content-length").then_some(SYNTAX);
        for lines in [format!("Connection: {name}"), format!("Connection: close,\t{name} ,x")] {
            assert_eq!(refusal_of_request(get(&[&lines])), Some(SYNTAX), "{lines:?}");
            assert_eq!(refusal_of_response(head("HTTP/1.1 200 OK", &[&lines])), of_response, "{lines:?}");
        }
    }
}

#[test]
fn connection_has_no_more_options_than_make_sense() {
    // Each field is compared with all of them: thousands would be worth more time than the rest of the message.
    for option in ["", "a", "close"] {
        for (count, flaw) in [(100, None), (101, Some(SYNTAX)), (1500, Some(SYNTAX))] {
            let half = |count: usize| format!("Connection: {}", vec![option; count].join(","));
            let lines = [half(count / 2), half(count - count / 2)];
            let lines = lines.each_ref().map(String::as_str);
            assert_eq!(refusal_of_request(get(&lines)), flaw, "{count} times {option:?}");
            assert_eq!(refusal_of_response(head("HTTP/1.1 200 OK", &lines)), flaw, "{count} times {option:?}");
        }
    }
}

#[test]
fn nobody_can_name_our_own_fields_away() {
    let names = ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "X-Request-Id", "Via"];
    for name in names {
        for sender in [&STRANGER, &PROXY_OF_OURS] {
            let connection = format!("Connection: close, {name}");
            let written = forwarded(get(&[&connection]), sender);
            assert_eq!(values(&written, name).len(), 1, "{name}: {written:?}");
        }
    }
    // What a proxy of ours says of the client is no hop's to remove either: a client might have put it up to that.
    let claims =
        ["X-Forwarded-For: 198.51.100.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: b", "Forwarded: proto=https"];
    let connection = "Connection: X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, Forwarded";
    let written = forwarded(get(&[&claims[..], &[connection]].concat()), &PROXY_OF_OURS);
    assert_eq!(values(&written, "x-forwarded-for"), ["198.51.100.1, 192.0.2.7"]);
    assert_eq!(values(&written, "x-forwarded-proto"), ["https"]);
    assert_eq!(values(&written, "x-forwarded-host"), ["b"]);
    assert_eq!(values(&written, "forwarded"), ["proto=https, for=192.0.2.7;host=a;proto=http"]);
}

#[test]
fn te_trailers_is_said_again_in_our_own_name() {
    let rows: [(&[&str], bool); 8] = [
        (&["TE: trailers"], true),
        (&["TE: trailers", "Connection: TE"], true),
        (&["te:gzip;q=0.5, Trailers ,deflate"], true),
        (&["TE: gzip", "TE: trailers"], true),
        (&["TE:"], false),
        (&["TE: gzip"], false),
        (&["TE: trailersx"], false),
        (&["TE: gzip", "Connection: TE"], false),
    ];
    for (lines, expected) in rows {
        let written = forwarded(get(lines), &STRANGER);
        let (te, connection): (&[&str], &[&str]) = if expected { (&["trailers"], &["TE"]) } else { (&[], &[]) };
        assert_eq!((&*values(&written, "te"), &*values(&written, "connection")), (te, connection), "{lines:?}");
        let written = forwarded(head("GET / HTTP/1.0", lines), &STRANGER);
        assert!(values(&written, "te").is_empty() && values(&written, "connection").is_empty(), "1.0: {lines:?}");
    }
    for (framing, kept) in [("Transfer-Encoding: chunked", 1), ("Content-Length: 5", 0)] {
        let written = forwarded(get(&[framing, "Trailer: X-Sum"]), &STRANGER);
        assert_eq!(values(&written, "trailer").len(), kept, "Trailer is kept where trailers are: {framing}");
    }
}

#[test]
fn an_upgrade_goes_on_but_not_to_h2c() {
    let rows: [(&[&str], Option<&str>); 17] = [
        (&["Connection: upgrade", "Upgrade: websocket"], Some("websocket")),
        (&["Connection: Keep-Alive, Upgrade", "Upgrade: WebSocket"], Some("WebSocket")),
        (&["Upgrade: a/1.0,b", "Connection: x", "Connection: upgrade", "Upgrade: c"], Some("a/1.0, b, c")),
        (&["Connection: upgrade", "Upgrade: h2c, websocket"], Some("websocket")),
        (&["Connection: upgrade", "Upgrade: websocket,H2C"], Some("websocket")),
        (&["Connection: upgrade", "Upgrade: h2c", "Upgrade: websocket"], Some("websocket")),
        (&["Connection: upgrade", "Upgrade: , websocket,"], Some("websocket")),
        (&["Connection: upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"], None),
        (&["Connection: upgrade", "Upgrade: h2c"], None),
        (&["Connection: upgrade", "Upgrade: h2c/1"], None),
        (&["Connection: upgrade", "Upgrade: h2c, h2c"], None),
        (&["Connection: upgrade", "Upgrade:"], None),
        (&["Connection: upgrade", "Upgrade: a b"], None),
        (&["Connection: upgrade", "Upgrade: a/b/c"], None),
        (&["Connection: upgrade"], None),
        (&["Upgrade: websocket"], None),
        (&["Connection: upgrades", "Upgrade: websocket"], None),
    ];
    for (lines, expected) in rows {
        let head = get(lines);
        let written = forwarded(&head, &STRANGER);
        assert_eq!(values(&written, "upgrade"), expected.as_slice(), "{lines:?}");
        assert_eq!(values(&written, "connection").concat(), expected.map_or("", |_| "upgrade"), "{lines:?}");
        assert!(values(&written, "http2-settings").is_empty(), "{written:?}");
        with_request(head.as_bytes(), |request| {
            let request = request.unwrap();
            assert_eq!(request.upgrades, expected.is_some(), "{lines:?}");
            if let Some(expected) = expected {
                assert_eq!(request.offered_protocols().collect::<Vec<_>>().join(", "), expected);
            }
        });
        let written = forwarded(head.replace("HTTP/1.1", "HTTP/1.0"), &STRANGER);
        assert!(values(&written, "upgrade").is_empty() && values(&written, "connection").is_empty(), "1.0: {lines:?}");
    }
    let written = forwarded(get(&["Connection: upgrade, te", "Upgrade: x", "TE: trailers"]), &STRANGER);
    assert_eq!(values(&written, "connection"), ["upgrade, TE"]);
}

#[test]
fn an_expectation_goes_on_where_it_means_something() {
    let rows: [(&str, &[&str], Result<usize, Flaw>); 17] = [
        ("1.1", &["Content-Length: 5", "Expect: 100-continue"], Ok(1)),
        ("1.1", &["Content-Length: 5", "Expect: 100-Continue"], Ok(1)),
        ("1.1", &["Expect: 100-continue", "Transfer-Encoding: chunked"], Ok(1)),
        ("1.1", &["Content-Length: 5"], Ok(0)),
        ("1.1", &["Expect: 100-continue"], Ok(0)),
        ("1.1", &["Expect: 100-continue", "Content-Length: 0"], Ok(0)),
        ("1.0", &["Content-Length: 5", "Expect: 100-continue"], Ok(0)),
        ("1.0", &["Content-Length: 5", "Expect: x"], Ok(0)),
        ("1.1", &["Content-Length: 5", "Expect: x"], Err(Flaw::Expectation)),
        ("1.1", &["Expect: x"], Err(Flaw::Expectation)),
        ("1.1", &["Content-Length: 5", "Expect:"], Err(Flaw::Expectation)),
        ("1.1", &["Content-Length: 5", "Expect: 100"], Err(Flaw::Expectation)),
        ("1.1", &["Content-Length: 5", "Expect: 100-continue, x"], Err(Flaw::Expectation)),
        ("1.1", &["Content-Length: 5", "Expect: 100-continue;a=b"], Err(Flaw::Expectation)),
        ("1.1", &["Content-Length: 5", "Expect: 100-continue", "Expect: x"], Err(Flaw::Expectation)),
        ("1.1", &["Content-Length: 5", "Expect: x", "Expect: 100-continue"], Err(Flaw::Expectation)),
        ("1.1", &["Content-Length: x", "Expect: 100-continue"], Err(FRAMING)),
    ];
    for (version, lines, expected) in rows {
        let head = head(&format!("POST / HTTP/{version}"), &[&["Host: a"], lines].concat());
        let read = with_request(head.as_bytes(), |verdict| verdict.map(|request| request.expects_continue));
        assert_eq!(read.map_err(without_text), expected.map(|count| count > 0), "{version} {lines:?}");
        if let Ok(count) = expected {
            assert_eq!(values(&forwarded(&head, &STRANGER), "expect").len(), count, "{version} {lines:?}");
        }
    }
}

#[test]
fn a_request_that_has_passed_here_ten_times_is_a_loop() {
    let ours = "Via: 1.1 threadbare";
    let rows: [(Vec<String>, Option<Flaw>); 5] = [
        (vec![ours.to_owned(); 9], None),
        (vec![ours.to_owned(); 10], Some(Flaw::Loop)),
        (vec![format!("Via: {}", ["1.1 threadbare"; 9].join(", "))], None),
        (vec![format!("Via: {}", ["1.1 threadbare"; 10].join(", "))], Some(Flaw::Loop)),
        (vec!["Via: 1.1 somebody".to_owned(); 50], None),
    ];
    for (lines, expected) in rows {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        assert_eq!(refusal_of_request(get(&lines)), expected, "{lines:?}");
    }
    let mut head = get(&[]);
    for passage in 0..10 {
        assert_eq!(refusal_of_request(&head), None, "passage {passage}");
        head = forwarded(&head, &STRANGER);
    }
    assert_eq!(refusal_of_request(&head), Some(Flaw::Loop), "{head}");
}

#[test]
fn via_is_appended_and_can_be_turned_off() {
    let head = get(&["Via: 1.0 somebody (else)"]);
    assert_eq!(values(&forwarded(&head, &STRANGER), "via"), ["1.0 somebody (else)", "1.1 threadbare"]);
    assert_eq!(values(&forwarded(&head, &Sender { via: false, ..STRANGER }), "via"), ["1.0 somebody (else)"]);
}

#[test]
fn where_a_request_came_from_is_said_by_us_and_by_proxies_of_ours_alone() {
    let claims = [
        "X-Forwarded-For: 198.51.100.1",
        "x-forwarded-for: 198.51.100.2",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: b",
        "Forwarded: for=198.51.100.1",
        "forwarded: for=_x;proto=https",
    ];
    // (field, from a stranger, from a proxy of ours)
    let rows = [
        ("X-Forwarded-For", "192.0.2.7", "198.51.100.1, 198.51.100.2, 192.0.2.7"),
        ("X-Forwarded-Proto", "http", "https"),
        ("X-Forwarded-Host", "a", "b"),
        (
            "Forwarded",
            "for=192.0.2.7;host=a;proto=http",
            "for=198.51.100.1, for=_x;proto=https, for=192.0.2.7;host=a;proto=http",
        ),
    ];
    for (name, replaced, extended) in rows {
        assert_eq!(values(&forwarded(get(&claims), &STRANGER), name), [replaced]);
        assert_eq!(values(&forwarded(get(&claims), &PROXY_OF_OURS), name), [extended]);
        assert_eq!(values(&forwarded(get(&[]), &PROXY_OF_OURS), name), [replaced], "nothing to extend");
    }
}

#[test]
fn an_address_is_written_as_each_field_wants_it() {
    let v6 = |text: &str| IpAddr::V6(text.parse::<Ipv6Addr>().unwrap());
    let rows = [
        (v6("2001:db8::7"), "a", "2001:db8::7", "for=\"[2001:db8::7]\";host=a;proto=http"),
        (v6("::ffff:192.0.2.7"), "a", "192.0.2.7", "for=192.0.2.7;host=a;proto=http"),
        (STRANGER.address, "a:80", "192.0.2.7", "for=192.0.2.7;host=\"a:80\";proto=http"),
        (STRANGER.address, "[::1]", "192.0.2.7", "for=192.0.2.7;host=\"[::1]\";proto=http"),
        (STRANGER.address, "a;b=c,d", "192.0.2.7", "for=192.0.2.7;host=\"a;b=c,d\";proto=http"),
        (STRANGER.address, "", "192.0.2.7", "for=192.0.2.7;proto=http"),
    ];
    for (address, host, x_forwarded_for, element) in rows {
        let written = forwarded(head("GET / HTTP/1.1", &[&format!("Host: {host}")]), &Sender { address, ..STRANGER });
        assert_eq!(values(&written, "x-forwarded-for"), [x_forwarded_for]);
        assert_eq!(values(&written, "forwarded"), [element]);
        let hosts: &[&str] = if host.is_empty() { &[] } else { &[host] };
        assert_eq!(values(&written, "x-forwarded-host"), hosts);
    }
}

#[test]
fn an_id_is_kept_if_it_is_one_token_and_not_too_long() {
    let (longest, too_long) = ("y".repeat(128), "y".repeat(129));
    let rows: [(&[&str], &str); 9] = [
        (&[], "fresh"),
        (&["X-Request-Id: abc-123"], "abc-123"),
        (&["x-request-id:\tabc"], "abc"),
        (&[&format!("X-Request-Id: {longest}")], &longest),
        (&[&format!("X-Request-Id: {too_long}")], "fresh"),
        (&["X-Request-Id:"], "fresh"),
        (&["X-Request-Id: a b"], "fresh"),
        (&["X-Request-Id: a\"b"], "fresh"),
        (&["X-Request-Id: a", "X-Request-Id: a"], "fresh"),
    ];
    for (lines, expected) in rows {
        assert_eq!(values(&forwarded(get(lines), &STRANGER), "x-request-id"), [expected], "{lines:?}");
        with_request(get(lines).as_bytes(), |request| {
            assert_eq!(show(forward_request(&request.unwrap(), &STRANGER).id()), expected, "{lines:?}");
        });
    }
}

#[test]
fn max_forwards_counts_down_on_the_two_methods_that_have_it() {
    let rows = [
        ("OPTIONS", "0", Some(MaxForwards::AnswerHere), "0"),
        ("OPTIONS", "1", Some(MaxForwards::Left(0)), "0"),
        ("OPTIONS", "010", Some(MaxForwards::Left(9)), "9"),
        ("TRACE", "0", Some(MaxForwards::AnswerHere), "0"),
        ("TRACE", "18446744073709551615", Some(MaxForwards::Left(u64::MAX - 1)), "18446744073709551614"),
        ("GET", "0", None, "0"),
        ("options", "0", None, "0"),
        ("OPTIONS", "+1", None, "+1"),
        ("OPTIONS", "x", None, "x"),
        ("OPTIONS", "", None, ""),
        ("OPTIONS", "18446744073709551616", Some(MaxForwards::Left(u64::MAX - 1)), "18446744073709551614"),
    ];
    for (method, value, expected, written) in rows {
        let head = head(&format!("{method} / HTTP/1.1"), &["Host: a", &format!("Max-Forwards: {value}")]);
        assert_eq!(with_request(head.as_bytes(), |request| request.unwrap().max_forwards), expected, "{head:?}");
        assert_eq!(values(&forwarded(&head, &STRANGER), "max-forwards"), [written], "{head:?}");
    }
}

#[test]
fn trailers_are_told_what_the_head_named() {
    let named =
        |lines: &[&str]| with_request(get(lines).as_bytes(), |request| request.unwrap().connection_named().join(" "));
    assert_eq!(named(&["Connection: close"]), "");
    assert_eq!(named(&["Connection: close, X-Hop", "Connection: y,,\"z\""]), "close X-Hop y");
}

#[test]
fn what_goes_on_can_be_asked_for_its_parts() {
    for (start, host) in [("GET /x HTTP/1.1\r\nHost: a\r\n", "Host: a\r\n"), ("GET /x HTTP/1.0\r\n", "")] {
        let came = format!("{start}Referer:  r \r\nX-Request-Id: 77\r\nreferer: later\r\nX-Empty:\r\n\r\n");
        let head = with_request(came.as_bytes(), |verdict| forward_request(&verdict.unwrap(), &STRANGER));
        assert_eq!((head.method(), head.target(), head.id()), (&b"GET"[..], &b"/x"[..], &b"77"[..]), "{host}");
        let values = ["REFERER", "x-empty", "x-none", "efere", ""].map(|name| head.field(name));
        assert_eq!(values, [Some(&b"r"[..]), Some(b""), None, None, None], "{host}");
    }
}

#[test]
fn of_a_head_that_is_refused_the_first_line_is_told_if_it_may_be_repeated() {
    let limits = Limits { target_bytes: 5, ..LIMITS };
    let rows: [(&str, Option<(&str, &str, Version)>); 10] = [
        ("GET /a HTTP/1.1\r\nbad line", Some(("GET", "/a", Version::Http11))),
        ("\r\nGET /a HTTP/1.0\r\n", Some(("GET", "/a", Version::Http10))),
        ("GET /1234 HTTP/1.1\r\n", Some(("GET", "/1234", Version::Http11))),
        ("GET /12345 HTTP/1.1\r\n", None),
        ("GET /a HTTP/1.1\r", None),
        ("GET /a HTTP/1.1\nHost: a\r\n", None),
        ("GET /\u{1} HTTP/1.1\r\n", None),
        ("GET /\u{7f} HTTP/1.1\r\n", None),
        ("GET /\u{e4} HTTP/1.1\r\n", None),
        ("GET /a\r\n", None),
    ];
    for (so_far, expected) in rows {
        assert_eq!(crate::http::understood_line(so_far.as_bytes(), limits), expected, "{}", show(so_far));
    }
}
