//! Words: the numbers and names of the domain, as types that cannot be mixed up.
//!
//! This layer knows no clock, no socket and no log. Everything above may use it; it uses nothing.

mod amount;
mod count;
mod id;
mod net;
mod places;
mod release;
mod rng;
mod words;

pub use amount::{Percent, Rate, Tier, Weight};
pub use count::{Counter, Histogram, HistogramTotals, Shards};
pub use id::{Generation, SessionId, WorkerId};
pub use net::{ClientKey, Networks};
pub use places::Places;
pub use release::{COMMIT, VERSION};
pub use rng::Rng;
pub use words::{chain_in_words, in_words, without_numbers};
