//! One direction of an exchange: bytes of a body from one connection to the other.
//!
//! A pump is its framing state and the bytes that the other side has not taken yet, no more. It borrows the worker's
//! buffer for a turn. While more of a body is to come than fits there, no more is taken from the source than the sink
//! takes. Else, when a write falls short, the rest is copied out, sized to fit. In both cases small pieces are read next,
//! and larger ones again as writes go through whole.

use super::desk::Desk;
use crate::http::{
    BodyFraming, CHUNK_HEAD_ROOM, CHUNK_TAIL, ChunkDecoder, Flaw, LAST_CHUNK, forward_trailers, write_chunk_head,
};
use crate::net::{Connection, Stuck, Wants};
use std::io;
use std::ops::Range;

/// What is read at once from a source whose sink was slow; twice as much after each write that goes through whole.
const CAUTIOUS: u32 = 8 * 1024;

#[derive(Debug)]
pub(super) struct Pump {
    decoder: Decoder,
    encoding: Encoding,
    /// Bytes that the sink has yet to take, from `taken` on.
    leftover: Vec<u8>,
    taken: usize,
    /// The source has given everything.
    ended: bool,
    /// At most so much is read at once.
    room: u32,
    /// The sink would not take what is still with the source.
    is_blocked: bool,
    /// What Connection named in the head: no trailer may carry it on.
    named: Box<[Box<str>]>,
    /// Bytes of the body so far, without any framing.
    carried: u64,
    /// No body may have more.
    most: u64,
    /// Something was read from the source.
    pub(super) began: bool,
}

#[derive(Debug)]
enum Decoder {
    Length(u64),
    Chunked(Box<ChunkDecoder>),
    UntilClose,
}

/// A piece of a body, among bytes that were read: it has to be given on before others are read into their buffer.
#[must_use]
pub(super) struct Piece {
    data: Range<usize>,
    /// How many of the bytes belong to the body, its framing included.
    pub(super) used: usize,
    /// What goes out behind it.
    end: Vec<u8>,
}

/// How what goes out is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As it is: a known length, or the end of the connection, says where it ends.
    Raw,
    /// In chunks of ours.
    Chunked,
}

/// Why a pump stops before its end.
#[derive(Debug)]
pub(super) enum Halt {
    /// The source has nothing now.
    SourceQuiet,
    /// The sink takes nothing now.
    SinkFull,
    /// The turn has moved enough bytes: others first. The source wakes us.
    BudgetSpent,
    /// The source ended before the body did, or was lost.
    SourceCut,
    /// What the source sent is not a body.
    SourceFlawed(Flaw),
    /// The source has sent more than it may.
    SourceTooLong,
    /// The sink is lost.
    SinkLost,
}

impl Halt {
    /// What to wait for: on the source and on the sink. `None`: waiting does not help.
    pub(super) fn wants(&self) -> Option<(Wants, Wants)> {
        match self {
            Halt::SourceQuiet | Halt::BudgetSpent => Some((Wants::READABLE, Wants::NOTHING)),
            Halt::SinkFull => Some((Wants::NOTHING, Wants::WRITABLE)),
            Halt::SourceCut | Halt::SourceFlawed(_) | Halt::SourceTooLong | Halt::SinkLost => None,
        }
    }
}

impl Pump {
    /// A pump for a body framed like this. Trailer sections have up to `trailer_limit` bytes.
    pub(super) fn new(framing: BodyFraming, encoding: Encoding, trailer_limit: usize, named: Box<[Box<str>]>) -> Pump {
        let decoder = match framing {
            BodyFraming::None => Decoder::Length(0),
            BodyFraming::Length(length) => Decoder::Length(length),
            BodyFraming::Chunked => Decoder::Chunked(Box::new(ChunkDecoder::new(trailer_limit))),
            BodyFraming::UntilClose => Decoder::UntilClose,
        };
        Pump {
            ended: framing == BodyFraming::None,
            decoder,
            encoding,
            leftover: Vec::new(),
            taken: 0,
            room: u32::MAX,
            is_blocked: false,
            named,
            carried: 0,
            most: u64::MAX,
            began: false,
        }
    }

    /// The same, for bodies of at most so many bytes.
    pub(super) fn up_to(self, most: u64) -> Pump {
        Pump { most, ..self }
    }

    /// Everything between two peers that speak a protocol of their own.
    pub(super) fn tunnel() -> Pump {
        Pump::new(BodyFraming::UntilClose, Encoding::Raw, 0, Box::default())
    }

    /// The source has given everything; the sink may not have taken it yet.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The sink has bytes to take.
    pub(super) fn has_leftover(&self) -> bool {
        self.taken < self.leftover.len()
    }

    /// The sink is slower than the source.
    pub(super) fn waits_for_sink(&self) -> bool {
        self.has_leftover() || self.is_blocked
    }

    /// The bytes that the sink has yet to take.
    pub(super) fn take_leftover(&mut self) -> Vec<u8> {
        let leftover = std::mem::take(&mut self.leftover).split_off(self.taken);
        self.taken = 0;
        leftover
    }

