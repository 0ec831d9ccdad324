//! `posthouse sink`: the test MTA on its own, with typed faults, a live line and a report.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::Parser;
use serde::Serialize;
use tokio::time::interval;

use super::address::{ListenAddress, bind_remedy};
use super::signals::Ending;
use super::{Exit, complain, term};
use crate::lab::{
    Fault, MessageRecord, ProxyRecord, Script, Sink, SinkCounts, SinkHandle, SinkPlan,
};
use crate::types::in_words;

/// How often the live line is drawn on a terminal, and printed elsewhere.
const DRAWN_EVERY: Duration = Duration::from_millis(200);
const PRINTED_EVERY: Duration = Duration::from_secs(1);

/// `posthouse sink`.
#[derive(Debug, Parser)]
#[command(after_help = AFTER_HELP, after_long_help = AFTER_LONG_HELP)]
pub(super) struct Args {
    /// Where to listen: ADDRESS:PORT, or a port of 127.0.0.1; repeat for more
    #[arg(long, short, required = true, num_args = 1.., value_name = "ADDR")]
    listen: Vec<ListenAddress>,
    /// Fail on purpose: WHERE=WHAT, for example greeting=421; repeat for more
    #[arg(long, short, value_name = "WHERE=WHAT")]
    fault: Vec<Fault>,
    /// The name in the greeting
    #[arg(long, default_value = "sink.test")]
    name: String,
    /// Report in JSON, with the last messages and PROXY headers
    #[arg(long)]
    json: bool,
    /// How many messages and PROXY headers the JSON report keeps
    #[arg(long, default_value_t = 100, value_name = "N")]
    record: u16,
    /// End after so many seconds
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// End after so many messages
    #[arg(long, value_name = "N")]
    messages: Option<u64>,
}

const AFTER_HELP: &str = "\
Exit codes:
  0  ended by Ctrl-C, SIGTERM, --seconds, --messages or a fault (WHERE=die)
  2  wrong usage, or an address cannot be bound";

const AFTER_LONG_HELP: &str = "\
Faults (WHERE=WHAT):
  WHERE is connect, greeting, ehlo, mail, rcpt, data, mid-data (the content has begun), dot
        (the message is whole), taken (it is counted, the reply is due), rset or quit
  WHAT  is close, reset, die (the whole sink ends), silent, delay:TIME, torn:OCTETS (of a reply),
        or a reply: 421, \"550 5.1.1 no such user\", \"220-two\\n220 lines\"
  after=3                nothing of it in the first 3 transactions of a connection
  greeting=teaser:6s     220- at once and the last line later, like postscreen
  all=delay:50ms         wait before every reply
  proxy=required         a PROXY v1 or v2 header must come first
  pipelining=off         like OpenSMTPD: 500 and the end
  capabilities=SIZE 1000,8BITMIME
  max=2 | max=2:421      one connection more waits without a greeting, or is refused

Examples:
  posthouse sink --listen 2526
  posthouse sink --listen 2526 --fault greeting=silent
  posthouse sink --listen 2526 --fault rcpt=delay:2s --fault dot=451 --json
  posthouse sink --listen 2526 --fault taken=die    dies with a message that nobody hears of

Exit codes:
  0  ended by Ctrl-C, SIGTERM, --seconds, --messages or a fault (WHERE=die)
  2  wrong usage, or an address cannot be bound";

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    listen: Vec<SocketAddr>,
    seconds: f64,
    counts: SinkCounts,
    messages: Vec<MessageRecord>,
    proxy_headers: Vec<ProxyRecord>,
}

pub(super) fn run(args: &Args) -> Exit {
    match serve(args) {
        Ok(()) => Exit::Done,
        Err(error) => {
            complain(&error);
            Exit::CannotStart
        }
    }
}

fn serve(args: &Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let script = args.fault.iter().fold(Script::good(), |script, fault| {
            fault.clone().put_into(script)
        });
        let plan = SinkPlan {
            listen: args.listen.iter().map(|address| address.0).collect(),
            name: args.name.as_str().into(),
            script,
            keep_records: if args.json { args.record.into() } else { 0 },
            keep_octets: 0,
        };
        let began = Instant::now();
        let sink = Sink::start(plan).map_err(explain)?;
        let mut live = Live::new(args);
        live.begin(&sink);
        watch(args, &sink, &mut live).await?;
        live.end(&sink);
        report(args, &sink, began)
    })
}

fn explain(error: io::Error) -> anyhow::Error {
    let remedy = bind_remedy(&error);
    let error = anyhow::Error::new(error);
    match remedy {
        Some(remedy) => error.context(format!("cannot listen ({remedy})")),
        None => error.context("cannot listen"),
    }
}

