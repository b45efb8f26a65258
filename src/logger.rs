//! What the program says about itself, on standard error.
//!
//! `simple_logger` does the formatting, but it writes at once, panics when it can't, and passes control characters on
//! to the terminal. So it lives behind a thread of its own: whoever logs hands over a line and goes on, and a full disk
//! takes nobody down.

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{Level, LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

/// As many lines may wait; beyond them, lines are dropped.
const LINES: usize = 1024;

/// The name of the thread that writes.
const WRITER: &str = "log";

enum Message {
    Line(Level, String),
    Flush(Sender<()>),
}

struct Logger {
    messages: Sender<Message>,
}

/// Begins to log at this level. A second call changes only the level.
pub fn start(level: LevelFilter) {
    log::set_max_level(level);
    let (messages, incoming) = bounded(LINES);
    let writer = thread::Builder::new().name(WRITER.to_owned()).spawn(move || write_all(&incoming));
    if writer.is_ok() && log::set_boxed_logger(Box::new(Logger { messages })).is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            if thread::current().name() == Some(WRITER) {
                return; // it could not write, and could not write that it could not write, and so on for ever
            }
            let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
            log::error!("a panic at {place}: {}", message(panic.payload()));
        }));
    }
}

fn message(payload: &(dyn std::any::Any + Send)) -> &str {
    payload.downcast_ref::<&str>().copied().or(payload.downcast_ref().map(String::as_str)).unwrap_or("no message")
}

fn write_all(messages: &Receiver<Message>) {
    let printer = SimpleLogger::new().with_utc_timestamps();
    for message in messages {
        match message {
            Message::Line(level, text) => {
                // It panics when standard error is gone; then there is nobody to tell.
                let _gone = catch_unwind(AssertUnwindSafe(|| {
                    let arguments = format_args!("{text}");
                    printer.log(&Record::builder().level(level).target("threadbare").args(arguments).build());
                }));
            }
            Message::Flush(done) => drop(done),
        }
    }
}

/// What a stranger wrote must not end our line, nor steer somebody's terminal.
fn without_controls(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            plain.extend(character.escape_default());
        } else {
            plain.push(character);
        }
    }
    plain
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let text = without_controls(&record.args().to_string());
            let _full = self.messages.try_send(Message::Line(record.level(), text));
        }
    }

    /// Waits until the lines so far are written, at most a second.
    fn flush(&self) {
        let (done, is_done) = bounded(0);
        let second = Duration::from_secs(1);
        if self.messages.send_timeout(Message::Flush(done), second).is_ok() {
            let _late = is_done.recv_timeout(second);
        }
    }
}