    /// Bytes of the body so far, without any framing.
    pub(super) fn carried(&self) -> u64 {
        self.carried
    }

    /// Those of them that the sink has taken; where framing is left over with the rest, a few less.
    pub(super) fn delivered(&self) -> u64 {
        self.carried.saturating_sub((self.leftover.len() - self.taken) as u64)
    }

    /// The first `length` bytes of the body have gone another way.
    pub(super) fn skip(&mut self, length: u64) {
        if let Decoder::Length(left) = &mut self.decoder {
            *left -= length;
            self.ended = *left == 0;
            self.carried += length;
        }
    }

    /// Moves what can be moved without waiting. `Ok`: the body has ended, and the sink has all of it.
    pub(super) fn run(&mut self, from: &mut Connection, to: &mut Connection, desk: &mut Desk) -> Result<(), Halt> {
        match self.run_to_last(from, to, desk)? {
            Some(last) => self.finish(&last, to, desk),
            None => Ok(()),
        }
    }

    /// The same, but the last piece is handed out: it lies in the desk's buffer still, and nothing is wanted from the source
    /// any more. `finish` gives it on. `None`: the sink has all, as after a pour to the end.
    pub(super) fn run_to_last(
        &mut self,
        from: &mut Connection,
        to: &mut Connection,
        desk: &mut Desk,
    ) -> Result<Option<Piece>, Halt> {
        loop {
            self.flush(to, desk)?;
            if self.ended {
                return Ok(None);
            }
            if desk.budget == 0 && !from.holds_bytes() {
                desk.spend(from).map_err(|_| Halt::SourceCut)?;
                return Err(Halt::BudgetSpent);
            }
            let room = desk.inbound.len().min(self.room as usize);
            if let Some(left) = self.long_rest(desk.inbound.len())
                && !from.holds_bytes()
            {
                self.pass_on(left, from, to, room, desk)?;
                continue;
            }
            let piece = match from.read(&mut desk.inbound[..room]) {
                Ok(0) => self.source_ended()?,
                Ok(n) => {
                    desk.budget = desk.budget.saturating_sub(n);
                    let piece = self.take_in(&mut desk.inbound[..n])?;
                    from.put_back(&desk.inbound[piece.used..n]); // before anything can fail: they are none of the body
                    if self.ended && n == room && !from.holds_bytes() {
                        from.look_again(); // a full buffer, and just the end of the body: nothing more need be there
                    }
                    piece
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Halt::SourceQuiet),
                Err(_) => return Err(Halt::SourceCut),
            };
            if self.ended {
                return Ok(Some(piece));
            }
            self.give_on_read(&piece, to, desk)?;
        }
    }

    /// Gives on the last piece. `Ok`: the sink has all of the body.
    pub(super) fn finish(&mut self, last: &Piece, to: &mut Connection, desk: &mut Desk) -> Result<(), Halt> {
        self.give_on_read(last, to, desk)?;
        self.flush(to, desk)
    }

    /// Writes a piece of what has been read into the desk's buffer.
    fn give_on_read(&mut self, piece: &Piece, to: &mut Connection, desk: &mut Desk) -> Result<(), Halt> {
        let inbound = std::mem::take(&mut desk.inbound);
        let given = self.give_on(&[], &inbound, piece, to, desk);
        desk.inbound = inbound;
        given
    }

    /// How much is to come, if that is more than a buffer holds and goes on as it is. (A shorter rest is taken in: that
    /// frees the source.)
    fn long_rest(&self, buffer: usize) -> Option<u64> {
        match self.decoder {
            Decoder::Length(left) if left > buffer as u64 && self.encoding == Encoding::Raw => Some(left),
            Decoder::Length(_) | Decoder::Chunked(_) | Decoder::UntilClose => None,
        }
    }

