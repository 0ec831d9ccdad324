//! `posthouse demo`: the main job, whole, in one terminal.
//!
//! Three sinks, a real balancer in front of them, clients that send mail, and a story in which
//! backends die, refuse and hang. What is shown is read from the balancer's own state and from the
//! sinks; nothing is made up. In smtp mode every message is numbered, and what was acknowledged is
//! compared with what is in the sinks. The exit code says whether a client was ever refused or not
//! greeted, or a message was lost or doubled.

mod board;
mod ledger;
mod picture;
mod places;
mod plain;
mod screen;
mod story;
mod summary;
mod traffic;

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::Parser;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use self::board::Board;
use self::places::Places;
use self::story::Story;
use self::traffic::Traffic;
use super::signals::Ending;
use super::{Exit, LogChoice, Start, StartPlan, complain, term};
use crate::config::{self, Config};
use crate::control::{Running, Signals};
use crate::lab::{Sink, SinkHandle, SinkPlan};

/// The backends.
const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];
/// The embedded configuration, with places for the addresses.
const CONFIG: &str = include_str!("demo.toml");
/// How often the picture is drawn.
const FRAME: Duration = Duration::from_millis(100);
/// How long clients may finish at the end.
const LAST_LETTERS: Duration = Duration::from_secs(10);
/// How often a start is tried.
const STARTS_MAX: u32 = 3;
/// The messages each sink remembers between two frames: to find those sent by hand, and to compare
/// all of them with what was acknowledged.
const REMEMBERED: usize = 16_384;

/// What the demo's listener does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Mode {
    /// Sessions are relayed as they are
    Passthrough,
    /// Each message is placed by itself, over kept connections
    Smtp,
}

impl Mode {
    /// As the configuration says it.
    fn name(self) -> &'static str {
        match self {
            Self::Passthrough => "passthrough",
            Self::Smtp => "smtp",
        }
    }
}

/// `posthouse demo`.
#[derive(Debug, Parser)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// What is shown: sessions that never meet a dead backend, or messages that survive theirs
    #[arg(long, value_enum, default_value_t = Mode::Passthrough)]
    mode: Mode,
    /// End after so many seconds, with a summary
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
    /// The port of the balancer on 127.0.0.1 [default: 2525, or a free one]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// The port of the status endpoint on 127.0.0.1 [default: 8025, or a free one]
    #[arg(long, value_name = "PORT")]
    admin_port: Option<u16>,
    /// How many clients send mail
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=500))]
    clients: u16,
    /// Print lines instead of the live picture
    #[arg(long)]
    plain: bool,
    /// Print the demo's configuration and end
    #[arg(long)]
    print_config: bool,
}

const AFTER_HELP: &str = "\
Everything listens on 127.0.0.1 only and is gone when the demo ends. Ctrl-C ends it.

Exit codes:
  0  every client was greeted and every acknowledged message is in a backend; with --mode smtp in
     exactly one (in two at most if its sender was told that its fate was unknown)
  1  a client was refused or not greeted, or a message is missing or doubled
  2  wrong usage, or an address cannot be bound";

pub(super) fn run(args: &Args, start: Start) -> Exit {
    match play(args, start) {
        Ok(exit) => exit,
        Err(error) => {
            complain(&error);
            Exit::CannotStart
        }
    }
}

fn play(args: &Args, start: Start) -> anyhow::Result<Exit> {
    if args.print_config {
        let places = Places::choose(args.port, args.admin_port)?;
        let backends = NAMES.map(|_| "127.0.0.1:25".parse().expect("an address"));
        term::say(&config_text(args.mode, &places, backends));
        return Ok(Exit::Done);
    }
    let sinks = start_sinks()?;
    let (places, running) = start_balancer(args, &sinks, start)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let board = runtime.block_on(show(args, &places, &sinks, &running))?;
    running.stop();
    running.wait();
    term::say(&summary::text(&board, term::Paint::for_stdout()));
    Ok(if board.is_clean() {
        Exit::Done
    } else {
        Exit::Mistakes
    })
}

