//! One connection: a head is read, judged and answered, and that is all.

use super::answer::{Answer, Kind};
use super::guard::{self, Wish};
use super::pulse::View;
use super::{House, VIEWERS, VISITS, page, stats};
use crate::error::Fault;
use crate::events::EventKind;
use crate::http::{FieldTable, Flaw, HeadScan, Limits, Request, refuse_early};
use crate::net::{self, Presence};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Little is asked for here.
const LIMITS: Limits = Limits { head_bytes: 8 * 1024, target_bytes: 1024, fields: 64 };

/// How long something may take, and how long while more than `VISITS` are here: others wait then, and who means it is
/// faster. A crowd makes way, whatever it does: `CROWD` visitors in twice `HASTE`, so that a probe behind sixty-four others
/// is answered within a second.
struct Time {
    at_leisure: Duration,
    in_haste: Duration,
}

const HASTE: Duration = Duration::from_millis(250);

/// A head, from the beginning of the connection to its last byte.
const HEAD: Time = Time { at_leisure: Duration::from_secs(5), in_haste: HASTE };

/// An answer, from its first byte to its last.
const ANSWER: Time = Time { at_leisure: Duration::from_secs(10), in_haste: HASTE };

/// One set of numbers, to a viewer: whoever takes longer does not look. Viewers keep nobody waiting.
const FRAME: Time = Time { at_leisure: Duration::from_secs(1), in_haste: Duration::from_secs(1) };

/// The close, after the answer, for what the client is still sending.
const LINGER: Time = Time { at_leisure: Duration::from_millis(500), in_haste: Duration::ZERO };

/// So often is looked whether there is a crowd.
const LOOK: Duration = Duration::from_millis(100);

/// What the kernel may keep for a viewer that does not read, about.
const UNREAD: usize = 32 * 1024;

/// A visit.
pub(super) struct Visit {
    house: Arc<House>,
    connection: TcpStream,
    number: u64,
    /// Among the visits, or among the viewers.
    presence: Presence,
}

/// Why there is no head.
enum Missing {
    Flawed(Flaw),
    Late,
    Gone,
}

impl Visit {
    /// A visitor has come.
    pub(super) fn new(house: &Arc<House>, connection: TcpStream, number: u64, presence: Presence) -> io::Result<Visit> {
        house.connections().insert(number, connection.try_clone()?);
        Ok(Visit { house: Arc::clone(house), connection, number, presence })
    }

    /// Answers, and ends.
    pub(super) fn serve(mut self) {
        let answered = match self.head() {
            Ok(head) => self.answer(&head),
            Err(Missing::Flawed(flaw)) => self.say(&refusal(flaw), true),
            Err(Missing::Late) => self.say(&Answer::line(408, "408: the head took too long"), true),
            Err(Missing::Gone) => return,
        };
        if answered.is_ok() {
            self.linger();
        }
    }

