//! Quotas over spans, reloads, restarts and threads.

use proptest::prelude::*;

use super::*;

pub(super) use QuotaUnit::Messages;
use QuotaUnit::Recipients;

thread_local! {
    static BEGAN: Instant = Instant::now();
}

fn at(after: Duration) -> Instant {
    BEGAN.with(|began| *began + after)
}

pub(super) fn seconds(seconds: u64) -> Instant {
    at(Duration::from_secs(seconds))
}

/// A wall clock that says so at the beginning.
const UNIX: Duration = Duration::from_secs(1_000_000);

pub(super) fn none() -> Arc<Quotas> {
    Quotas::new(Epoch {
        instant: seconds(0),
        unix: UNIX,
    })
}

pub(super) fn install(
    quotas: &Arc<Quotas>,
    list: &[(u64, u64, QuotaUnit)],
    now: Instant,
) -> Limited {
    let of = |&(count, period, unit): &(u64, u64, QuotaUnit)| Quota {
        count,
        period: Duration::from_secs(period),
        unit,
    };
    let list: Vec<_> = list.iter().map(of).collect();
    let limited = quotas.limited(&list);
    limited.install(now);
    limited
}

fn limited(list: &[(u64, u64, QuotaUnit)]) -> Limited {
    install(&none(), list, seconds(0))
}

pub(super) fn spend(limited: &Limited, recipients: u32, now: Instant) -> bool {
    match limited.take(recipients, now) {
        Ok(spent) => {
            spent.keep(recipients, now);
            true
        }
        Err(UsedUp) => false,
    }
}

fn used(limited: &Limited, now: Instant) -> Vec<u64> {
    let usage = limited.usage(now);
    usage.into_iter().map(|of| of.used).collect()
}

#[test]
fn a_quota_is_used_up_and_free_again_when_its_span_has_passed() {
    let limited = limited(&[(3, 64, Messages)]);
    let spent: Vec<_> = (0..4).map(|at| spend(&limited, 1, seconds(at))).collect();
    assert_eq!(spent, [true, true, true, false]);
    assert!(limited.is_used_up());
    limited.refresh(seconds(64));
    assert!(limited.is_used_up(), "one part more is counted");
    limited.refresh(seconds(65));
    assert!(!limited.is_used_up());
    assert!(spend(&limited, 1, seconds(65)));
    assert!(!spend(&limited, 1, seconds(65)));
}

#[test]
fn all_quotas_have_to_have_room() {
    let limited = limited(&[(2, 1, Messages), (3, 640, Messages)]);
    assert!(spend(&limited, 1, seconds(0)) && spend(&limited, 1, seconds(0)));
    assert!(!spend(&limited, 1, seconds(0)));
    assert!(spend(&limited, 1, seconds(2)));
    assert!(!spend(&limited, 1, seconds(4)), "the longer one is used up");
    assert_eq!(
        used(&limited, seconds(4)),
        [0, 3],
        "nothing is left of what was tried"
    );
}

#[test]
fn what_was_not_accepted_is_given_back() {
    let limited = limited(&[(1, 64, Messages), (5, 64, Recipients)]);
    let mut spent = limited.take(1, seconds(1)).unwrap();
    assert_eq!(spent.reserve(9, seconds(1)), 4);
    assert_eq!(used(&limited, seconds(1)), [1, 5]);
    assert_eq!(limited.take(1, seconds(2)).unwrap_err(), UsedUp);
    drop(spent);
    assert_eq!(used(&limited, seconds(2)), [0, 0]);
    assert!(spend(&limited, 1, seconds(2)));
}

#[test]
fn recipients_are_reserved_as_far_as_there_is_room() {
    let limited = limited(&[
        (10, 64, Recipients),
        (7, 640, Recipients),
        (9, 64, Messages),
    ]);
    let mut one = limited.take(1, seconds(0)).unwrap();
    let mut two = limited.take(2, seconds(0)).unwrap();
    assert!(one.counts_recipients());
    assert_eq!(one.reserve(3, seconds(0)), 3);
    assert_eq!(two.reserve(3, seconds(0)), 1, "the smaller quota decides");
    assert_eq!(two.reserve(1, seconds(0)), 0);
    assert_eq!(used(&limited, seconds(0)), [7, 7, 2]);
    one.give_back(2);
    assert_eq!(two.reserve(3, seconds(0)), 2);
    two.keep(5, seconds(0));
    drop(one);
    assert_eq!(used(&limited, seconds(0)), [5, 5, 1]);
    assert!(limited.take(3, seconds(0)).is_err(), "all or nothing");
    assert!(limited.take(2, seconds(0)).is_ok());
}

