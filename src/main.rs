//! The program: flags in, exit code out. Everything that a test would want is in the library.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use std::io::{self, IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use threadbare::balance::BackendSettings;
use threadbare::demo::{self, DemoBackend};
use threadbare::net::handover::{self, Offer};
use threadbare::net::{self, Passed};
use threadbare::notify::Notifier;
use threadbare::{Balancer, Config, StartError, logger};

/// Something was cut short.
const CUT: u8 = 3;

/// Signals that come closer together than this are one: `timeout`, and some shells, tell a process and its group.
const ECHO: Duration = Duration::from_millis(200);

/// What a signal says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    /// SIGHUP.
    Reload,
    /// SIGTERM or SIGINT.
    End,
    /// A newer process accepts from the listening sockets.
    Taken,
}

fn main() -> ExitCode {
    let activated = net::activated(); // before any thread is there to see the environment change
    let config = Config::from_args(std::env::args_os().skip(1)).unwrap_or_else(|error| error.exit());
    logger::start(config.log_level);
    let code = run(activated, config).unwrap_or_else(|error| {
        // Not through the logger: whoever started the program must see this, whatever the log level.
        eprintln!("threadbare: {error}");
        ExitCode::FAILURE
    });
    log::logger().flush();
    code
}

fn run(activated: io::Result<(Vec<Passed>, Vec<String>)>, config: Config) -> Result<ExitCode, StartError> {
    let system = |what| move |error| StartError::System(what, error);
    let (mut passed, complaints) = activated.map_err(system("at the sockets of the service manager"))?;
    for complaint in complaints {
        log::warn!("{complaint}");
    }
    // A file that may not grow any more is an error of whoever writes it. Unheeded, this would end the process.
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map_err(system("the signals"))?;
    let mut signals = Signals::new([SIGHUP, SIGTERM, SIGINT]).map_err(system("the signals"))?;
    let is_taken = Arc::new(AtomicBool::new(false));
    let mut next = {
        let is_taken = Arc::clone(&is_taken);
        move || match signals.forever().next() {
            Some(SIGHUP) => Word::Reload,
            _ if is_taken.swap(false, Ordering::AcqRel) => Word::Taken,
            _ => Word::End,
        }
    };
    let notifier = Notifier::from_env();
    let mut inherited = match &config.handover {
        Some(path) => handover::take_over(path).map_err(system("the take-over"))?,
        None => None,
    };
    if let Some(inherited) = &mut inherited {
        log::info!("taking {} listening sockets over", inherited.sockets.len());
        passed.append(&mut inherited.sockets);
    }
    let mut current = config.clone();
    let is_demo = config.demo;
    let balancer = if is_demo { start_demo(config)? } else { Balancer::start_on(passed, config)? };
    let has_taken_over = inherited.is_some();
    if let Some(inherited) = inherited {
        inherited.done().map_err(system("the take-over"))?;
        notifier.main_process();
    }
    let offer = current.handover.as_ref().map(|path| offer(path, &balancer, is_taken));
    let _offer = match offer.transpose().map_err(system("the hand-over")) {
        // The old process drains by now: if this one ended too, nobody would serve.
        Err(error) if has_taken_over => {
            log::error!("{error}; no process can take over from this one");
            None
        }
        offer => offer?,
    };
    greet(&balancer, is_demo);
    if is_demo && balancer.admin_address().is_none() {
        log::warn!("port {} is not free, so there is no page to look inside", demo::ADMIN_PORT);
    }
    notifier.ready();
    let _watchdog = notifier.watchdog(balancer.is_alive()).map_err(system("the watchdog"))?;

    let reopen_logs = balancer.log_reopener();
    let reopen_logs = move || reopen_logs().unwrap_or_else(|error| log::error!("{error}; the old file is kept"));
    let mut word = next();
    while word == Word::Reload {
        notifier.reloading();
        reopen_logs();
        // Whoever only rotates a log has nothing to be read again, and is not told so.
        let writes_to_files = current.access_log.file.is_some() || current.wire_log.file.is_some();
        if current.has_file() || !writes_to_files {
            reload(&balancer, &mut current);
        }
        notifier.ready();
        word = next();
    }
    // The service goes on where another process has it: a manager that heard of a stop would stop that one, too.
    if word != Word::Taken {
        notifier.stopping();
    }
    balancer.announce_drain();
    // Where a newer process accepts, nobody is sent here any more.
    let delay = if word == Word::Taken { Duration::ZERO } else { current.timeouts.drain_delay };
    let timeout = current.timeouts.drain;
    let (end_delay, delay_ends) = mpsc::channel();
    let cut_short = balancer.drain_cutter();
    let mut asked = (word == Word::End).then(Instant::now);
    let mut is_cut = false;
    let end_of_delay = end_delay.clone();
    let heed_signals = move || {
        loop {
            match next() {
                Word::Reload => reopen_logs(), // a log may be rotated while a long drain goes on
                Word::Taken => _ = end_of_delay.send(()),
                Word::End if asked.is_some_and(|last| last.elapsed() < ECHO) => {}
                Word::End if is_cut => std::process::exit(i32::from(CUT)), // asked three times: not even a farewell
                Word::End => {
                    if asked.replace(Instant::now()).is_some() {
                        is_cut = true;
                        cut_short();
                        let _is_over = end_of_delay.send(());
                    }
                }
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("signals".to_owned()).spawn(heed_signals) {
        log::warn!("while this process drains it hears no signal: {error}");
    }
    if !delay.is_zero() {
        log::info!("draining: accepting goes on for {delay:?}");
        let _is_over_or_taken = delay_ends.recv_timeout(delay);
    }
    drop(end_delay); // kept until here: whoever waits for it waits in full though no thread hears signals
    log::info!("draining: what is in flight is finished, for at most {timeout:?}");
    if balancer.drain(timeout) {
        return Ok(ExitCode::SUCCESS);
    }
    log::warn!("the drain is over, by its timeout or a second signal: what was still in flight has been cut");
    Ok(ExitCode::from(CUT))
}

/// Lets a newer process take the listening sockets over: once it accepts, this one drains.
fn offer(path: &Path, balancer: &Balancer, is_taken: Arc<AtomicBool>) -> io::Result<Offer> {
    let (listeners, admin) = (balancer.listeners(), balancer.admin_listener());
    let taken = admin.clone();
    handover::offer(
        path,
        move || {
            let mut sockets = listeners.sockets()?;
            if let Some(admin) = &admin {
                sockets.append(&mut admin.sockets()?);
            }
            Ok(sockets)
        },
        move || {
            if let Some(admin) = &taken {
                admin.stop(); // whoever asks from now on means the newer process
            }
            log::info!("the listening sockets have been taken over");
            is_taken.store(true, Ordering::Release);
            if let Err(error) = signal_hook::low_level::raise(SIGTERM) {
                log::error!("this process could not be told to drain: {error}");
            }
        },
    )
}

/// Reads the configuration again: all of it holds from now on, or none.
fn reload(balancer: &Balancer, current: &mut Config) {
    // In short for whoever watches, in full for whoever reads our log.
    let outcome = current.reload().map_err(|error| (error.in_short(), error.to_string())).and_then(|new| {
        let restart = balancer.reload(new.clone()).map_err(|error| (error.to_string(), error.to_string()))?;
        Ok((new, restart))
    });
    match outcome {
        Ok((new, restart)) => {
            log::set_max_level(new.log_level);
            log::info!("reloaded: {} backends", new.backends.len());
            for key in restart {
                log::warn!("{key} has changed, which takes effect with a restart");
            }
            *current = new;
        }
        Err((in_short, error)) => {
            balancer.reload_refused(&in_short);
            log::error!("the old configuration is kept: the new one is refused");
            for line in error.lines() {
                log::error!("{line}");
            }
        }
    }
}

/// Listens everywhere before anything is said or answered.
fn start_demo(mut config: Config) -> Result<Balancer, StartError> {
    let backends = DemoBackend::bind(&demo::PORTS).map_err(|(address, error)| StartError::Listen(address, error))?;
    config.backends =
        backends.iter().filter_map(|backend| backend.url().parse().ok().map(BackendSettings::at)).collect();
    let balancer = start_with_page(config)?;
    for backend in backends {
        backend.serve().map_err(|error| StartError::System("a backend of the demonstration", error))?;
    }
    Ok(balancer)
}

/// The page is part of the demonstration. That somebody else has its port is no reason to go without.
fn start_with_page(mut config: Config) -> Result<Balancer, StartError> {
    if config.admin.listen.is_some() {
        return Balancer::start(config);
    }
    let page = SocketAddr::from((Ipv4Addr::LOCALHOST, demo::ADMIN_PORT));
    config.admin.listen = Some(page);
    match Balancer::start(config.clone()) {
        Err(StartError::Listen(address, error)) if address == page => {
            log::warn!("the page is not on its usual port: {}", StartError::Listen(address, error));
            config.admin.listen = Some((Ipv4Addr::LOCALHOST, 0).into());
            Balancer::start(config)
        }
        started => started,
    }
}

/// A few lines for a person at a terminal; one or two in the log for everybody else.
fn greet(balancer: &Balancer, is_demo: bool) {
    let addresses: Vec<String> = balancer.addresses().iter().map(|address| format!("http://{address}/")).collect();
    let addresses = addresses.join(" ");
    if !io::stdout().is_terminal() {
        log::info!("listening on {addresses}");
        if let Some(address) = balancer.admin_address() {
            log::info!("the admin listener is at http://{address}/");
        }
        return;
    }
    let mut text = format!("threadbare listens on {addresses}\n");
    if is_demo {
        let [first, second] = demo::PORTS;
        text += &format!("and two backends of its own answer on ports {first} and {second}.\n\n");
        text += &format!("Try this twice:     curl http://{}/\n", balancer.address());
        if let Some(page) = balancer.admin_address() {
            text += &format!("Look inside:        http://{page}/\n");
        }
        text += "Your own backends:  threadbare 127.0.0.1:3000 127.0.0.1:3001\n";
        text += "Everything else:    threadbare --help\n";
    } else if let Some(address) = balancer.admin_address() {
        text += &format!("and shows what it does at http://{address}/\n");
    }
    text += "Ctrl-C finishes what is in flight and ends it.\n\n";
    let _nobody_reads = io::stdout().write_all(text.as_bytes());
}
