//! threadbare: an HTTP/1.1 load balancer on bare std threads.
//!
//! The rooms, in reading order. A room imports only rooms below it, so reading from the bottom up never meets a word
//! that has not been explained, and reading from the top down follows a request into the house.

pub mod demo;
pub mod server;
pub mod notify;
pub mod admin;
pub mod workers;
pub mod exchange;
pub mod metrics;
pub mod access_log;
pub mod wire_log;
pub mod lines;
pub mod logger;
pub mod names;
pub mod live;
pub mod health;
pub mod config;
pub mod error;
pub mod addresses;
pub mod balance;
pub mod events;
pub mod counting;
pub mod net;
pub mod http;

pub use config::{Config, ConfigError};
pub use server::{Balancer, Counters, StartError};
