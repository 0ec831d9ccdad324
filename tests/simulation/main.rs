//! The cores in seeded worlds: minutes of faults in milliseconds of virtual time.
//!
//! A plain run plays 256 seeds; `SEED=n` replays one, `SEEDS=n` plays the first n. Every event is
//! followed by a check against a model that knows only the rules of DESIGN §5–7 and its own counts.

mod fault;
mod mail;
mod model;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds of a plain run.
const SEEDS: u64 = 256;
/// Sessions of SMTP mode are short: so many are played for a seed.
const MAIL_WORLDS: u64 = 16;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("SEED and SEEDS are numbers"))
}

#[test]
fn the_rules_hold_in_every_world() {
    if let Some(seed) = number("SEED") {
        println!("seed {seed}: {:?}", world::play(seed));
        return;
    }
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let (mut failed, mut total) = (Vec::new(), world::Tally::default());
    std::thread::scope(|scope| {
        let players: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let (mut failed, mut total) = (Vec::new(), world::Tally::default());
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= seeds {
                            return (failed, total);
                        }
                        match catch_unwind(AssertUnwindSafe(|| world::play(seed))) {
                            Ok(tally) => total.add(&tally),
                            Err(_) => failed.push(seed),
                        }
                    }
                })
            })
            .collect();
        for player in players {
            let (seeds, tally) = player
                .join()
                .expect("a player catches what its worlds throw");
            failed.extend(seeds);
            total.add(&tally);
        }
    });
    failed.sort_unstable();
    assert!(failed.is_empty(), "replay with SEED=n: {failed:?}");
    println!("{seeds} seeds: {total:?}");
    if seeds >= SEEDS {
        // A world in which nothing happens proves nothing.
        total.assert_eventful();
    }
}

#[test]
fn a_seed_gives_the_same_world_twice() {
    assert_eq!(world::play(11), world::play(11));
}

#[test]
fn no_message_is_lost_or_doubled_in_any_world() {
    if let Some(seed) = number("SEED") {
        println!("seed {seed}: {:?}", mail::play(seed, mail::Bug::None));
        return;
    }
    let seeds = number("SEEDS").unwrap_or(SEEDS) * MAIL_WORLDS;
    let mut total = mail::Tally::default();
    let mut failed = Vec::new();
    for seed in 0..seeds {
        match catch_unwind(AssertUnwindSafe(|| mail::play(seed, mail::Bug::None))) {
            Ok(tally) => total.add(&tally),
            Err(_) => failed.push(seed),
        }
    }
    assert!(failed.is_empty(), "replay with SEED=n: {failed:?}");
    println!("{seeds} worlds: {total:?}");
    if seeds >= SEEDS {
        total.assert_eventful();
    }
}

#[test]
fn each_planted_mistake_is_found() {
    for bug in [
        mail::Bug::SwapReplies,
        mail::Bug::ReleaseEarly,
        mail::Bug::ReplayInDoubt,
        mail::Bug::DropRefusal,
        mail::Bug::ForgetContent,
        mail::Bug::ForgetChunk,
        mail::Bug::PassQuota,
        mail::Bug::ForgetDoubt,
    ] {
        let quiet = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let found = (0..SEEDS * MAIL_WORLDS)
            .any(|seed| catch_unwind(AssertUnwindSafe(|| mail::play(seed, bug))).is_err());
        std::panic::set_hook(quiet);
        assert!(found, "{bug:?} goes unnoticed");
    }
}

#[test]
fn a_seed_gives_the_same_session_twice() {
    let play = || mail::play(5, mail::Bug::None);
    assert_eq!(play(), play());
}
