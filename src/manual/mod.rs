//! The manual: doc-only modules on how the house is built and why.
