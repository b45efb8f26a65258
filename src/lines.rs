//! Lines on their way to a file.
//!
//! Workers never write to a file. They gather lines while they work, hand them over in batches, and go on; one thread
//! writes. When it can't keep up, because a disk is full or a pipe is slow, lines are dropped and counted: a log may
//! stop, the traffic may not.

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// As many batches of lines may wait for the writer; beyond them, lines are dropped. At 8 lines a batch this is half a
/// second of a busy machine.
const BATCHES: usize = 8192;

/// So many bytes of them may wait: what strangers write can make lines a hundred times as long as they usually are.
const BYTES: usize = 32 * 1024 * 1024;

/// How long the writer lets lines gather. A sender that finds it asleep in the channel pays a wake-up, so it is not
/// woken for each batch, but for the first after a silence.
const GATHER: Duration = Duration::from_millis(20);

/// Lost lines are told of at once, and then at most so often.
const BETWEEN_COMPLAINTS: Duration = Duration::from_secs(10);

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The end of this file.
    File(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Stdout => f.write_str("standard output"),
            Place::Stderr => f.write_str("standard error"),
            Place::File(path) => path.display().fmt(f),
        }
    }
}

impl Place {
    /// Opens it for writing; a file that is not there is made.
    ///
    /// # Errors
    /// The system's; also that it is a named pipe, which would hold up whoever opens it until somebody reads.
    pub fn open(&self) -> io::Result<File> {
        match self {
            Place::Stdout => io::stdout().as_fd().try_clone_to_owned().map(File::from),
            Place::Stderr => io::stderr().as_fd().try_clone_to_owned().map(File::from),
            Place::File(path) => {
                if path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo()) {
                    let what = "it is a named pipe; write to standard output, and lead that into the pipe";
                    return Err(io::Error::new(ErrorKind::InvalidInput, what));
                }
                OpenOptions::new().append(true).create(true).open(path)
            }
        }
    }
}

/// Where workers hand their lines over.
#[derive(Debug)]
pub struct Lines {
    batches: Sender<Vec<u8>>,
    /// The writer's end too, for what it has left when it hangs.
    incoming: Receiver<Vec<u8>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    desk: Arc<Desk>,
}

/// What the writer and the others share.
#[derive(Debug)]
struct Desk {
    /// What is written: `access log`.
    name: &'static str,
    /// Where to write from now on.
    next: Mutex<Option<File>>,
    ended: AtomicBool,
    /// Memory for what was handed over and has not been written, in bytes.
    waiting: AtomicUsize,
    lost: AtomicU64,
    /// Those of them that have been told of.
    told: AtomicU64,
    complaint: Mutex<Option<Instant>>,
}

impl Lines {
    /// Lines of this kind: `access log`. Nobody writes them yet.
    pub fn new(name: &'static str) -> Lines {
        let (batches, incoming) = bounded(BATCHES);
        let desk = Arc::new(Desk {
            name,
            next: Mutex::new(None),
            ended: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            told: AtomicU64::new(0),
            complaint: Mutex::new(None),
        });
        Lines { batches, incoming, writer: Mutex::new(None), desk }
    }

    /// Writes to this file from now on, by a thread that is started for it or that has written elsewhere until now. What
    /// is being written still goes where the rest went.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn write_to(&self, file: File) -> io::Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.is_some() {
            *self.desk.next() = Some(file);
            self.wake();
            return Ok(());
        }
        let (incoming, desk) = (self.incoming.clone(), Arc::clone(&self.desk));
        let thread = thread::Builder::new().name(self.desk.name.to_owned());
        *writer = Some(thread.spawn(move || write_all(&incoming, file, &desk))?);
        Ok(())
    }

    /// Hands over a batch of whole lines, and leaves the buffer empty.
    pub fn send(&self, lines: &mut Vec<u8>) {
        if lines.is_empty() {
            return;
        }
        // The next batch will be about as large: grown from nothing, it would be copied several times.
        let batch = std::mem::replace(lines, Vec::with_capacity(lines.len() * 5 / 4));
        let size = batch.capacity();
        let before = self.desk.waiting.fetch_add(size, Ordering::Relaxed);
        let outcome = if before + size > BYTES { Err(TrySendError::Full(batch)) } else { self.batches.try_send(batch) };
        if let Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) = outcome {
            self.desk.waiting.fetch_sub(size, Ordering::Relaxed);
            self.desk.lose(count_lines(&batch));
        }
    }

    /// Lets the writer end, once everything handed over so far is written; waits for that until `deadline`, and says
    /// whether it came to that. A pipe that nobody reads may hold it for ever, but not us.
    pub fn end(&self, deadline: Instant) -> bool {
        self.desk.ended.store(true, Ordering::Release);
        self.wake();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let is_finished = || writer.as_ref().is_none_or(JoinHandle::is_finished);
        while !is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        self.desk.lose(self.incoming.try_iter().map(|batch| count_lines(&batch)).sum());
        self.wake(); // that was taken away too: a writer that hangs now is to find its end when it goes on
        self.desk.complain();
        is_finished()
    }

    /// What they are: `access log`.
    pub fn name(&self) -> &'static str {
        self.desk.name
    }

    /// Lines dropped so far.
    pub fn dropped(&self) -> u64 {
        self.desk.lost.load(Ordering::Relaxed)
    }

    /// An empty batch; where there is no room for it the writer is awake.
    fn wake(&self) {
        let _awake = self.batches.try_send(Vec::new());
    }
}

