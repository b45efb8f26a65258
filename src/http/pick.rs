//! Single values out of a request head, for whoever wants to tell requests apart by them.
//!
//! All are byte for byte what the client sent: nothing is decoded and no quotes are removed, because two spellings that
//! might mean the same to one backend mean different things to another. Where a name is there twice, the first wins; a
//! value that is there and empty is not the same as none.

use super::Request;
use super::fields::trim;

impl<'b> Request<'_, 'b> {
    /// The value of the first field of this name, in any case.
    pub fn field(&self, name: &str) -> Option<&'b [u8]> {
        self.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// The value of a cookie, from the first Cookie field that holds it.
    pub fn cookie(&self, name: &str) -> Option<&'b [u8]> {
        let cookies = self.fields.iter().filter(|field| field.name.eq_ignore_ascii_case("cookie"));
        cookies.map(|field| field.value).find_map(|value| cookie_value(value, name.as_bytes()))
    }

    /// The value of a parameter of the query.
    pub fn query(&self, name: &str) -> Option<&'b [u8]> {
        query_value(self.path().as_bytes(), name.as_bytes())
    }

    /// The path, without the query.
    pub fn path_without_query(&self) -> &'b [u8] {
        match split_query(self.path().as_bytes()).0 {
            b"" => b"/", // an absolute target may leave it out
            path => path,
        }
    }
}

/// The value of this name in one Cookie field (RFC 6265 section 4.2). Names are told apart by case. A semicolon ends a
/// value within quotes too: browsers know no other meaning of it.
pub fn cookie_value<'v>(field: &'v [u8], name: &[u8]) -> Option<&'v [u8]> {
    field.split(|&b| b == b';').find_map(|pair| {
        let at = pair.iter().position(|&b| b == b'=')?;
        let (before, behind) = pair.split_at_checked(at)?;
        (trim(before) == name).then(|| trim(behind.get(1..).unwrap_or_default()))
    })
}

/// The value of this parameter in a target's query: `name=value`, joined by `&`. A name that stands alone is empty.
pub fn query_value<'v>(target: &'v [u8], name: &[u8]) -> Option<&'v [u8]> {
    split_query(target).1?.split(|&b| b == b'&').find_map(|pair| {
        let at = pair.iter().position(|&b| b == b'=').unwrap_or(pair.len());
        let (before, behind) = pair.split_at_checked(at)?;
        (before == name && !pair.is_empty()).then(|| behind.get(1..).unwrap_or_default())
    })
}

/// The path, and what stands behind the first question mark.
fn split_query(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut parts = target.splitn(2, |&b| b == b'?');
    (parts.next().unwrap_or_default(), parts.next())
}
