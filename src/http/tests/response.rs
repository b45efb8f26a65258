//! What goes on of a response.

use super::*;

#[test]
fn a_response_goes_on_with_a_fresh_status_line_and_our_fields_behind_its_own() {
    let rows = [
        ("HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "1.1"),
        ("HTTP/1.0 404 Not Found", "HTTP/1.1 404 Not Found", "1.0"),
        ("HTTP/1.1 299", "HTTP/1.1 299 ", "1.1"),
        ("HTTP/1.1 299 ", "HTTP/1.1 299 ", "1.1"),
        ("HTTP/1.1 200  two\tthree ", "HTTP/1.1 200  two\tthree ", "1.1"),
    ];
    for (line, expected, via) in rows {
        let head = head(line, &["Set-Cookie: a", "content-length:5", "Set-Cookie:  b ", "set-cookie: a"]);
        let expected = format!(
            "{expected}\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nset-cookie: a\r\nContent-Length: 5\r\nDate: a fine day\r\n\
             Via: {via} threadbare\r\n\r\n"
        );
        assert_eq!(answered(&head, false, &TO_1_1), expected, "{line:?}");
    }
    let written = answered("HTTP/1.1 200 OK\r\n\r\n".replace("OK", "\u{e4}"), false, &TO_1_1);
    assert!(written.starts_with("HTTP/1.1 200 \u{c3}\u{a4}\r\n"), "the reason passes byte for byte: {written:?}");
}

#[test]
fn fields_that_end_here_end_here() {
    let rows: [&[&str]; 14] = [
        &["Connection: close"],
        &["Connection: keep-alive", "Keep-Alive: timeout=5"],
        &["Keep-Alive: timeout=5"],
        &["Proxy-Connection: keep-alive"],
        &["Proxy-Authenticate: Basic"],
        &["Proxy-Authorization: Basic YTpi"],
        &["TE: trailers"],
        &["Upgrade: h2c", "Connection: upgrade"],
        &["Trailer: X-Sum"],
        &["Connection: x-hop", "X-Hop: 1"],
        &["X-Hop: 1", "x-hop: 2", "Connection: X-Hop"],
        &["Connection: a ,\t x-hop,,", "X-Hop: 1"],
        &["X-Hop: 1", "Connection: a", "Connection: x-hop,b", "A: 2", "B: 3"],
        &["Connection: set-cookie", "Set-Cookie: a"],
    ];
    for lines in rows {
        let head = head(
            "HTTP/1.1 200 OK",
            &[&["Content-Length: 0", "Date: d", "X-Stays: 1"], lines, &["X-Stays: 2"]].concat(),
        );
        let written = answered(&head, false, &TO_1_1);
        let expected =
            [("Date", "d"), ("X-Stays", "1"), ("X-Stays", "2"), ("Content-Length", "0"), ("Via", "1.1 threadbare")];
        assert_eq!(fields(&written), expected, "{lines:?}");
    }
}

#[test]
fn trailer_is_kept_where_trailers_are() {
    let head = head("HTTP/1.1 200 OK", &["Transfer-Encoding: chunked", "Trailer: X-Sum"]);
    assert_eq!(values(&answered(&head, false, &TO_1_1), "trailer"), ["X-Sum"]);
    assert!(values(&answered(&head, false, &TO_1_0), "trailer").is_empty());
    assert!(
        values(&answered(head.replace("Transfer-Encoding: chunked\r\n", ""), false, &TO_1_1), "trailer").is_empty()
    );
}

#[test]
fn a_final_response_without_a_date_gets_one() {
    let rows: [(&[&str], &[&str]); 4] = [
        (&[], &["a fine day"]),
        (&["date: d"], &["d"]),
        (&["Date: d", "Connection: date"], &["a fine day"]),
        (&["Last-Modified: d"], &["a fine day"]),
    ];
    for (lines, expected) in rows {
        assert_eq!(values(&answered(head("HTTP/1.1 200 OK", lines), false, &TO_1_1), "date"), expected, "{lines:?}");
    }
}

#[test]
fn the_answer_says_what_becomes_of_the_connection() {
    let rows = [
        (Persistence::Stays, "200 OK", ""),
        (Persistence::StaysByRequest, "200 OK", "keep-alive"),
        (Persistence::Closes, "200 OK", "close"),
        (Persistence::Stays, "101 Switching Protocols", "upgrade"),
        (Persistence::Stays, "426 Upgrade Required", "upgrade"),
        (Persistence::StaysByRequest, "426 Upgrade Required", "upgrade, keep-alive"),
        (Persistence::Closes, "426 Upgrade Required", "upgrade, close"),
    ];
    for (persistence, status, expected) in rows {
        let lines = ["Connection: upgrade, close, keep-alive", "Upgrade: a/1", "upgrade: b"];
        let written = answered(head(&format!("HTTP/1.1 {status}"), &lines), false, &Answer { persistence, ..TO_1_1 });
        assert_eq!(values(&written, "connection").join("; "), expected, "{status} {persistence:?}");
        let upgrade: &[&str] = if expected.contains("upgrade") { &["a/1", "b"] } else { &[] };
        assert_eq!(values(&written, "upgrade"), upgrade, "{status} {persistence:?}");
    }
}

#[test]
fn an_interim_response_goes_on_without_framing() {
    let lines = ["Link: </a>", "Content-Length: 5", "Transfer-Encoding: chunked", "Connection: x", "X: y"];
    for status in [100, 102, 103, 199] {
        let head = head(&format!("HTTP/1.1 {status} Z"), &lines);
        assert!(with_response(head.as_bytes(), false, |response| response.unwrap().is_interim()), "{status}");
        let expected = format!("HTTP/1.1 {status} Z\r\nLink: </a>\r\nVia: 1.1 threadbare\r\n\r\n");
        assert_eq!(answered(&head, false, &TO_1_1), expected);
        let unsigned = Answer { via: false, ..TO_1_1 };
        assert_eq!(answered(&head, false, &unsigned), expected.replace("Via: 1.1 threadbare\r\n", ""));
    }
    for status in [101, 200, 304, 599] {
        let head = head(&format!("HTTP/1.1 {status} Z"), &[]);
        assert!(!with_response(head.as_bytes(), false, |response| response.unwrap().is_interim()), "{status}");
    }
}

#[test]
fn a_switch_is_to_what_was_offered_and_to_nothing_else() {
    let rows: [(&[&str], &[&str], bool); 11] = [
        (&["Upgrade: websocket"], &["websocket"], true),
        (&["upgrade:WebSocket"], &["websocket"], true),
        (&["Upgrade: b"], &["a", "b"], true),
        (&["Upgrade: a", "Upgrade: b"], &["a", "b"], true),
        (&["Upgrade: a,, b,"], &["b", "a"], true),
        (&["Upgrade: a/1"], &["a"], false),
        (&["Upgrade: a, c"], &["a", "b"], false),
        (&["Upgrade: h2c"], &["websocket"], false),
        (&["Upgrade: a"], &[], false),
        (&["Upgrade:"], &["a"], false),
        (&[], &["a"], false),
    ];
    for (lines, offered, expected) in rows {
        let offered: Vec<Box<str>> = offered.iter().map(|&name| Box::from(name)).collect();
        let head = head("HTTP/1.1 101 Switching Protocols", lines);
        let switches = with_response(head.as_bytes(), false, |response| response.unwrap().switches_to_one_of(&offered));
        assert_eq!(switches, expected, "{lines:?} of {offered:?}");
    }
}

#[test]
fn a_backend_may_say_how_long_it_keeps_a_connection() {
    let rows = [
        ("timeout=5", Some(5)),
        ("max=100, Timeout=05", Some(5)),
        ("timeout=5, max=100", Some(5)),
        ("timeout=0", Some(0)),
        ("timeout=", None),
        ("timeout=+5", None),
        ("timeout=-5", None),
        ("timeout=5s", None),
        ("timeout=18446744073709551616", None),
        ("xtimeout=5", None),
        ("max=100", None),
        ("", None),
    ];
    for (value, expected) in rows {
        let head = head("HTTP/1.1 200 OK", &[&format!("Keep-Alive: {value}")]);
        let read = with_response(head.as_bytes(), false, |response| response.unwrap().keep_alive_timeout);
        assert_eq!(read, expected, "{value:?}");
    }
}