    fn head(&mut self) -> Result<Vec<u8>, Missing> {
        let began = Instant::now();
        let mut scan = HeadScan::of_request();
        let mut head = Vec::new();
        let mut buffer = [0; 2048];
        loop {
            // What is here already is read, however late its thread has come to run.
            let left = self.left(began, &HEAD);
            self.connection.set_read_timeout(Some(look(left))).map_err(|_| Missing::Gone)?;
            match self.connection.read(&mut buffer) {
                Ok(0) => return Err(Missing::Gone),
                Ok(n) => head.extend_from_slice(&buffer[..n]),
                Err(error) if is_late(&error) || error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Missing::Gone),
            }
            match scan.advance(&head) {
                Ok(Some(end)) => {
                    head.truncate(end); // what is behind it is not looked at: one request a connection, and no body
                    return Ok(head);
                }
                Ok(None) => refuse_early(&head, LIMITS).map_err(Missing::Flawed)?,
                Err(flaw) => return Err(Missing::Flawed(flaw)),
            }
            if left.is_zero() {
                return Err(if head.is_empty() { Missing::Gone } else { Missing::Late });
            }
        }
    }

    fn answer(&mut self, head: &[u8]) -> io::Result<()> {
        let mut table = FieldTable::default();
        let request = match Request::read(head, &mut table, LIMITS) {
            Ok(request) => request,
            Err(flaw) => return self.say(&refusal(flaw), !head.starts_with(b"HEAD ")),
        };
        let with_body = request.method != "HEAD";
        let snapshot = self.house.snapshot();
        let wish = match guard::judge(&request, &snapshot.config.admin) {
            Ok(wish) => wish,
            Err(refusal) => return self.say(&refusal, with_body),
        };
        let answer = match wish {
            Wish::Events if with_body => return self.watch(),
            Wish::Events => Answer::new(200, Kind::Events, ""),
            Wish::Page => Answer::new(200, Kind::Html, self.house.view(page::write)),
            Wish::Tables => Answer::new(200, Kind::Html, self.house.view(page::write_tables)),
            Wish::Reading(text) => Answer::new(200, Kind::Text, text),
            Wish::Alive => match self.house.is_alive() {
                true => Answer::line(200, "alive"),
                false => Answer::line(503, "503: no worker has looked for work for a while"),
            },
            Wish::Ready => match self.house.unready() {
                None => Answer::line(200, "ready"),
                Some(why) => Answer::line(503, &format!("503: {why}")),
            },
            Wish::Stats => {
                self.house.board.note_interest();
                Answer::new(200, Kind::Json, self.house.view(stats::write))
            }
            Wish::Metrics => Answer::new(200, Kind::Metrics, self.house.view(View::text)),
            Wish::Order { name, drain } => self.order(&name, drain),
        };
        self.say(&answer, with_body)
    }

    fn order(&self, name: &str, drain: bool) -> Answer {
        let live = &self.house.shared.live;
        let word = if drain { "drain" } else { "ready" };
        match live.order(name, drain) {
            None => Answer::line(404, &format!("404: there is no backend {name:?}")),
            Some(false) => Answer::line(200, &format!("{name}: {word}, as before")),
            Some(true) => {
                let text = match drain {
                    true => format!("{name} is drained by order: it gets nothing new, until an order or a reload"),
                    false => format!("{name} is made ready by order, until an order or a reload"),
                };
                log::info!("backend {text}");
                live.books.events.tell(EventKind::Drain, text);
                Answer::line(200, &format!("{name}: {word}"))
            }
        }
    }

    /// The event stream, to the end of either side.
    fn watch(&mut self) -> io::Result<()> {
        if !self.become_viewer() {
            let full = format!("503: {VIEWERS} are watching already, and no more may");
            return self.say(&Answer::line(503, &full).with("Retry-After", "5"), true);
        }
        net::limit_send_buffer(&self.connection, UNREAD)?;
        let head = Answer::new(200, Kind::Events, "").head(page::POLICY);
        self.write(&[head.as_bytes(), b"retry: 1000\n\n"].concat(), &FRAME)?;
        let mut seen = self.house.board.frame();
        while let Some((number, frame)) = self.house.board.next_frame(seen) {
            seen = number;
            self.write(frame.as_bytes(), &FRAME)?;
        }
        Ok(())
    }

    /// Leaves the ordinary visits for the viewers, if there is a place among them.
    fn become_viewer(&mut self) -> bool {
        let Some(viewer) = self.house.viewers.enter() else { return false };
        self.presence = viewer;
        true
    }

    fn say(&mut self, answer: &Answer, with_body: bool) -> io::Result<()> {
        let mut bytes = answer.head(page::POLICY).into_bytes();
        if with_body {
            bytes.extend_from_slice(answer.body.as_bytes());
        }
        self.write(&bytes, &ANSWER)
    }

    /// Writes all of it within this time, or fails.
    fn write(&mut self, mut bytes: &[u8], time: &Time) -> io::Result<()> {
        let began = Instant::now();
        loop {
            // What the kernel takes at once is said, however late it is.
            let left = self.left(began, time);
            self.connection.set_write_timeout(Some(look(left)))?;
            match self.connection.write(bytes) {
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(error) if is_late(&error) || error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if bytes.is_empty() {
                return Ok(());
            }
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
        }
    }

    /// A close with unread bytes would be a reset, and overtake the answer.
    fn linger(&mut self) {
        let began = Instant::now();
        let mut buffer = [0; 2048];
        if self.connection.shutdown(Shutdown::Write).is_err() {
            return;
        }
        loop {
            let left = self.left(began, &LINGER);
            if self.connection.set_read_timeout(Some(look(left))).is_err() {
                return;
            }
            match self.connection.read(&mut buffer) {
                Ok(n) if n > 0 => {}
                Err(error) if is_late(&error) => {}
                Ok(_) | Err(_) => return,
            }
            if left.is_zero() {
                return;
            }
        }
    }

    /// How much is left of this time, as many as are here now.
    fn left(&self, began: Instant, time: &Time) -> Duration {
        let is_crowded = self.house.visits.count() > VISITS;
        let time = if is_crowded { time.in_haste } else { time.at_leisure };
        time.saturating_sub(began.elapsed())
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.house.connections().remove(&self.number);
    }
}

fn refusal(flaw: Flaw) -> Answer {
    let status = Fault::of_request(flaw).reason.status();
    Answer::line(status, &format!("{status}: {}", flaw.text()))
}

/// How long is waited until the next look whether there is a crowd. Not nothing at all, which sockets take for ever.
fn look(left: Duration) -> Duration {
    left.clamp(Duration::from_millis(1), LOOK)
}

fn is_late(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock || error.kind() == ErrorKind::TimedOut
}