impl Desk {
    fn next(&self) -> MutexGuard<'_, Option<File>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts lines that nobody will read, and says so now and then.
    fn lose(&self, lines: u64) {
        if lines == 0 {
            return;
        }
        self.lost.fetch_add(lines, Ordering::Relaxed);
        let now = Instant::now();
        let mut last = self.complaint.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| now.saturating_duration_since(last) >= BETWEEN_COMPLAINTS) {
            *last = Some(now);
            drop(last);
            self.complain();
        }
    }

    /// Says how many lines have been lost since that was last said.
    fn complain(&self) {
        let lost = self.lost.load(Ordering::Relaxed);
        let new = lost.saturating_sub(self.told.swap(lost, Ordering::Relaxed));
        if new > 0 {
            log::warn!("the {} has lost {new} lines", self.name);
        }
    }
}

fn count_lines(batch: &[u8]) -> u64 {
    batch.iter().map(|&byte| u64::from(byte == b'\n')).sum()
}

/// The writer's life.
fn write_all(batches: &Receiver<Vec<u8>>, file: File, desk: &Desk) {
    let mut sheet = Sheet { out: file, torn: Vec::new(), torn_at: 0 };
    let mut gathered = Vec::new();
    let mut is_healthy = true;
    let take_all = |gathered: &mut Vec<u8>| {
        batches.try_iter().fold(0, |size, batch| {
            gathered.extend_from_slice(&batch);
            size + batch.capacity()
        })
    };
    while let Ok(first) = batches.recv() {
        if !first.is_empty() {
            thread::sleep(GATHER);
        }
        gathered.extend_from_slice(&first);
        let mut size = first.capacity() + take_all(&mut gathered);
        let is_last = desk.ended.load(Ordering::Acquire);
        if is_last {
            size += take_all(&mut gathered); // what was handed over before the end, but after the look
        }
        if let Some(file) = desk.next().take() {
            sheet.turn_over(file);
        }
        match sheet.write(&gathered) {
            Ok(()) if gathered.is_empty() => {}
            Ok(()) => {
                if !is_healthy {
                    log::info!("the {} can be written again", desk.name);
                    desk.complain();
                }
                is_healthy = true;
            }
            Err((lost, error)) => {
                if is_healthy {
                    log::warn!("the {} can't be written: {error}", desk.name);
                }
                is_healthy = false;
                desk.lose(lost);
            }
        }
        desk.waiting.fetch_sub(size, Ordering::Relaxed);
        gathered.clear();
        if is_last {
            desk.lose(count_lines(&sheet.torn));
            return;
        }
    }
}

/// A file that is being written, line by line.
struct Sheet<W> {
    out: W,
    /// A line of which the file has taken only a part, and how much.
    torn: Vec<u8>,
    torn_at: usize,
}

impl<W: Write> Sheet<W> {
    /// Goes on in another file. A torn line goes there as a whole: half a line is none.
    fn turn_over(&mut self, out: W) {
        self.out = out;
        self.torn_at = 0;
    }

    /// Writes these lines, behind the rest of one that was torn.
    ///
    /// # Errors
    /// The system's, and how many lines are lost to it. The one that it tore is not among them: its rest is written
    /// before anything else, once there is room again.
    fn write(&mut self, lines: &[u8]) -> Result<(), (u64, io::Error)> {
        if self.torn_at < self.torn.len() {
            let (written, outcome) = write_as_far_as_possible(&mut self.out, &self.torn[self.torn_at..]);
            self.torn_at += written;
            outcome.map_err(|error| (count_lines(lines), error))?;
        }
        self.torn.clear();
        self.torn_at = 0;
        let (written, outcome) = write_as_far_as_possible(&mut self.out, lines);
        let Err(error) = outcome else { return Ok(()) };
        let (taken, rest) = lines.split_at(written);
        let begun = taken.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let mut lost = rest;
        if begun < written {
            let end = rest.iter().position(|&byte| byte == b'\n').map_or(lines.len(), |end| written + end + 1);
            self.torn.extend_from_slice(&lines[begun..end]);
            self.torn_at = written - begun;
            lost = &lines[end..];
        }
        Err((count_lines(lost), error))
    }
}

