//! The reader's laboratory: what curl can't do, for the walkthrough's experiments.
//!
//! - `backend`: a server that can be slow, wrong, cut off, silent, echoing or upgrading;
//! - `load`: requests, in a closed or in an open loop, counted by backend and timed;
//! - `crowd`: clients that wait, or are slow, while something else happens;
//! - `send`: bytes, exactly as they are written, in as many pieces;
//! - `threads`: what a thread costs.
//!
//! Everything in here blocks, and has a thread for each connection: it is what the balancer must not do, and here it
//! does no harm.

/// Prints a line. Nobody may be reading any more, as behind `| head -1`: then it is only for the wind.
macro_rules! tell {
    ($($words:tt)*) => {{
        use std::io::Write;
        let _nobody_reads = writeln!(std::io::stdout(), $($words)*);
    }};
}

mod backend;
mod crowd;
mod load;
mod send;
mod threads;

use clap::Parser;
use std::process::ExitCode;
use std::time::Duration;

/// The laboratory of the walkthrough.
#[derive(Parser)]
#[command(name = "lab")]
enum Experiment {
    Backend(backend::Settings),
    Load(load::Settings),
    Crowd(crowd::Settings),
    Send(send::Settings),
    Threads(threads::Settings),
}

fn main() -> ExitCode {
    let outcome = match Experiment::parse() {
        Experiment::Backend(settings) => backend::serve(&settings),
        Experiment::Load(settings) => load::run(&settings),
        Experiment::Crowd(settings) => crowd::run(&settings),
        Experiment::Send(settings) => send::run(&settings),
        Experiment::Threads(settings) => threads::run(&settings),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A time, as flags have it.
fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; a time is written like 500ms, 10s or 1m 30s"))
}

/// A time, for a person.
fn show(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        0.0..0.000_01 => format!("{:.1}us", seconds * 1e6),
        0.000_01..0.001 => format!("{:.0}us", seconds * 1e6),
        0.001..1.0 => format!("{:.1}ms", seconds * 1e3),
        _ => format!("{seconds:.1}s"),
    }
}
