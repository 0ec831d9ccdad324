//! The manual: doc-only modules on how the house is built and why.

pub mod architecture;
pub mod attacks;
#[cfg(test)]
mod cited;
pub mod defaults;
pub mod rules;
pub mod status;