/// How much was written, and what came in the way of the rest.
fn write_as_far_as_possible(out: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => return (written, Err(ErrorKind::WriteZero.into())),
            Ok(n) => written += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;

    /// A disk with room for so many bytes.
    struct Disk {
        content: Vec<u8>,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.room - self.content.len());
            if n == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            self.content.extend_from_slice(&bytes[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn however_little_room_there_is_no_line_is_torn_for_good_and_each_is_written_or_counted() {
        let text = b"one\ntwo\nthree\n\nfour\n";
        for room in 0..=text.len() {
            for more in 0..=text.len() {
                let disk = Disk { content: Vec::new(), room };
                let mut sheet = Sheet { out: disk, torn: Vec::new(), torn_at: 0 };
                let lost = |outcome: Result<(), (u64, io::Error)>| outcome.map_or_else(|(lost, _)| lost, |()| 0);
                let mut counted = lost(sheet.write(text));
                sheet.out.room += more;
                counted += lost(sheet.write(text));
                sheet.out.room += 2 * text.len();
                counted += lost(sheet.write(b"last\n"));
                assert_eq!(counted + count_lines(&sheet.out.content), 11, "{room} {more}");
                let all = String::from_utf8(sheet.out.content).unwrap();
                for line in all.lines() {
                    assert!(["one", "two", "three", "", "four", "last"].contains(&line), "{room} {more}: {all:?}");
                }
            }
        }
    }

    #[test]
    fn what_the_writer_cannot_keep_up_with_is_dropped_and_counted() {
        let (reader, pipe) = io::pipe().unwrap();
        let lines = Lines::new("log of a test");
        lines.write_to(File::from(OwnedFd::from(pipe))).unwrap();
        let sent = 4 * BATCHES as u64;
        let begun = Instant::now();
        for nth in 0..sent {
            lines.send(&mut format!("{nth}\n").into_bytes());
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "nobody waits for a pipe that nobody reads");
        assert!(lines.dropped() > 0, "there is no room for {sent}");
        let reading = thread::spawn(move || io::read_to_string(reader).unwrap());
        assert!(lines.end(Instant::now() + Duration::from_secs(10)));
        let text = reading.join().unwrap();
        assert_eq!(count_lines(text.as_bytes()) + lines.dropped(), sent);
        let numbers: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
        assert!(numbers.is_sorted_by(|one, next| one < next), "in their order, each once");
    }

    #[test]
    fn lines_that_wait_take_no_more_memory_however_long_they_are() {
        let (reader, pipe) = io::pipe().unwrap();
        let lines = Lines::new("log of a test");
        lines.write_to(File::from(OwnedFd::from(pipe))).unwrap();
        let mut line = vec![b'x'; 1024 * 1024];
        line.push(b'\n');
        let room = (BYTES / line.len()) as u64;
        for _ in 0..room + 10 {
            lines.send(&mut line.clone());
        }
        assert_eq!(lines.dropped(), 10, "there is room for {room}");
        lines.send(&mut b"short\n".to_vec());
        assert_eq!(lines.dropped(), 10, "and for what is short");
        let reading = thread::spawn(move || io::copy(&mut io::BufReader::new(reader), &mut io::sink()).unwrap());
        assert!(lines.end(Instant::now() + Duration::from_secs(10)));
        assert_eq!(reading.join().unwrap(), room * line.len() as u64 + 6);
        assert_eq!(lines.desk.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_writer_that_hangs_is_left_behind_and_what_it_has_not_written_is_counted() {
        for is_taken in [false, true] {
            let (reader, pipe) = io::pipe().unwrap();
            let lines = Lines::new("log of a test");
            lines.write_to(File::from(OwnedFd::from(pipe))).unwrap();
            let is_at_it = || {
                while !lines.incoming.is_empty() {
                    thread::sleep(Duration::from_millis(1)); // until the writer has all in its hands
                }
            };
            let mut line = vec![b'x'; 200 * 1024]; // more than a pipe holds
            line.push(b'\n');
            lines.send(&mut line);
            is_at_it();
            lines.send(&mut b"one\ntwo\n".to_vec()); // which it may take too, before it begins to write
            if is_taken {
                is_at_it();
            }
            assert!(!lines.end(Instant::now() + Duration::from_millis(50)));
            assert!(lines.dropped() <= 2, "{}", lines.dropped());
            drop(reader); // lets it go
            let deadline = Instant::now() + Duration::from_secs(10);
            while lines.dropped() < 3 {
                assert!(Instant::now() < deadline, "{}, {is_taken}", lines.dropped());
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    #[test]
    fn a_line_that_was_torn_goes_to_the_next_file_as_a_whole() {
        let mut sheet = Sheet { out: Disk { content: Vec::new(), room: 6 }, torn: Vec::new(), torn_at: 0 };
        assert!(sheet.write(b"one\ntwo\n").is_err());
        sheet.turn_over(Disk { content: Vec::new(), room: 100 });
        assert!(sheet.write(b"three\n").is_ok());
        assert_eq!(sheet.out.content, b"two\nthree\n");
    }
}
