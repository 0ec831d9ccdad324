//! Rows that count and never time: system calls, instructions, allocations, bytes.

use anyhow::Result;

use super::Plan;
use super::support::client::{Style, Work};
use super::support::measure::{AT_ONCE, Instructions};
use super::support::peer::Kind;
use super::support::report::Report;

/// What mail is measured with in smtp mode.
const MAIL_OCTETS: usize = 4_096;

/// One 10 KB session by lock-step client and sink.
pub(super) fn session(plan: &Plan, report: &mut Report) -> Result<()> {
    let row = "10 KB session, counted";
    for &kind in &plan.kinds {
        let (calls, which) =
            plan.bench
                .session_syscalls(kind, &Work::short(), plan.pick((50, 150), (20, 60)))?;
        report.judge(row, "system calls / session", kind, calls, 54.0);
        report.note(row, format!("`{kind}` system calls: {which}"));
    }
    for &kind in &plan.kinds {
        if kind == Kind::HaproxySplice && plan.quick {
            continue;
        }
        let counts = plan.pick((100, 600), (50, 250));
        let alone = plan.bench.instructions(kind, &Work::short(), counts, 1)?;
        report.add(
            row,
            "user instructions / session, one at a time",
            kind,
            alone.per_session,
        );
        let cost = plan
            .bench
            .instructions(kind, &Work::short(), counts, AT_ONCE)?;
        report.judge(
            row,
            "user instructions / session, 32 at once",
            kind,
            cost.per_session,
            22_000.0,
        );
        // The task itself is one allocation; the budget is three beyond it.
        report.judge(row, "allocations / session", kind, cost.allocations, 4.0);
        if kind == Kind::Posthouse {
            let top: Vec<String> = cost
                .top
                .iter()
                .map(|(name, own)| format!("{own:.0} {name}"))
                .collect();
            report.note(
                row,
                format!("own instructions per session: {}", top.join(" · ")),
            );
        }
    }
    Ok(())
}

/// One 10 MB message; and what a megabyte more allocates.
pub(super) fn bulk(plan: &Plan, report: &mut Report) -> Result<()> {
    let row = "10 MB message, counted";
    for &kind in &plan.kinds {
        let calls = plan.bench.bulk_syscalls(kind, 10 << 20, plan.pick(9, 3))?;
        report.judge(row, "system calls / message", kind, calls, 420.0);
    }
    if plan.has(Kind::Posthouse) {
        let counts = plan.pick((20, 120), (10, 40));
        let short = plan
            .bench
            .instructions(Kind::Posthouse, &Work::short(), counts, 1)?;
        let long = plan
            .bench
            .instructions(Kind::Posthouse, &Work::new(1, 1 << 20), counts, 1)?;
        let more = long.allocations - short.allocations;
        report.judge(row, "allocations of 1 MB more", Kind::Posthouse, more, 0.5);
    }
    Ok(())
}

/// Sessions that sit after EHLO.
pub(super) fn idle(plan: &Plan, report: &mut Report) -> Result<()> {
    let row = "idle session after EHLO";
    for &kind in &plan.kinds {
        if kind == Kind::HaproxySplice {
            continue;
        }
        let (private, proportional) = plan.bench.idle_memory(
            kind,
            &Work::new(0, 0),
            plan.pick((1_000, 7_000), (500, 2_500)),
        )?;
        report.judge(row, "private bytes / session", kind, private, 2048.0);
        report.add(row, "PSS bytes / session", kind, proportional);
    }
    Ok(())
}

/// Messages of 4 KB on a client session that is kept.
pub(super) fn mail_kept(plan: &Plan, report: &mut Report) -> Result<()> {
    let styles = [
        (
            Style::Ehlo,
            "smtp mode: a message on a kept session, counted",
        ),
        (
            Style::Pipelined,
            "smtp mode: the same, MAIL, RCPT and DATA in one write",
        ),
    ];
    for (style, row) in styles {
        let work = Work::new(1, MAIL_OCTETS).spoken(style);
        for &kind in &plan.mail_kinds {
            let counts = plan.pick((50, 250), (20, 60));
            let (calls, which) = plan.bench.message_syscalls(kind, &work, counts)?;
            report.judge(row, "system calls / message", kind, calls, 28.0);
            report.note(row, format!("`{kind}` system calls: {which}"));
        }
        for &kind in &plan.mail_kinds {
            let counts = plan.pick((100, 600), (50, 250));
            let cost = plan.bench.message_instructions(kind, &work, counts)?;
            say_instructions(report, row, kind, "message", &cost);
        }
    }
    Ok(())
}

/// A session with one message of 4 KB.
pub(super) fn mail_session(plan: &Plan, report: &mut Report) -> Result<()> {
    let row = "smtp mode: a session with 1 message of 4 KB, counted";
    let work = Work::new(1, MAIL_OCTETS).spoken(Style::Ehlo);
    for &kind in &plan.mail_kinds {
        let counts = plan.pick((50, 150), (20, 60));
        let (calls, which) = plan.bench.session_syscalls(kind, &work, counts)?;
        report.add(row, "system calls / session", kind, calls);
        report.note(row, format!("`{kind}` system calls: {which}"));
        let counts = plan.pick((100, 600), (50, 250));
        let cost = plan.bench.mail_session_instructions(kind, &work, counts)?;
        say_instructions(report, row, kind, "session", &cost);
    }
    Ok(())
}

fn say_instructions(report: &mut Report, row: &str, kind: Kind, unit: &str, cost: &Instructions) {
    let metric = format!("user instructions / {unit}, one at a time");
    report.add(row, &metric, kind, cost.per_session);
    let metric = format!("allocations / {unit}");
    report.add(row, &metric, kind, cost.allocations);
    if kind.is_ours() {
        let top: Vec<String> = cost
            .top
            .iter()
            .map(|(name, own)| format!("{own:.0} {name}"))
            .collect();
        let top = top.join(" · ");
        report.note(row, format!("own instructions per {unit}: {top}"));
    }
}

/// Sessions that sit after EHLO, and after a message.
pub(super) fn mail_idle(plan: &Plan, report: &mut Report) -> Result<()> {
    for (messages, row) in [
        (0, "smtp mode: idle session after EHLO"),
        (1, "smtp mode: idle session after a message"),
    ] {
        let work = Work::new(messages, MAIL_OCTETS).spoken(Style::Ehlo);
        for &kind in &plan.mail_kinds {
            let counts = plan.pick((1_000, 7_000), (500, 2_500));
            let (private, proportional) = plan.bench.idle_memory(kind, &work, counts)?;
            report.judge(row, "private bytes / session", kind, private, 3_000.0);
            report.add(row, "PSS bytes / session", kind, proportional);
        }
    }
    Ok(())
}
