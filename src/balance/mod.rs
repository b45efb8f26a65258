//! Whose turn it is.
//!
//! Policy lives here: which backend gets the next request, and over which connection. No socket is used here but to
//! open it, and nothing here knows what is said over it.
//!
//! - `settings`: what an operator may say about it all;
//! - `origin`: how a backend is named;
//! - `books`: what is counted of backends;
//! - `spares`: connections kept for the next request;
//! - `health`: whether a backend is fit for requests;
//! - `backend`: one backend, with its addresses, spares and counts;
//! - `order`: weighted turns; `policy`: the choices that look at load; `hashing`: the same backend for the same key;
//! - `budget`: how much may be tried again;
//! - `queue`: where requests wait for a place at one;
//! - `rotation`: the order in which backends take turns.

mod backend;
mod books;
mod budget;
mod hashing;
mod health;
mod order;
mod origin;
mod policy;
mod queue;
mod rotation;
mod settings;
mod spares;

pub use backend::{Backend, InFlight};
pub use books::{Account, Balance, Books, CLASSES, Entry};
pub use budget::Budget;
pub use hashing::{Sticky, key_hash, rendezvous, scatter};
pub use health::{Condition, Failure, Flip, Health, Standing, Trial, Verdict, Why};
pub use order::Order;
pub use origin::Origin;
pub use policy::{Candidate, Ewma, least_in_flight, peak_ewma, two_choices};
pub use queue::{Queue, Waiting};
pub use rotation::{By, Member, Pick, Rotation, Unserved, Wish};
pub use settings::{ActiveHealth, BackendSettings, BalanceSettings, HashKey, PassiveHealth, Policy, RetrySettings};
pub use spares::Need;
