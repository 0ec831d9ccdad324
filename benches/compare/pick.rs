//! What a choice costs: instructions of one pick and its release, from 10 to 10,000 backends.
//!
//! Half as many sessions as there are backends (at least 16, at most 512) stay in flight, the oldest
//! ends when a new one is picked: the state a busy pool is in.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use posthouse::balance::{
    AdminState, BackendState, Balance, MemberSettings, Pool, PoolSettings, PoolShared, Tried,
};
use posthouse::types::{ClientKey, Rng, Tier, Weight};

use super::Plan;
use super::support::peer::Kind;
use super::support::report::Report;
use super::support::statistics::slope;
use super::support::{callgrind, loopback};

const POLICIES: [(&str, Balance); 5] = [
    ("least-connections", Balance::LeastConnections),
    ("round-robin", Balance::RoundRobin),
    ("random-two", Balance::RandomTwo),
    ("source-hash", Balance::SourceHash),
    ("first", Balance::First),
];
const SIZES: [u16; 4] = [10, 100, 1_000, 10_000];
/// At most this many times the cost at 10 backends.
const GROWTH_MAX: f64 = 4.0;

pub(super) fn row(plan: &Plan, report: &mut Report) -> Result<()> {
    if !plan.has(Kind::Posthouse) {
        return Ok(());
    }
    let row = "pick and release: user instructions";
    for (policy, _) in POLICIES {
        let mut costs = Vec::new();
        for size in SIZES {
            let cost = instructions(plan, policy, size)?;
            report.add(row, policy, format!("{size} backends"), cost);
            costs.push(cost);
        }
        if let (Some(ten), Some(most)) = (costs.first(), costs.last()) {
            let growth = most / ten;
            report.judge(
                row,
                &format!("{policy}: 10,000 / 10"),
                Kind::Posthouse,
                growth,
                GROWTH_MAX,
            );
        }
    }
    Ok(())
}

/// Instructions of one pick, by the slope between 1,000 and 5,000 of them under callgrind.
fn instructions(plan: &Plan, policy: &str, backends: u16) -> Result<f64> {
    let folder = plan.bench.folder.join(format!("pick-{policy}-{backends}"));
    let own = std::env::current_exe()?;
    let counted = |picks| callgrind::picks(&own, &folder, policy, backends.into(), picks);
    Ok(slope((1_000, counted(1_000)?), (5_000, counted(5_000)?)))
}

/// The role: builds a pool and picks.
pub(super) fn play(policy: &str, backends: u16, picks: u32) -> Result<()> {
    let Some((_, balance)) = POLICIES.iter().find(|(name, _)| *name == policy) else {
        bail!("no policy {policy}");
    };
    let now = Instant::now();
    let pool = pool(*balance, backends, now);
    let mut rng = Rng::seeded(1);
    let tried = Tried::default();
    let held = usize::from(backends / 2).clamp(16, 512);
    let mut slots = VecDeque::with_capacity(held + 1);
    let mut picked = 0_u64;
    // The sessions in flight are picked in both runs of a slope, so they cancel out.
    for number in 0..picks + u32::try_from(held)? {
        let client = ClientKey(u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let Ok(slot) = pool.pick(client, &tried, now, &mut rng) else {
            bail!("a pool without limits and faults has a backend");
        };
        picked += u64::from(slot.member().index);
        slots.push_back(slot);
        if slots.len() > held {
            slots.pop_front();
        }
    }
    black_box(picked);
    Ok(())
}

fn pool(balance: Balance, backends: u16, now: Instant) -> Pool {
    let name: Arc<str> = Arc::from("mx");
    let members = (0..backends)
        .map(|number| {
            let address = loopback(number, 25);
            let member: Arc<str> = Arc::from(format!("b{number}"));
            MemberSettings {
                quota: None,
                name: Arc::clone(&member),
                address,
                weight: Weight::ONE,
                tier: Tier::FIRST,
                max_connections: 0,
                state: BackendState::new(
                    Arc::clone(&name),
                    member,
                    address,
                    AdminState::Ready,
                    2,
                    now,
                ),
            }
        })
        .collect();
    let settings = PoolSettings {
        balance,
        slow_start: Duration::ZERO,
        ..PoolSettings::default()
    };
    let pool = Pool::new(Arc::clone(&name), settings, members, PoolShared::new(name));
    pool.install(now);
    pool
}
