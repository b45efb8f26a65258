//! A response head with its meaning.

use super::fields::{self, ConnectionOptions, Name};
use super::framing::FramingFields;
use super::{BodyFraming, Field, FieldTable, Flaw, Version, head};

/// Fields that a response may have. WIRE asks for at least 128; twice that costs nothing until it is used.
pub(super) const FIELD_LIMIT: usize = 256;

/// A response that may go on.
#[derive(Debug)]
pub struct Response<'t, 'b> {
    /// The version, as it came.
    pub version: Version,
    /// The status, 100 - 599.
    pub status: u16,
    /// How its body ends.
    pub framing: BodyFraming,
    /// What its Connection fields say.
    pub options: ConnectionOptions,
    /// `Keep-Alive: timeout=N`, in seconds: how long the backend means to keep the connection.
    pub keep_alive_timeout: Option<u64>,
    /// A Content-Length that may pass, where one may: equal to the framing's, or the one that HEAD and 304 tell of.
    pub(super) length: Option<u64>,
    pub(super) reason: Option<&'b [u8]>,
    /// A 204 that announces a body, which it can't have: what may come all the same belongs to nobody.
    pub announces_in_vain: bool,
    has_date: bool,
    pub(super) fields: &'t [Field<'b>],
}

impl<'t, 'b> Response<'t, 'b> {
    /// Reads a complete head, as far as a [`HeadScan`](super::HeadScan) found it to go; `to_head`: it answers a HEAD request.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn read(head: &'b [u8], table: &'t mut FieldTable<'b>, to_head: bool) -> Result<Response<'t, 'b>, Flaw> {
        let (line, _) = head::split_first_line(head).unwrap_or_default();
        let (version, status, reason) = head::split_status_line(line)?;
        let fields = table.split_response(head, FIELD_LIMIT)?;

        let mut framing = FramingFields::default();
        let mut options = ConnectionOptions::default();
        let mut keep_alive_timeout = None;
        let mut has_date = false;
        for field in fields {
            match fields::recognise(field.name) {
                Name::Connection => options.add(field.value, &fields::NEEDED_OF_RESPONSE)?,
                Name::ContentLength => framing.add_length(field.value),
                Name::TransferEncoding => framing.add_codings(field.value),
                Name::Date => has_date = true,
                Name::KeepAlive => keep_alive_timeout = fields::list(field.value).find_map(timeout_parameter),
                Name::Authorization
                | Name::Expect
                | Name::Forwarded
                | Name::Host
                | Name::Http2Settings
                | Name::MaxForwards
                | Name::ProxyAuthenticate
                | Name::ProxyAuthorization
                | Name::ProxyConnection
                | Name::Te
                | Name::Trailer
                | Name::Upgrade
                | Name::Via
                | Name::XForwardedFor
                | Name::XForwardedHost
                | Name::XForwardedProto
                | Name::XRequestId
                | Name::Twin
                | Name::Other => {}
            }
        }
        if options.names_fields && fields::is_named_by_connection(fields, "date") {
            has_date = false; // it ends here, so there is none to go on
        }
        let body = framing.of_response(version, status, to_head)?;
        let length = match status {
            100..200 | 204 => None, // RFC 9110 section 8.6: none may be sent
            _ if framing.is_coded() => None,
            _ => framing.length()?,
        };
        let announces_in_vain =
            status == 204 && (framing.is_coded() || !matches!(framing.length(), Ok(None | Some(0))));
        let framing = body;
        Ok(Response {
            version,
            status,
            framing,
            options,
            keep_alive_timeout,
            length,
            reason,
            announces_in_vain,
            has_date,
            fields,
        })
    }

    /// An interim response: the final one is still to come. 101 is not one: nothing follows it but the new protocol.
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// Whether it tells when it was made.
    pub fn has_date(&self) -> bool {
        self.has_date
    }

    /// The fields that Connection names beyond those that are always hop-by-hop: trailers may not carry them either.
    pub fn connection_named(&self) -> Box<[Box<str>]> {
        match self.options.names_fields {
            true => fields::connection_named(self.fields).map(Box::from).collect(),
            false => Box::default(),
        }
    }

    /// Whether this 101 switches to protocols that were `offered`, and to nothing else.
    pub fn switches_to_one_of(&self, offered: &[Box<str>]) -> bool {
        let mut chosen = self
            .fields
            .iter()
            .filter(|field| fields::recognise(field.name) == Name::Upgrade)
            .flat_map(|field| fields::list(field.value))
            .filter(|name| !name.is_empty())
            .peekable();
        chosen.peek().is_some()
            && chosen.all(|name| offered.iter().any(|offer| name.eq_ignore_ascii_case(offer.as_bytes())))
    }
}

/// `timeout=N`, among the parameters of a Keep-Alive field.
fn timeout_parameter(parameter: &[u8]) -> Option<u64> {
    let (name, value) = parameter.split_at_checked(8)?;
    if name.eq_ignore_ascii_case(b"timeout=") { fields::decimal(value) } else { None }
}
