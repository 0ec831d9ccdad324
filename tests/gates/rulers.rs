//! The rulers themselves: a ruler that reads wrong would make every gate worthless.

use crate::support::callgrind;
use crate::support::client::{Work, replies};
use crate::support::statistics::{median, paired_ratio, percentile, slope};
use crate::support::syscalls;

const OUTPUT: &str = "version: 1\nevents: Ir\n\nfn=(1) main\n10 5\ncfn=(2) malloc\ncalls=3 20\n\
                      11 900\n+1 7\n\nfn=(2)\n20 300\ncfn=(3) realloc\ncalls=2 30\n21 50\n\
                      \nfn=(4) grow\n40 1\ncfn=(3)\ncalls=4 30\n41 60\n\ntotals: 1323\n";

#[test]
fn calls_that_allocate_are_counted_once_and_by_their_callers() {
    let counted = callgrind::parse(OUTPUT);
    // Three of malloc by main and four of realloc by grow; malloc's own use of realloc is not
    // another allocation.
    assert_eq!(counted.allocations, 7);
    assert_eq!(counted.instructions, 1323);
}

#[test]
fn a_call_is_no_cost_of_the_caller_itself() {
    let counted = callgrind::parse(OUTPUT);
    assert_eq!(counted.by_function.get("main"), Some(&12));
    assert_eq!(counted.by_function.get("malloc"), Some(&300));
}

#[test]
fn a_message_has_the_length_that_was_asked_for_and_one_end() {
    for octets in [1_024, 10_240, 102_400, 1 << 20] {
        let work = Work::new(1, octets);
        assert!(
            work.body().len() <= octets && work.body().len() + 2 >= octets,
            "{octets}"
        );
        let ends = work
            .body()
            .windows(5)
            .filter(|w| *w == b"\r\n.\r\n")
            .count();
        assert_eq!(ends, 1);
        assert!(work.body().ends_with(b"\r\n.\r\n"));
    }
}

#[test]
fn a_reply_is_whole_at_the_end_of_its_last_line() {
    // RFC 5321 §4.2.1: a hyphen says that another line follows.
    assert_eq!(replies(b"250 ok\r\n"), [*b"250"]);
    assert_eq!(replies(b"250-a\r\n250 b\r\n"), [*b"250"]);
    assert_eq!(replies(b"250-a\r\n"), [[0; 3]; 0]);
    assert_eq!(replies(b"250 ok\r"), [[0; 3]; 0]);
    assert_eq!(replies(b"250 a\r\n354 b\r\n4"), [*b"250", *b"354"]);
}

#[test]
fn a_percentile_lies_between_its_neighbours() {
    let values = [4.0, 1.0, 3.0, 2.0];
    assert!((median(&values) - 2.5).abs() < 1e-9);
    assert!((percentile(&values, 100.0) - 4.0).abs() < 1e-9);
    assert!((percentile(&[], 50.0)).abs() < 1e-9);
}

#[test]
fn equal_pairs_have_the_ratio_one_and_no_interval() {
    let same = paired_ratio(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0]);
    assert!((same.value - 1.0).abs() < 1e-9 && (same.high - same.low).abs() < 1e-9);
}

#[test]
fn a_slope_forgets_what_both_have_in_common() {
    assert!((slope((100, 1_100.0), (600, 6_100.0)) - 10.0).abs() < 1e-9);
}

#[test]
fn the_summary_of_strace_is_read_with_and_without_errors() {
    let text = "syscall              calls    errors\n---------------- --------- ---------\n\
                recvfrom                10         2\nwritev                   7\n\
                ---------------- --------- ---------\ntotal                   17         2\n";
    let calls = syscalls::parse(text);
    assert_eq!(calls.get("recvfrom"), Some(&(10, 2)));
    assert_eq!(calls.get("writev"), Some(&(7, 0)));
    assert_eq!(syscalls::total(&calls), 17);
}