/// Until somebody or something ends it.
async fn watch(args: &Args, sink: &SinkHandle, live: &mut Live) -> anyhow::Result<()> {
    let mut ending =
        Ending::listen().map_err(|error| anyhow!("cannot watch signals: {}", in_words(&error)))?;
    let end = args
        .seconds
        .map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut ticks = interval(DRAWN_EVERY);
    loop {
        // Both branches are cancel-safe: signals and an interval.
        tokio::select! {
            () = ending.asked() => return Ok(()),
            _ = ticks.tick() => live.show(sink),
        }
        let enough = args
            .messages
            .is_some_and(|messages| sink.counts().messages >= messages);
        let died = sink.counts().deaths > 0;
        if enough || died || end.is_some_and(|end| Instant::now() >= end) {
            return Ok(());
        }
    }
}

/// The live line: redrawn on a terminal, printed now and then elsewhere; on standard error when
/// standard output is for JSON.
struct Live {
    to_stderr: bool,
    drawn: bool,
    paint: term::Paint,
    last: SinkCounts,
    printed: Instant,
}

impl Live {
    fn new(args: &Args) -> Self {
        let (drawn, paint) = if args.json {
            (io::stderr().is_terminal(), term::Paint::for_stderr())
        } else {
            (io::stdout().is_terminal(), term::Paint::for_stdout())
        };
        Self {
            to_stderr: args.json,
            drawn,
            paint,
            last: SinkCounts::default(),
            printed: Instant::now(),
        }
    }

    fn begin(&mut self, sink: &SinkHandle) {
        let addresses: Vec<String> = sink.addresses().iter().map(ToString::to_string).collect();
        let line = format!("listening on {}", addresses.join(" "));
        self.put(&format!("{line}\n"));
        if self.drawn {
            self.put(&self.paint.faint("Ctrl-C ends it with a report\n"));
        }
    }

    fn show(&mut self, sink: &SinkHandle) {
        let counts = sink.counts();
        if self.drawn {
            let columns = term::size().map_or(80, |(columns, _)| columns);
            let line = term::cut(&self.line(&counts), columns);
            self.put(&format!("\r{line}\x1b[K"));
        } else if counts != self.last && self.printed.elapsed() >= PRINTED_EVERY {
            self.printed = Instant::now();
            self.put(&format!("{}\n", self.line(&counts)));
            self.last = counts;
        }
    }

    fn end(&mut self, sink: &SinkHandle) {
        if self.drawn {
            self.show(sink);
            self.put("\n");
        }
    }

    fn line(&self, counts: &SinkCounts) -> String {
        let mut line = format!(
            "{} messages  {} recipients  {}   {} connections ({} open)",
            self.paint.strong(&counts.messages.to_string()),
            counts.recipients,
            octets(counts.octets),
            counts.connections,
            counts.open,
        );
        for (count, word) in [
            (counts.lost, "lost"),
            (counts.faults, "faults"),
            (counts.proxy_headers, "PROXY headers"),
            (counts.proxy_refused, "without PROXY header"),
        ] {
            if count > 0 {
                line.push_str(&self.paint.warn(&format!("  {count} {word}")));
            }
        }
        line
    }

    fn put(&self, text: &str) {
        // A closed stream ends the picture, not the sink.
        let _ = if self.to_stderr {
            write_now(&mut io::stderr().lock(), text)
        } else {
            write_now(&mut io::stdout().lock(), text)
        };
    }
}

fn write_now(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn report(args: &Args, sink: &SinkHandle, began: Instant) -> anyhow::Result<()> {
    let counts = sink.counts();
    let text = if args.json {
        let report = Report {
            listen: sink.addresses().to_vec(),
            seconds: began.elapsed().as_secs_f64(),
            counts,
            messages: sink.messages(),
            proxy_headers: sink.proxy_headers(),
        };
        serde_json::to_string_pretty(&report)? + "\n"
    } else {
        text_report(&counts)
    };
    write_now(&mut io::stdout().lock(), &text).context("cannot print the report")
}

fn text_report(counts: &SinkCounts) -> String {
    let rows = [
        ("connections", counts.connections),
        ("greetings", counts.greetings),
        ("EHLO", counts.ehlos),
        ("MAIL", counts.mails),
        ("recipients", counts.recipients),
        ("messages", counts.messages),
        ("messages refused", counts.messages_refused),
        ("octets", counts.octets),
        ("RSET", counts.rsets),
        ("QUIT", counts.quits),
        ("lost without QUIT", counts.lost),
        ("of those reset", counts.resets),
        ("without a word", counts.wordless),
        ("PROXY headers", counts.proxy_headers),
        ("PROXY header missing", counts.proxy_refused),
        ("talked too early", counts.early_talkers),
        ("pipelining refused", counts.pipelining_refused),
        ("faults played", counts.faults),
        ("deaths", counts.deaths),
    ];
    rows.iter().fold(String::new(), |mut text, (word, count)| {
        let _ = writeln!(text, "{word:<22}{count:>12}");
        text
    })
}

/// An amount of octets, for people.
pub(super) fn octets(count: u64) -> String {
    let amount = count as f64;
    match count {
        0..10_000 => format!("{count} B"),
        10_000..10_000_000 => format!("{:.0} KB", amount / 1e3),
        10_000_000..10_000_000_000 => format!("{:.0} MB", amount / 1e6),
        _ => format!("{:.1} GB", amount / 1e9),
    }
}
