//! A head, gathered from as many reads as it takes.

use crate::http::{Flaw, HeadScan};
use crate::net::Connection;
use std::io;

/// A head that is being read. Most arrive whole in the first read, and then nothing is ever stored here.
#[derive(Debug)]
pub(super) struct Gather {
    so_far: Vec<u8>,
    scan: HeadScan,
}

/// Larger than most heads.
pub(super) const PORTION: usize = 2048;

/// Why the head isn't there.
#[derive(Debug)]
pub(super) enum Missing {
    /// More must be read first.
    NotYet,
    /// It can't become a valid head any more.
    Flawed(Flaw),
    /// The connection ended, or was lost.
    Ended,
}

/// A head that is complete: the buffer holds it, and whatever came behind it.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) head_end: usize,
    pub(super) end: usize,
}

impl Gather {
    pub(super) fn of_request() -> Gather {
        Gather { so_far: Vec::new(), scan: HeadScan::of_request() }
    }

    pub(super) fn of_response() -> Gather {
        Gather { so_far: Vec::new(), scan: HeadScan::strict() }
    }

    /// No byte has come.
    pub(super) fn is_empty(&self) -> bool {
        self.so_far.is_empty()
    }

    /// Nothing has come but an empty line, or its beginning, which is ignored.
    pub(super) fn is_blank(&self) -> bool {
        matches!(self.so_far.as_slice(), b"\r" | b"\r\n")
    }

    /// What has come so far of a head that is not complete.
    pub(super) fn so_far(&self) -> &[u8] {
        &self.so_far
    }

    /// Reads on, into a buffer that is larger than any head may be. `check` judges what is there while the head is
    /// incomplete: it may be too large already.
    pub(super) fn read(
        &mut self,
        from: &mut Connection,
        buffer: &mut [u8],
        check: impl Fn(&[u8]) -> Result<(), Flaw>,
    ) -> Result<Gathered, Missing> {
        let had = self.so_far.len();
        buffer[..had].copy_from_slice(&self.so_far);
        let mut end = had;
        let outcome = self.read_on(from, buffer, &mut end, check);
        if outcome.is_err() {
            self.so_far.extend_from_slice(&buffer[had..end]);
        }
        outcome
    }

    /// Reads behind `end`, and moves it, until the head is complete or reading does not help.
    fn read_on(
        &mut self,
        from: &mut Connection,
        buffer: &mut [u8],
        end: &mut usize,
        check: impl Fn(&[u8]) -> Result<(), Flaw>,
    ) -> Result<Gathered, Missing> {
        loop {
            // A pipelined request is read in small portions, since what is behind it must be put back again.
            let room = if from.holds_bytes() { buffer.len().min(*end + PORTION) } else { buffer.len() };
            match from.read(&mut buffer[*end..room]) {
                Ok(n) if n > 0 => *end += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Missing::NotYet),
                Ok(_) | Err(_) => return Err(Missing::Ended),
            }
            let so_far = &buffer[..*end];
            if let Some(head_end) = self.scan.advance(so_far).map_err(Missing::Flawed)? {
                return Ok(Gathered { head_end, end: *end });
            }
            check(so_far).map_err(Missing::Flawed)?;
        }
    }
}
