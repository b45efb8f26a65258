//! What has happened that an operator would want to know of: few things, each with a word and a sentence.
//!
//! Whoever has something to tell leaves it here and goes on; nobody waits. If nobody listens, the oldest go.

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use std::time::SystemTime;

/// As many events wait for somebody who listens.
const EVENTS: usize = 256;

/// Something that has happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// When.
    pub at: SystemTime,
    /// In a word.
    pub kind: EventKind,
    /// In a sentence.
    pub text: String,
}

/// What may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A backend was taken out of the rotation.
    Ejected,
    /// A backend is back.
    Readmitted,
    /// Another configuration holds.
    Reloaded,
    /// Another configuration was offered, and the old one is kept.
    ReloadRefused,
    /// Requests are turned away because there are too many; or no longer.
    Shedding,
    /// A backend, or all of this process, is drained; or a backend is no longer.
    Drain,
    /// The process has begun to serve.
    Started,
}

impl EventKind {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            EventKind::Ejected => "ejected",
            EventKind::Readmitted => "readmitted",
            EventKind::Reloaded => "reloaded",
            EventKind::ReloadRefused => "reload-refused",
            EventKind::Shedding => "shedding",
            EventKind::Drain => "drain",
            EventKind::Started => "started",
        }
    }
}

/// Where events are told and heard.
#[derive(Debug)]
pub struct Events {
    tell: Sender<Event>,
    hear: Receiver<Event>,
}

impl Default for Events {
    fn default() -> Events {
        let (tell, hear) = bounded(EVENTS);
        Events { tell, hear }
    }
}

impl Events {
    /// Tells of something that happens now.
    pub fn tell(&self, kind: EventKind, text: String) {
        if let Err(TrySendError::Full(event)) = self.tell.try_send(Event { at: SystemTime::now(), kind, text }) {
            let _oldest = self.hear.try_recv();
            let _full_again = self.tell.try_send(event);
        }
    }

    /// What was told since the last time, in that order.
    pub fn hear(&self) -> impl Iterator<Item = Event> {
        self.hear.try_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nobody_listens_the_oldest_go() {
        let events = Events::default();
        for nth in 0..EVENTS + 3 {
            events.tell(EventKind::Started, nth.to_string());
        }
        let heard: Vec<String> = events.hear().map(|event| event.text).collect();
        assert_eq!((heard.len(), &*heard[0], &*heard[EVENTS - 1]), (EVENTS, "3", "258"));
    }
}
