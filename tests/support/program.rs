//! The program itself, as its user meets it: a child process with flags, signals and an exit code.
//!
//! It ends with its test: dropping a `Program` kills the child and joins the threads that read what it says.

#![allow(dead_code, reason = "each test file uses its own part of the harness")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::support::{PATIENCE, eventually};

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_threadbare");

/// Runs the binary to its end, which must come by itself; with nothing on standard input, and no `RUST_LOG`.
pub(crate) fn run(flags: &[&str]) -> Output {
    output(command().args(flags))
}

/// Runs a command to its end, which must come by itself within `PATIENCE`.
pub(crate) fn output(command: &mut Command) -> Output {
    let mut program = Program::spawn(command);
    let status = program.wait();
    Output { status, stdout: program.stdout.all().into_bytes(), stderr: program.stderr.all().into_bytes() }
}

/// The binary, with a clean environment.
pub(crate) fn command() -> Command {
    let mut command = Command::new(BINARY);
    command.env_remove("RUST_LOG");
    command
}

/// The binary, started by a shell after these words: `ulimit -n 96`. The shell is replaced, so signals reach it.
pub(crate) fn command_after(words: &str) -> Command {
    let mut command = Command::new("sh");
    command.env_remove("RUST_LOG").args(["-c", &format!("{words} && exec \"$0\" \"$@\""), BINARY]);
    command
}

/// A port that nobody listened on a moment ago, for those who can't tell us which one they got.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What has been said on a stream so far.
#[derive(Default)]
pub(crate) struct Said {
    text: Mutex<(String, bool)>,
    more: Condvar,
}

impl Said {
    fn lock(&self) -> MutexGuard<'_, (String, bool)> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything so far.
    pub(crate) fn so_far(&self) -> String {
        self.lock().0.clone()
    }

    /// Everything, once the stream has ended.
    pub(crate) fn all(&self) -> String {
        let waiting = self.more.wait_timeout_while(self.lock(), PATIENCE, |(_, ended)| !*ended);
        let (said, wait) = waiting.unwrap_or_else(PoisonError::into_inner);
        assert!(!wait.timed_out(), "the stream does not end; so far: {}", said.0);
        said.0.clone()
    }

    /// Waits for a line that holds these words, and returns it.
    pub(crate) fn wait_for(&self, words: &str) -> String {
        self.wait_until(&format!("a line with {words:?}"), |text| find(text, words).is_some());
        find(&self.so_far(), words).unwrap()
    }

    /// Waits until these words have been said so often.
    pub(crate) fn wait_for_times(&self, count: usize, words: &str) {
        self.wait_until(&format!("{words:?}, {count} times"), |text| text.matches(words).count() >= count);
    }

    /// Waits until so many whole lines are there, and returns all there are.
    pub(crate) fn wait_for_lines(&self, count: usize) -> Vec<String> {
        self.wait_until(&format!("{count} lines"), |text| text.matches('\n').count() >= count);
        self.so_far().lines().map(str::to_owned).collect()
    }

    fn wait_until(&self, what: &str, condition: impl Fn(&str) -> bool) {
        let pending = |(text, ended): &mut (String, bool)| !condition(text) && !*ended;
        let waiting = self.more.wait_timeout_while(self.lock(), PATIENCE, pending);
        let (said, _) = waiting.unwrap_or_else(PoisonError::into_inner);
        assert!(condition(&said.0), "waited, and still not: {what}; it has said:\n{}", said.0);
    }

    fn hear(&self, stream: impl Read) {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            self.lock().0.push_str(&String::from_utf8_lossy(&line));
            self.more.notify_all();
            line.clear();
        }
        self.lock().1 = true;
        self.more.notify_all();
    }
}

fn find(text: &str, words: &str) -> Option<String> {
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).find(|l| l.contains(words)).map(str::to_owned)
}

fn hear_everything(command: &mut Command) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
}

/// A child process, and what it says.
pub(crate) struct Program {
    child: Child,
    /// What it says on standard output; nothing if that went elsewhere.
    pub(crate) stdout: Arc<Said>,
    /// What it says on standard error; nothing if that went elsewhere.
    pub(crate) stderr: Arc<Said>,
    ears: Vec<JoinHandle<()>>,
    port: u16,
}

impl Program {
    /// A balancer with these flags, on a port of the system's choosing. Returns once it listens.
    pub(crate) fn start<F: AsRef<OsStr>>(flags: impl IntoIterator<Item = F>) -> Self {
        Self::listening(command().args(["--listen", "127.0.0.1:0"]).args(flags))
    }

    /// Any balancer that says in its log where it listens. Returns once it does.
    pub(crate) fn listening(command: &mut Command) -> Self {
        hear_everything(command);
        Self::spawn_and_listen(command)
    }

    /// The same, with the streams that the command says; standard error must be heard.
    pub(crate) fn spawn_and_listen(command: &mut Command) -> Self {
        let mut program = Self::spawn_as_is(command);
        let line = program.stderr.wait_for("listening on http://127.0.0.1:");
        let (_, rest) = line.split_once("http://127.0.0.1:").unwrap();
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        program.port = digits.parse().unwrap();
        program
    }