#[test]
fn what_is_in_flight_counts_as_long_as_it_takes() {
    let limited = limited(&[(2, 1, Messages)]);
    let slow = limited.take(1, seconds(0)).unwrap();
    assert!(spend(&limited, 1, seconds(500)));
    assert!(!spend(&limited, 1, seconds(500)));
    slow.keep(1, seconds(600));
    assert_eq!(used(&limited, seconds(600)), [1], "it was taken then");
}

#[test]
fn a_reload_keeps_what_was_used_and_the_new_limit_counts() {
    let quotas = none();
    let before = install(&quotas, &[(3, 64, Messages)], seconds(0));
    assert!(spend(&before, 1, seconds(0)) && spend(&before, 1, seconds(0)));
    let less = install(&quotas, &[(2, 64, Messages)], seconds(1));
    assert!(less.is_used_up());
}

#[test]
fn a_quota_that_was_removed_and_returns_goes_on() {
    let quotas = none();
    let both = [(9, 640, Messages), (5, 64, Messages)];
    let before = install(&quotas, &both, seconds(0));
    assert!(spend(&before, 1, seconds(0)));
    let one = install(&quotas, &[(9, 640, Messages)], seconds(10));
    assert!(spend(&one, 1, seconds(20)));
    let again = install(&quotas, &both, seconds(30));
    assert_eq!(used(&again, seconds(30)), [2, 2], "each once");
    assert_eq!(used(&again, seconds(70)), [2, 1], "each in its time");
}

#[test]
fn another_period_begins_with_what_is_known() {
    let quotas = none();
    let day = install(&quotas, &[(9, 6_400, Messages)], seconds(0));
    assert!(spend(&day, 1, seconds(10)) && spend(&day, 1, seconds(6_000)));
    let shorter = install(&quotas, &[(9, 640, Messages)], seconds(6_010));
    assert_eq!(used(&shorter, seconds(6_010)), [1]);
    // A part of the longer one counts as if all of it was used at its end.
    assert_eq!(used(&shorter, seconds(6_640)), [1]);
    assert_eq!(used(&shorter, seconds(6_800)), [0]);
    let other = install(&quotas, &[(9, 640, Recipients)], seconds(6_020));
    assert_eq!(
        used(&other, seconds(6_020)),
        [0],
        "of recipients nothing is known"
    );
}

#[test]
fn a_restart_keeps_what_was_used() {
    let before = none();
    let limits = [(3, 64, Messages), (9, 128, Recipients)];
    let first = install(&before, &limits, seconds(0));
    assert!(spend(&first, 2, seconds(10)) && spend(&first, 1, seconds(11)));
    let after = none();
    after.restore(&before.records(seconds(12)), seconds(20));
    let again = install(&after, &limits, seconds(20));
    assert_eq!(used(&again, seconds(20)), [2, 3], "nothing twice");
    assert!(spend(&again, 1, seconds(20)));
    assert!(!spend(&again, 1, seconds(20)));
    assert_eq!(after.records(seconds(20)).len(), 2);
}

#[test]
fn a_restart_with_another_period_begins_with_what_is_known() {
    let before = none();
    let first = install(&before, &[(9, 640, Messages)], seconds(0));
    assert!(spend(&first, 1, seconds(10)));
    let after = none();
    let built = after.limited(&[Quota {
        count: 9,
        period: Duration::from_secs(320),
        unit: Messages,
    }]);
    after.restore(&before.records(seconds(12)), seconds(20));
    built.install(seconds(20));
    assert_eq!(used(&built, seconds(20)), [1]);
}

#[test]
fn a_file_of_an_older_run_counts_what_still_counts() {
    let before = none();
    let limits = [(9, 640, Messages), (9, 6_400, Messages)];
    let first = install(&before, &limits, seconds(0));
    assert!(spend(&first, 1, seconds(10)));
    let records = before.records(seconds(12));
    let after = none();
    after.restore(&records, seconds(3_000));
    let again = install(&after, &limits, seconds(3_000));
    assert_eq!(used(&again, seconds(3_000)), [0, 1]);
    after.restore(&records, seconds(90_000));
    assert_eq!(used(&again, seconds(90_000)), [0, 0]);
    assert!(!after.has_counts(seconds(90_000)));
}

#[test]
fn a_clock_that_was_set_back_neither_opens_a_window_nor_shuts_it_for_ever() {
    let before = none();
    let first = install(&before, &[(1, 64, Messages)], seconds(0));
    assert!(spend(&first, 1, seconds(1_000)));
    let after = none();
    after.restore(&before.records(seconds(1_000)), seconds(10));
    let again = install(&after, &[(1, 64, Messages)], seconds(10));
    assert!(!spend(&again, 1, seconds(10)));
    assert!(spend(&again, 1, seconds(10 + 65)));
}

