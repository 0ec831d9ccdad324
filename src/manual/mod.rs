//! The manual: doc-only modules on how the house is built and why.

pub mod architecture;
pub mod defaults;
pub mod status;
