//! A thread's pool of kernel pipes for splice(2).
//!
//! A pipe is taken only while octets are in it or about to be; an idle direction holds none. A pipe
//! that still holds octets is closed, never returned to the pool.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

/// Octets a pipe is asked to hold: 64 pages of 4 KiB.
pub const PIPE_OCTETS: usize = 256 * 1024;

/// A pipe; `held` octets are inside.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
}

impl Pipe {
    /// Octets inside.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Notes octets that went in.
    pub fn filled(&mut self, octets: usize) {
        self.held += octets;
    }

    /// Notes octets that came out.
    pub fn drained(&mut self, octets: usize) {
        self.held = self.held.saturating_sub(octets);
    }

    /// The end octets come out of.
    pub fn read_end(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }

    /// The end octets go in at.
    pub fn write_end(&self) -> BorrowedFd<'_> {
        self.write.as_fd()
    }
}

/// The pipes of one thread.
#[derive(Debug)]
pub struct PipePool {
    free: RefCell<Pool>,
    max: usize,
}

#[derive(Debug, Default)]
struct Pool {
    free: Vec<Pipe>,
    /// Free ones and those in use.
    made: usize,
}

impl PipePool {
    /// A pool of at most `max` pipes; 0 turns splicing off.
    pub fn new(max: usize) -> Self {
        Self {
            free: RefCell::default(),
            max,
        }
    }

    /// Whether there may be pipes at all.
    pub fn is_enabled(&self) -> bool {
        self.max > 0
    }

    /// An empty pipe, or `None` when all are in use or the kernel gives none.
    pub fn take(&self) -> Option<Pipe> {
        let mut pool = self.free.borrow_mut();
        if let Some(pipe) = pool.free.pop() {
            return Some(pipe);
        }
        if pool.made >= self.max {
            return None;
        }
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
        // Refused beyond fs.pipe-user-pages-soft: a smaller pipe works as well, with more calls.
        let _ = fcntl_setpipe_size(&write, PIPE_OCTETS);
        pool.made += 1;
        Some(Pipe {
            read,
            write,
            held: 0,
        })
    }

    /// Gives a pipe back; one that is not empty is closed.
    pub fn put(&self, pipe: Pipe) {
        let mut pool = self.free.borrow_mut();
        if pipe.held == 0 {
            pool.free.push(pipe);
        } else {
            pool.made -= 1;
        }
    }
}
