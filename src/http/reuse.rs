//! May a connection carry another exchange (RFC 9112 section 9.3)?

use super::{BodyFraming, ConnectionOptions, Version};

/// Whether a client's request leaves its connection open for another. `close` wins over `keep-alive`.
pub fn client_may_stay(version: Version, options: ConnectionOptions) -> bool {
    match version {
        _ if options.close => false,
        Version::Http11 => true,
        Version::Http10 => options.keep_alive,
    }
}

/// Whether a backend's response leaves its connection fit for another request, once both messages are complete.
pub fn backend_may_be_reused(version: Version, options: ConnectionOptions, framing: BodyFraming) -> bool {
    framing != BodyFraming::UntilClose && client_may_stay(version, options)
}
