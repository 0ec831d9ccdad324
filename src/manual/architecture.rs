//! How the house is built.
//!
//! # In one paragraph
//!
//! Posthouse is a listener, a chooser and a pipe. A client connects; a backend is chosen and dialled
//! before the client hears anything; when the backend has greeted with `220`, that greeting is the
//! first thing the client sees, and from then on octets pass both ways unchanged. Everything else
//! (health, limits, reloads, the status page) exists so that this is always possible and always
//! visible.
//!
//! # Layers
//!
//! A folder may use only the rows above it; `tests/it/architecture.rs` reads the sources and fails
//! otherwise.
//!
//! | row | folder | duty | does not contain |
//! |---|---|---|---|
//! | words | [`types`](crate::types) | ids, amounts, counters, seeded chance | runtime, clock, sockets, logs |
//! | cores | [`smtp`](crate::smtp) | commands, extensions, replies, greetings, the probe's conversation | the same, and `async` |
//! | cores | [`identity`](crate::identity) | PROXY protocol in and out | the same |
//! | cores | [`balance`](crate::balance) | choosing, health, ejection, tiers, queue, limits | the same; SMTP |
//! | plain | [`config`](crate::config), [`metrics`](crate::metrics), [`telemetry`](crate::telemetry) | text to model, counters, log lines | runtime, sockets |
//! | view | [`snapshot`](crate::snapshot) | the immutable runtime view and what outlives it | files, sockets, clock |
//! | shells | [`net`](crate::net) | octets: accept, dial, copy, splice, linger | SMTP, configuration, balancing |
//! | session | [`session`](crate::session) | one accepted connection from accept to close | files, HTTP |
//! | worker | [`worker`](crate::worker) | one data thread | HTTP |
//! | control | [`control`](crate::control) | start, reload, probes, discovery, drain | HTTP |
//! | doors | [`admin`](crate::admin), [`lab`](crate::lab) | HTTP status; the test MTA | |
//! | top | [`cli`](crate::cli), [`app`](crate::app) | arguments, composition, exit codes | logic |
//!
//! The second mode, `smtp`, ends the client's SMTP and places transactions on kept-alive connections
//! to backends. Its cores are in [`smtp`](crate::smtp): words (lines, commands, extensions,
//! replies), message data with its copy for a replay, and three that hold them together:
//! [`Opening`](crate::smtp::Opening) (a connection up to our EHLO),
//! [`Exchange`](crate::smtp::Exchange) (one transaction over one backend connection after another)
//! and [`MailSession`](crate::smtp::MailSession) (the client's half, which owns every decision). The
//! driver, `session::mail`, reads, writes and finds connections. It finds them where passthrough
//! does, in `session::connect`: the same picks, races, queue and deadlines, but that an attempt goes
//! on to EHLO, and that `session::keeper` may have a kept connection for a pick. The keeper belongs
//! to a thread; what it holds counts as sockets of the backend and not as in flight
//! ([`Parked`](crate::balance::Parked)). While clients queue none is idle: the connection of a
//! transaction that has ended goes with its place to the first in line
//! ([`Handed`](crate::balance::Handed)), off the loop of one thread and onto that of another if need
//! be, so that the queue stays a plain FIFO of all threads. `session::capabilities` knows what backends announce,
//! `session::warm` keeps a few connections ready, and [`Quotas`](crate::balance::Quotas) make a
//! backend full whose provider allows no more. A message and its first recipient are reserved with
//! the pick ([`Spent`](crate::balance::Spent)), every other recipient before its RCPT is said; what
//! comes of none of them is given back, and what a backend has, or may have, is kept. Counting is
//! by compare-exchange, without a lock.
//!
//! `tests/simulation` plays that session between seeded clients, backends and networks: every
//! command in pieces, backends that die, fall silent, say 421, refuse early or cut their reply at
//! each instant of rule F1, clients that leave, drains. A model counts every message: never a 250
//! without exactly one copy, never a copy that was refused, one reply per command, nothing held at
//! the end; and every recipient: no span holds more of them than a backend's quota allows, and no
//! place is lost. Eight mistakes are planted there and must each be found: two replies swapped, a
//! connection put back while its transaction runs, a message in doubt said again, the reply to a
//! refused recipient dropped, octets of the message forgotten, a chunk of BDAT answered and
//! forgotten, a recipient said without a place, the charge of a message in doubt given back. What no sane peer does, the fuzzer of sessions does (`fuzz_session`).
//!
//! # Threads
//!
//! `workers` data threads, each with its own [event loop](crate::net::event_loop), `SO_REUSEPORT`
//! listeners, scratch buffer, pipes and counters. A session lives and dies on one thread. One control
//! thread, on tokio, probes, reloads, resolves and serves HTTP. One writer thread takes log batches.
//! Blocking work (files, name look-ups, building tables) is done on helper threads of the control
//! runtime.
//!
//! The event loop is our own because it is the cost of a relay: against tokio's current-thread
//! runtime a 10 KB session takes 5 system calls, 17,000 instructions and 950 idle bytes less. It
//! runs plain futures, so channels, `select!` and adapters of the ecosystem work on it.
//!
//! **Invariant**: a session that does not wait in a queue takes no lock, no channel and no wake-up
//! of another thread. What it shares with others are two counts per backend and one reference count.
//! (Choosing by least connections among more than 64 backends takes one short lock.)
//!
//! # State
//!
//! One immutable [`Snapshot`](crate::snapshot::Snapshot) behind one pointer. **One pointer is
//! swapped, never two.** What must survive a swap (health, counts, operator's states, queues) is in
//! the [`Registry`](crate::snapshot::Registry) and is found again by name. A session keeps its
//! listener's policy; every pick reads the current snapshot; guards hold a backend's state and never
//! a snapshot, so no old generation is kept alive by a long session.
//!
//! # The life of a session
//!
//! 1. `worker::accept` takes the connection from the kernel; it inherits its options from the
//!    listener. Limits of the process and the listener are checked.
//! 2. `session::header` receives the PROXY header where one is required.
//! 3. `session::admission` asks networks and client limits on the true address.
//! 4. `session::connect` picks, dials, hears the greeting; a failure is a strike and the next pick;
//!    slowness is a hedge. The client's socket is watched, not read.
//! 5. At the first complete `220` line the session is committed: the greeting goes out in the same
//!    poll that read it. A retry after that cannot be written, because the attempt has been consumed.
//! 6. `session::relay` moves octets until both sides have ended, one has reset, or nothing moved for
//!    too long.
//!    In smtp mode steps 4 to 6 are `session::mail` instead: greeting and commands are ours, and each
//!    MAIL searches for a connection.
//! 7. `session::record` accounts for the end in `Drop`: whatever ends a session (a step, a cut, a
//!    panic) leaves one outcome, one log line and balanced counts.
//!
//! # What is deliberately absent
//!
//! - No buffer per session. A direction that flows uses its thread's scratch; only what a receiver
//!   does not take is kept, at most 64 KiB, and while it is kept the sender is not read.
//! - No timer per wait. A session has one, armed for the earliest of its deadlines.
//! - No `unsafe`.
//! - No second reading of the configuration file's meaning: defaults live in the model, and
//!   `config/reference.toml` is generated from the same table the reader uses.
