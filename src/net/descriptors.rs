//! How many sockets the process may have.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;

/// As many as we ever use: some containers set the limit to 2^30, and the tables here grow with the highest number.
const MOST: u64 = 1 << 20;

/// Raises the soft descriptor limit to the hard one, and returns how many descriptors the process may have then.
pub fn raise_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(MOST).min(MOST);
    let current = current.unwrap_or(MOST).min(MOST);
    let reached = if wanted > current && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).is_ok()
    {
        wanted
    } else {
        current
    };
    usize::try_from(reached).unwrap_or(usize::MAX)
}

/// Whether an error means that there is no descriptor left: one that is closed helps.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Whether an error means that this process, or this machine, has run out of what sockets are made of. Not the peer's
/// doing, and often over in a moment. (That there is no port left on our side, or no address, holds for one peer alone.)
pub fn is_shortage(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}
