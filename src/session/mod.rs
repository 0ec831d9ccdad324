//! One accepted connection: admission, connect, relay, outcome.