#[test]
fn records_that_nobody_can_have_written_do_no_harm() {
    let after = none();
    let record = |period: u64, parts: &[(u64, u64)]| QuotaRecord {
        period: Duration::from_secs(period),
        unit: Messages,
        parts: parts.to_vec(),
    };
    let wrong = [
        record(0, &[(1, 1)]),
        record(u64::MAX, &[(1, 1)]),
        record(
            64,
            &[(u64::MAX, u64::MAX), (1_000_000, u64::MAX), (1_000_000, 7)],
        ),
    ];
    after.restore(&wrong, seconds(0));
    let limited = install(&after, &[(5, 64, Messages)], seconds(0));
    assert!(!spend(&limited, 1, seconds(0)));
    assert!(
        spend(&limited, 1, seconds(65)),
        "as soon as a span has passed"
    );
    assert_eq!(after.records(seconds(65)).len(), 1);
}

#[test]
fn windows_that_nobody_asks_for_are_bounded_and_go_when_they_count_nothing() {
    let quotas = none();
    for period in 1..=100 {
        let limited = install(&quotas, &[(1_000, period * 640, Messages)], seconds(0));
        assert!(spend(&limited, 1, seconds(0)));
    }
    assert_eq!(lock(&quotas.known).len(), WINDOWS_MAX);
    assert!(quotas.has_counts(seconds(1)));
    assert!(!quotas.has_counts(seconds(1_000_000)));
    assert_eq!(lock(&quotas.known).len(), 1, "the one that is asked for");
}

#[test]
fn a_quota_that_is_said_twice_counts_once() {
    let limited = limited(&[(5, 64, Messages), (3, 64, Messages)]);
    assert_eq!(limited.usage(seconds(0)).len(), 1);
    let spent = (0..9).filter(|_| spend(&limited, 1, seconds(0))).count();
    assert_eq!(spent, 3);
}

#[test]
fn threads_together_get_exactly_what_is_allowed() {
    const COUNT: u64 = 5_000;
    let limited = limited(&[(COUNT, 2_000_000, Recipients), (COUNT, 2_000_000, Messages)]);
    let kept: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let limited = limited.clone();
                scope.spawn(move || {
                    let mut kept = 0;
                    for round in 0..4_000_u32 {
                        let Ok(mut spent) = limited.take(1, seconds(1)) else {
                            continue;
                        };
                        let more = spent.reserve((round + thread) % 4, seconds(1));
                        if round % 3 == 0 {
                            continue;
                        }
                        kept += u64::from(1 + more);
                        spent.keep(1 + more, seconds(1));
                    }
                    kept
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("it does not panic"))
            .sum()
    });
    assert!(kept <= COUNT);
    assert_eq!(used(&limited, seconds(1))[0], kept, "none is lost or made");
    let rest = limited.take(1, seconds(1)).map(|mut spent| {
        let more = spent.reserve(u32::MAX, seconds(1));
        u64::from(1 + more)
    });
    assert_eq!(rest.unwrap_or(0), COUNT - kept);
}

proptest! {
    #[test]
    fn no_span_holds_more_than_the_quota(
        count in 1_u64..20,
        steps in proptest::collection::vec((0_u64..4_000, 1_u32..5, 0_u32..8), 1..200),
    ) {
        let quotas = none();
        let mut limited = install(&quotas, &[(count, 10, Recipients)], seconds(0));
        let (mut now, mut taken) = (seconds(0), Vec::new());
        let mut flying: Vec<Spent> = Vec::new();
        for (step, recipients, act) in steps {
            now += Duration::from_millis(step);
            if let Ok(mut spent) = limited.take(1, now) {
                spent.reserve(recipients - 1, now);
                flying.push(spent);
            }
            match act {
                0 | 1 if !flying.is_empty() => drop(flying.remove(0)),
                2 => {
                    // A restart: what is in flight is not known to it.
                    flying.clear();
                    let after = none();
                    after.restore(&quotas.records(now), now);
                    limited = install(&after, &[(count, 10, Recipients)], now);
                    let sum: u64 = after.records(now)[..].iter()
                        .flat_map(|record| &record.parts).map(|(_, used)| used).sum();
                    prop_assert_eq!(used(&limited, now)[0], sum);
                    limited = install(&quotas, &[(count, 10, Recipients)], now);
                }
                _ if !flying.is_empty() => {
                    let spent = flying.remove(0);
                    taken.push((now, u64::from(spent.recipients())));
                    let recipients = spent.recipients();
                    spent.keep(recipients, now);
                }
                _ => {}
            }
            let within = |span| -> u64 {
                let recent = taken.iter().filter(|(at, _)| now - *at < Duration::from_millis(span));
                recent.map(|(_, recipients)| recipients).sum()
            };
            prop_assert!(within(10_000) <= count);
            // Not stingy either: what is full held it in a full span and one part more.
            let flying: u64 = flying.iter().map(|spent| u64::from(spent.recipients())).sum();
            limited.refresh(now);
            prop_assert!(!limited.is_used_up() || within(10_320) + flying >= count);
        }
    }
}
