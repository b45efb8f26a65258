//! HTTP/1.1 as decisions: bytes in, verdicts out.
//!
//! Nothing here may own a socket, look at a clock, start a thread or roll a die. So a test is a literal, a fuzzer is
//! a loop, and a rule can be read beside the paragraph of the RFC that it comes from. The files, in reading order:
//!
//! - `flaw`: everything that can be wrong with a message;
//! - `scan`: where does the head end, and is it fit to be parsed at all;
//! - `head`: a head split into its start line and fields (the only file that knows `httparse`);
//! - `target`: what a request line may ask for, and for whom;
//! - `fields`: the names that mean something to a proxy, and the values with a grammar of their own;
//! - `framing`: how the end of a body is known;
//! - `digits`: numbers and addresses, written;
//! - `chunked`: the one transfer coding, read and written;
//! - `request`, `response`: a head with its meaning;
//! - `pick`: single values out of a request;
//! - `forward`: what goes on, and what ends here;
//! - `reuse`: may a connection carry another exchange.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))] // the bytes are a stranger's

mod chunked;
mod digits;
mod fields;
mod flaw;
mod forward;
mod framing;
mod head;
mod pick;
mod request;
mod response;
mod reuse;
mod scan;
mod target;
#[cfg(test)]
mod tests;

pub use chunked::{CHUNK_HEAD_ROOM, CHUNK_TAIL, ChunkDecoder, LAST_CHUNK, write_chunk_head};
pub use digits::{write_address, write_decimal};
pub use fields::ConnectionOptions;
pub use flaw::Flaw;
pub use forward::{
    Answer, Claims, Endings, ForwardedRequest, Persistence, Sender, close_fields, forward_interim, forward_request,
    forward_response, forward_trailers,
};
pub use framing::BodyFraming;
pub use head::{Field, FieldTable, Version};
pub use pick::{cookie_value, query_value};
pub use request::{Limits, MaxForwards, Request, refuse_early, understood_line};
pub use response::Response;
pub use reuse::{backend_may_be_reused, client_may_stay};
pub use scan::HeadScan;
pub use target::is_valid_authority;