    /// A balancer that can't say where it listens: it is told a port that was free a moment ago. Returns once it
    /// listens.
    pub(crate) fn listening_silently(mut command: impl FnMut(&str) -> Command) -> Self {
        Self::listening_silently_as_is(|address| {
            let mut command = command(address);
            hear_everything(&mut command);
            command
        })
    }

    /// The same, with the streams that the command says.
    pub(crate) fn listening_silently_as_is(mut command: impl FnMut(&str) -> Command) -> Self {
        for _ in 0..10 {
            let port = free_port();
            let mut program = Self::spawn_as_is(&mut command(&format!("127.0.0.1:{port}")));
            program.port = port;
            let deadline = Instant::now() + PATIENCE;
            while !program.has_ended() {
                if TcpStream::connect(program.address()).is_ok() {
                    return program;
                }
                assert!(Instant::now() < deadline, "it neither listens nor ends");
                thread::sleep(Duration::from_millis(2));
            }
        }
        panic!("ten free ports in a row were taken, or it can't start: {:?}", command("127.0.0.1:0"));
    }

    /// Any child process, with nothing on standard input, and everything that it says heard.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        hear_everything(command);
        Self::spawn_as_is(command)
    }

    /// Any child process, with the streams that the command says.
    pub(crate) fn spawn_as_is(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (stdout, stderr) = (Arc::<Said>::default(), Arc::<Said>::default());
        let mut ears = Vec::new();
        if let Some(stream) = child.stdout.take() {
            let said = Arc::clone(&stdout);
            ears.push(thread::spawn(move || said.hear(stream)));
        }
        if let Some(stream) = child.stderr.take() {
            let said = Arc::clone(&stderr);
            ears.push(thread::spawn(move || said.hear(stream)));
        }
        Self { child, stdout, stderr, ears, port: 0 }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The URL of this path behind it.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// Waits until it says that it listens there, or ends; false if it ends.
    pub(crate) fn listens_or_ends(&mut self, address: &str) -> bool {
        let words = format!("listening on http://{address}/");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let has_ended = self.has_ended();
            if self.stderr.so_far().contains(&words) {
                return true;
            }
            if has_ended {
                return false;
            }
            assert!(Instant::now() < deadline, "it neither listens nor ends; it has said: {}", self.stderr.so_far());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until it ends.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end; it has said: {}", self.stderr.so_far());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until it ends, and returns its exit code; fails the test if a signal ended it.
    pub(crate) fn exit_code(&mut self) -> i32 {
        let status = self.wait();
        status.code().unwrap_or_else(|| panic!("{status}; it has said: {}", self.stderr.so_far()))
    }

    /// Waits until nobody listens on its port any more.
    pub(crate) fn wait_until_refusing(&self) {
        // Each try may still be accepted, and is closed again at once.
        eventually(|| TcpStream::connect(self.address()).is_err(), "the port refuses connections");
    }

    /// A file of `/proc/PID`; None where there is no such thing.
    pub(crate) fn proc(&self, file: &str) -> Option<String> {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).ok()
    }

    /// A number of `/proc/PID/status`: `Threads`, or `VmRSS` in KiB.
    pub(crate) fn status(&self, name: &str) -> Option<u64> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> Option<usize> {
        Some(fs::read_dir(format!("/proc/{}/fd", self.child.id())).ok()?.count())
    }

    /// The kernel's numbers of the TCP sockets at which it listens; None where that can't be known.
    pub(crate) fn listening_sockets(&self) -> Option<BTreeSet<String>> {
        let table = self.proc("net/tcp")?;
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let listening: BTreeSet<String> = rows
            .filter(|row| row.get(3) == Some(&"0A"))
            .filter_map(|row| Some(format!("socket:[{}]", row.get(9)?)))
            .collect();
        let open = fs::read_dir(format!("/proc/{}/fd", self.child.id())).ok()?;
        let open = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()?.into_os_string().into_string().ok());
        Some(open.filter(|name| listening.contains(name)).collect())
    }

    /// Processor time it has used so far, user and system.
    pub(crate) fn processor_time(&self) -> Option<Duration> {
        let stat = self.proc("stat")?;
        // The name may hold blanks and parentheses; what follows its last one is plain.
        let (_, rest) = stat.rsplit_once(')')?;
        let ticks: Vec<u64> = rest.split_whitespace().skip(11).take(2).filter_map(|n| n.parse().ok()).collect();
        // 100 ticks a second, on every Linux that we know.
        (ticks.len() == 2).then(|| Duration::from_millis(10 * ticks.iter().sum::<u64>()))
    }

    /// Processor time that it uses within the next second; None where that can't be known.
    pub(crate) fn processor_time_of_a_second(&self) -> Option<Duration> {
        let before = self.processor_time()?;
        thread::sleep(Duration::from_secs(1)); // not a wait for something: the second is what is measured
        Some(self.processor_time()? - before)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for ear in self.ears.drain(..) {
            let _ = ear.join();
        }
    }
}
