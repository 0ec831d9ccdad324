//! Posthouse between real clients and real servers; see `lab` for how they are run.

mod check_live;
mod lab;
mod load;
mod mail_backends;
mod mail_bursts;
mod mail_chunking;
mod mail_clients;
mod mail_failover;
mod mail_smuggling;
mod probes;
mod servers;
mod through_others;
mod through_postfix;
mod two_hosts;
