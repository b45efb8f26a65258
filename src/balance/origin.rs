//! How a backend is named: `http://host:port/prefix`, with scheme, port (80) and prefix optional.

use crate::http::is_valid_authority;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// A backend as the operator wrote it, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Host and port as they go into a Host field; the port is left out where none was given.
    pub authority: String,
    /// What goes before every path: empty, or `/` and more, without a slash at its end.
    pub prefix: String,
    host: String,
    port: u16,
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Origin, String> {
        const SHAPE: &str = "a backend is http://host:port/prefix, with scheme, port and prefix optional";
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) => return Err(format!("the scheme {scheme} is not spoken to backends; {SHAPE}")),
            None => text,
        };
        let (authority, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains(['?', '#']) || prefix.contains(['?', '#']) {
            return Err(format!("a query or fragment makes no sense here; {SHAPE}"));
        }
        if !prefix.bytes().all(|b| (0x21..=0x7e).contains(&b)) {
            return Err(format!("the prefix {prefix:?} holds a character that must be percent-encoded"));
        }
        if authority.is_empty() || !is_valid_authority(authority) {
            return Err(format!("{authority:?} is not a host and port; {SHAPE}, and IPv6 in brackets"));
        }
        // A colon within brackets belongs to the address.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let port = match port {
            None => 80,
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|&port: &u16| port > 0)
                .ok_or_else(|| format!("{digits:?} is not a port; ports are 1 - 65535"))?,
        };
        Ok(Origin {
            authority: authority.to_owned(),
            prefix: prefix.trim_end_matches('/').to_owned(),
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.prefix)
    }
}

impl Origin {
    /// Whether the host is an address, and not a name.
    pub fn is_address(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok()
    }

    /// Looks the host up. May take as long as the system's resolver does.
    ///
    /// # Errors
    /// The resolver's, or that it knows no address.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let addresses: Vec<SocketAddr> = (self.host.as_str(), self.port).to_socket_addrs()?.collect();
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scheme_port_and_prefix_are_optional_and_an_address_needs_no_resolver() {
        // What was written; the authority, the prefix, and how it is shown; where it is, if it is an address.
        let rows = [
            ("a", "a", "", "http://a", None),
            ("HTTP://a:1/", "a:1", "", "http://a:1", None),
            ("http://a.example:65535/x/y//", "a.example:65535", "/x/y", "http://a.example:65535/x/y", None),
            ("a/!~", "a", "/!~", "http://a/!~", None),
            ("127.0.0.1", "127.0.0.1", "", "http://127.0.0.1", Some("127.0.0.1:80")),
            ("127.0.0.1:81/x", "127.0.0.1:81", "/x", "http://127.0.0.1:81/x", Some("127.0.0.1:81")),
            ("http://[::1]", "[::1]", "", "http://[::1]", Some("[::1]:80")),
            ("[::1]:82", "[::1]:82", "", "http://[::1]:82", Some("[::1]:82")),
        ];
        for (text, authority, prefix, shown, address) in rows {
            let origin: Origin = text.parse().unwrap();
            assert_eq!(
                (&*origin.authority, &*origin.prefix, &*origin.to_string()),
                (authority, prefix, shown),
                "{text}"
            );
            assert_eq!(origin.is_address(), address.is_some(), "{text}");
            if let Some(address) = address {
                assert_eq!(origin.resolve().unwrap(), [address.parse::<SocketAddr>().unwrap()], "{text}");
            }
        }
    }

    #[test]
    fn what_is_no_backend_is_refused_with_what_is_wrong_and_what_would_be_right() {
        let rows = [
            ("https://a", "the scheme https is not spoken to backends"),
            ("unix:///run/a", "the scheme unix is not spoken to backends"),
            ("http://a?x", "a query or fragment makes no sense here"),
            ("a/x?y", "a query or fragment makes no sense here"),
            ("a#x", "a query or fragment makes no sense here"),
            ("http://a/x#y", "a query or fragment makes no sense here"),
            ("a/x y", "the prefix \"/x y\" holds a character that must be percent-encoded"),
            ("a/\u{7f}", "holds a character that must be percent-encoded"),
            ("a/\u{e4}", "holds a character that must be percent-encoded"),
            ("", "\"\" is not a host and port"),
            ("http:///x", "\"\" is not a host and port"),
            ("user@a", "\"user@a\" is not a host and port"),
            ("::1", "\"::1\" is not a host and port"),
            ("a:b", "\"a:b\" is not a host and port"),
            ("a:0", "\"0\" is not a port; ports are 1 - 65535"),
            ("[::1]:65536", "\"65536\" is not a port; ports are 1 - 65535"),
        ];
        for (text, complaint) in rows {
            let error = text.parse::<Origin>().unwrap_err();
            assert!(error.contains(complaint), "{text}: {error}");
        }
    }
}