    /// Passes on as much as the sink takes, and leaves the others with the source. Where somebody wants to be told of
    /// every byte, or there is no pipe, they come by here.
    fn pass_on(
        &mut self,
        left: u64,
        from: &mut Connection,
        to: &mut Connection,
        room: usize,
        desk: &mut Desk,
    ) -> Result<(), Halt> {
        let is_poured = !from.is_observed() && !to.is_observed() && desk.pipe.is_open(desk.now);
        let outcome = match is_poured {
            true => from.pour(to, &mut desk.pipe, left, &mut self.leftover),
            false => Ok(0),
        };
        let outcome = match outcome {
            Ok(0) => from.pass_on(to, &mut desk.inbound[..room]),
            outcome => outcome,
        };
        self.is_blocked = matches!(&outcome, Err(Stuck::Sink(_)));
        match outcome {
            Ok(0) => Err(Halt::SourceCut),
            Ok(n) => {
                self.skip(n as u64);
                if self.ended {
                    from.look_again(); // is it free for another exchange?
                }
                self.began = true;
                desk.budget = desk.budget.saturating_sub(n);
                desk.moved = true;
                self.room = self.room.saturating_mul(2);
                if !self.ended {
                    from.acknowledge();
                }
                Ok(())
            }
            Err(Stuck::Source(error)) if error.kind() == io::ErrorKind::WouldBlock => Err(Halt::SourceQuiet),
            Err(Stuck::Source(_)) => Err(Halt::SourceCut),
            Err(Stuck::Sink(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                self.room = CAUTIOUS;
                Err(Halt::SinkFull)
            }
            Err(Stuck::Sink(_)) => Err(Halt::SinkLost),
            Err(Stuck::Spilt(_)) => {
                self.began = true; // not whole any more: it can't be said again
                Err(Halt::SinkLost)
            }
        }
    }

    /// Finds the body's piece in bytes from the source.
    pub(super) fn take_in(&mut self, bytes: &mut [u8]) -> Result<Piece, Halt> {
        self.began |= !bytes.is_empty();
        let (data, used, ended) = match &mut self.decoder {
            Decoder::Length(left) => {
                let used = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= used as u64;
                (0..used, used, *left == 0)
            }
            Decoder::Chunked(decoder) => {
                let decoded = decoder.decode(bytes).map_err(Halt::SourceFlawed)?;
                (decoded.data, decoded.used, decoded.ended)
            }
            Decoder::UntilClose => (0..bytes.len(), bytes.len(), false),
        };
        let end = if ended { self.ending()? } else { Vec::new() };
        self.ended = ended;
        self.carried += data.len() as u64;
        Ok(Piece { data, used, end })
    }

    /// Writes a piece of these bytes, behind `before`. What the sink does not take is left over.
    pub(super) fn give_on(
        &mut self,
        before: &[u8],
        bytes: &[u8],
        piece: &Piece,
        to: &mut Connection,
        desk: &mut Desk,
    ) -> Result<(), Halt> {
        if self.carried > self.most {
            return Err(Halt::SourceTooLong); // before the sink gets an end that makes it look whole
        }
        let (data, end) = (&bytes[piece.data.clone()], &piece.end);
        match self.encoding {
            Encoding::Raw => self.send(&[before, data], to, desk),
            Encoding::Chunked => {
                let mut room = [0; CHUNK_HEAD_ROOM];
                let (chunk_head, tail) = match data.len() {
                    0 => (&[][..], &[][..]),
                    size => (write_chunk_head(size, &mut room), CHUNK_TAIL),
                };
                self.send(&[before, chunk_head, data, tail, end], to, desk)
            }
        }
    }

    /// The source has ended: for some framings that is the end of the body.
    fn source_ended(&mut self) -> Result<Piece, Halt> {
        match self.decoder {
            Decoder::Length(_) | Decoder::Chunked(_) => Err(Halt::SourceCut),
            Decoder::UntilClose => {
                self.ended = true;
                Ok(Piece { data: 0..0, used: 0, end: self.ending()? })
            }
        }
    }

    /// What goes out behind the data: the last chunk, with the trailers that may go on, or nothing. Trailers are judged
    /// even where they can't go on: a faulty end is no end.
    fn ending(&self) -> Result<Vec<u8>, Halt> {
        let trailers = match &self.decoder {
            Decoder::Chunked(decoder) => decoder.trailers(),
            Decoder::Length(_) | Decoder::UntilClose => &[],
        };
        if trailers.is_empty() && self.encoding == Encoding::Raw {
            return Ok(Vec::new());
        }
        let mut end = LAST_CHUNK.to_vec();
        forward_trailers(trailers, &self.named, &mut end).map_err(Halt::SourceFlawed)?;
        Ok(if self.encoding == Encoding::Chunked { end } else { Vec::new() })
    }

    /// Writes pieces, behind what is left over already, and keeps what the sink does not take. (Of a sink that is lost too:
    /// it has not been delivered.)
    pub(super) fn send(&mut self, pieces: &[&[u8]], to: &mut Connection, desk: &mut Desk) -> Result<(), Halt> {
        let outcome = if self.has_leftover() { Ok(0) } else { to.write(pieces) };
        let (written, is_lost) = match outcome {
            Ok(n) => (n, false),
            Err(error) => (0, error.kind() != io::ErrorKind::WouldBlock),
        };
        desk.moved |= written > 0;
        let mut skip = written;
        for piece in pieces {
            let skipped = skip.min(piece.len());
            skip -= skipped;
            if skipped < piece.len() {
                self.room = CAUTIOUS;
                self.leftover.reserve_exact(piece.len() - skipped);
                self.leftover.extend_from_slice(&piece[skipped..]);
            }
        }
        if !self.has_leftover() {
            self.room = self.room.saturating_mul(2);
        }
        if is_lost { Err(Halt::SinkLost) } else { Ok(()) }
    }

    /// Writes what is left over.
    pub(super) fn flush(&mut self, to: &mut Connection, desk: &mut Desk) -> Result<(), Halt> {
        self.is_blocked = false; // unless it turns out again
        while self.has_leftover() {
            match to.write(&[&self.leftover[self.taken..]]) {
                Ok(n) => {
                    self.taken += n;
                    desk.moved = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Halt::SinkFull),
                Err(_) => return Err(Halt::SinkLost),
            }
        }
        if self.taken > 0 {
            self.leftover = Vec::new();
            self.taken = 0;
        }
        Ok(())
    }
}
