//! Configuration: from text to a [`Config`], with every mistake at once.
//!
//! Only [`load`] reads files. Knows no sockets and no runtime.

pub mod model;

pub use model::Config;
