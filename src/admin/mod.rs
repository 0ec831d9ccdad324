//! The HTTP status endpoint.
