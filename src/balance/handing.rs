//! What goes from a session that has done with its place to the one that has waited longest.
//!
//! A place alone, or a place with the connection that has it: whoever waits anywhere in the process
//! may be given both, so the queue stays a plain FIFO and nobody is overtaken for being on another
//! thread. What a connection is, is nothing to this folder; it only makes sure that it ends before
//! its place does, and that neither is lost when the waiter leaves meanwhile.

use std::any::Any;
use std::sync::Arc;

use super::queue::Cell;
use super::slot::Slot;

/// Which connections may stand in for each other: those that come from the same of our addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(pub usize);

/// What a waiter can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A place; it dials.
    Place,
    /// A place, and with it a connection of this kind if there is one.
    Connection(Kind),
}

/// A connection between two owners.
#[derive(Debug)]
pub struct Carried {
    kind: Kind,
    connection: Box<dyn Any + Send>,
}

impl Carried {
    /// `connection` is closed when it is dropped.
    pub fn new(kind: Kind, connection: impl Any + Send) -> Self {
        let connection = Box::new(connection);
        Self { kind, connection }
    }

    /// What was carried, if it is a `T`.
    pub fn open<T: Any>(self) -> Option<T> {
        self.connection
            .downcast()
            .ok()
            .map(|connection| *connection)
    }
}

/// What a waiter is given. Dropped as it is, it goes on to the next who waits.
#[derive(Debug)]
pub struct Handed {
    carried: Option<Carried>,
    /// Taken only by [`Handed::into_parts`] and by `Drop`.
    slot: Option<Slot>,
}

impl Handed {
    pub(super) fn place(slot: Slot) -> Self {
        Self {
            carried: None,
            slot: Some(slot),
        }
    }

    /// The place, and the connection that has it.
    ///
    /// The connection is to be closed before the place is given back or dialled for.
    pub fn into_parts(mut self) -> (Slot, Option<Carried>) {
        let slot = self.slot.take().expect("nobody has taken it before");
        (slot, self.carried.take())
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        let (Some(slot), Some(carried)) = (self.slot.take(), self.carried.take()) else {
            return;
        };
        match slot.heir(carried.kind) {
            Ok(heir) => heir.receive(Some(carried)),
            Err(slot) => {
                drop(carried);
                drop(slot);
            }
        }
    }
}

/// The waiter that a place was taken for; it is out of the queue, and what it is given is certain to
/// reach it. Dropped, it gives the place alone.
#[derive(Debug)]
pub struct Heir {
    cell: Arc<Cell>,
    slot: Option<Slot>,
}

impl Heir {
    pub(super) fn new(cell: Arc<Cell>, slot: Slot) -> Self {
        Self {
            cell,
            slot: Some(slot),
        }
    }

    /// Gives the place, and the connection that has it.
    pub fn receive(mut self, carried: Option<Carried>) {
        let slot = self.slot.take();
        self.cell.hand(Handed { carried, slot });
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.cell.hand(Handed::place(slot));
        }
    }
}
