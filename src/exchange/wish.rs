//! Where a request wants to go: by what it is known, and by the cookie that it brings.

use crate::balance::{HashKey, Policy, Sticky, Wish, key_hash};
use crate::http::Request;
use crate::live::Snapshot;
use std::net::IpAddr;

/// What a request says of where it wants to go.
pub(super) fn of(request: &Request<'_, '_>, client: IpAddr, snapshot: &Snapshot) -> Wish {
    Wish { key: hash_key(request, client, snapshot), sticky: sticky(request, snapshot) }
}

/// What the policy `hash` goes by. Who lacks it shares a backend with all others who do.
fn hash_key(request: &Request<'_, '_>, client: IpAddr, snapshot: &Snapshot) -> u64 {
    if snapshot.config.balance.policy != Policy::Hash {
        return 0;
    }
    match &snapshot.config.balance.hash_key {
        HashKey::Client => key_hash(client.to_canonical().to_string().as_bytes()),
        HashKey::Path => key_hash(request.path_without_query()),
        HashKey::Field(name) => key_hash(request.field(name).unwrap_or_default()),
        HashKey::Cookie(name) => key_hash(request.cookie(name).unwrap_or_default()),
        HashKey::Query(name) => key_hash(request.query(name).unwrap_or_default()),
    }
}

/// The backend that the request's cookie names.
fn sticky(request: &Request<'_, '_>, snapshot: &Snapshot) -> Option<Sticky> {
    let name = snapshot.config.balance.sticky_cookie.as_deref()?;
    request.cookie(name).and_then(Sticky::read)
}