/// Between the choice of a port and its use another program may take it: then choose again.
fn start_balancer(
    args: &Args,
    sinks: &[SinkHandle],
    start: Start,
) -> anyhow::Result<(Places, Running)> {
    let mut attempt = 1;
    loop {
        let places = Places::choose(args.port, args.admin_port)?;
        let plan = StartPlan {
            config: read_config(args.mode, &places, sinks)?,
            config_path: None,
            signals: Signals::Ignored,
            log: LogChoice::None,
        };
        match start(plan) {
            Ok(running) => return Ok((places, running)),
            Err(_) if attempt < STARTS_MAX => attempt += 1,
            Err(error) => {
                return Err(anyhow::Error::new(error).context("the demo's balancer cannot start"));
            }
        }
    }
}

fn start_sinks() -> anyhow::Result<Vec<SinkHandle>> {
    NAMES
        .iter()
        .map(|name| {
            let mut plan = SinkPlan::default().named(&format!("{name}.demo"));
            plan.keep_records = REMEMBERED;
            Sink::spawn_thread(plan).with_context(|| format!("cannot start the backend {name}"))
        })
        .collect()
}

fn config_text(mode: Mode, places: &Places, backends: [std::net::SocketAddr; 3]) -> String {
    let mut text = CONFIG
        .replace("{mode}", mode.name())
        .replace("{listen}", &places.listen.to_string())
        .replace("{admin}", &places.admin.to_string());
    for (name, address) in NAMES.iter().zip(backends) {
        text = text.replace(&format!("{{{name}}}"), &address.to_string());
    }
    text
}

fn read_config(mode: Mode, places: &Places, sinks: &[SinkHandle]) -> anyhow::Result<Config> {
    let backends = [0, 1, 2].map(|index: usize| sinks[index].address());
    let text = config_text(mode, places, backends);
    let no_files = |_: &Path| Err(io::ErrorKind::NotFound.into());
    config::parse(&text, Path::new("demo.toml"), "demo", &no_files)
        .map(|loaded| loaded.config)
        .map_err(|mistakes| anyhow!("the demo's own configuration has mistakes:\n{mistakes}"))
}

/// Plays the story until the time is over or somebody ends it.
async fn show(
    args: &Args,
    places: &Places,
    sinks: &[SinkHandle],
    running: &Running,
) -> anyhow::Result<Board> {
    let mut ending = Ending::listen().context("cannot watch signals")?;
    let limit = args.seconds.map(Duration::from_secs);
    let began = Instant::now();
    let (stop, stopped) = watch::channel(false);
    let mut traffic = Traffic::start(args.mode, args.clients, places.listen, &stopped);
    let mut story = Story::of(args.mode, limit);
    let mut board = Board::new(args.mode, places, began, args.clients);
    let mut view = View::new(args);
    let mut frames = interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        // Both branches are cancel-safe: signals and an interval.
        tokio::select! {
            () = ending.asked() => break,
            _ = frames.tick() => {}
        }
        for scene in story.due(began.elapsed()) {
            board.note_scene(scene);
            scene
                .play(sinks)
                .await
                .context("a backend cannot come back")?;
        }
        board.sample(running.handle().shared(), sinks, traffic.so_far());
        view.draw(&board)?;
        if limit.is_some_and(|limit| began.elapsed() >= limit) {
            break;
        }
    }
    // Nobody is cut off: clients finish their letters against whatever is up.
    for scene in story.healing() {
        scene
            .play(sinks)
            .await
            .context("a backend cannot come back")?;
    }
    stop.send_replace(true);
    let unfinished = timeout(LAST_LETTERS, traffic.finish()).await.is_err();
    board.sample(running.handle().shared(), sinks, traffic.so_far());
    board.close(unfinished);
    view.end();
    Ok(board)
}

/// The picture or the lines.
enum View {
    Picture(screen::Screen),
    Lines(plain::Lines),
}

impl View {
    fn new(args: &Args) -> Self {
        if args.plain || !io::stdout().is_terminal() || term::size().is_none() {
            Self::Lines(plain::Lines::default())
        } else {
            Self::Picture(screen::Screen::open())
        }
    }

    fn draw(&mut self, board: &Board) -> anyhow::Result<()> {
        match self {
            Self::Picture(screen) => {
                let size = term::size().unwrap_or((80, 24));
                let lines = picture::lines(board, size, term::Paint::for_stdout());
                screen.show(&lines).context("cannot draw")
            }
            Self::Lines(lines) => lines.print(board).context("cannot print"),
        }
    }

    fn end(self) {
        match self {
            Self::Picture(screen) => drop(screen),
            Self::Lines(_) => {}
        }
    }
}
