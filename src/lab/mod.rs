//! The embedded test MTA with scripted faults: demo, tests, drills.
