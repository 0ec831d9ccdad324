//! One integration binary: a real balancer in process.
mod architecture;
