//! Shells that move octets and know no SMTP: sockets, dialling, copying, splicing, time.
//!
//! Everything here runs on one thread and takes what it needs (scratch, pipes, now) as arguments.
//! A wait here is always a `poll` with a deadline kept by the caller.

pub mod accept;
pub mod clock;
pub mod dial;
pub mod event_loop;
pub mod linger;
pub mod listen;
pub mod pipe;
mod pump;
pub mod relay;
pub mod route;
pub mod stream;
pub mod timer;
pub mod tls;

#[cfg(test)]
mod tests;
