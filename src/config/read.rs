//! The whole file: syntax, the top of it, `[log]`, `[admin]`, and what the others read.
//!
//! Syntax mistakes do not end the reading: the parser recovers and the rest is read too, but then
//! nothing is said to be missing, because it may stand in the part that could not be read.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::DeTable;

use super::mistake::{ConfigErrors, Source};
use super::model::{Admin, AdminBind, Config, Log};
use super::read_listener::{self, ListenerRead};
use super::read_pool::{self, PoolRead};
use super::report::{Place, Report};
use super::section::Section;
use super::value::{self, Wrong};
use super::{Loaded, Machine, check, words};

/// The permission bits of the status endpoint's Unix socket, if none are given.
const ADMIN_MODE: u32 = 0o660;
/// Stands for our name while the real one is unknown; such a configuration is never used.
const NO_NAME: &str = "localhost";

/// Everything that was read, with the places that checks across tables point to.
pub(super) struct Everything {
    pub(super) config: Config,
    /// Where each of the status endpoint's addresses stands.
    pub(super) admin_binds: Vec<Place>,
    pub(super) token_file: Place,
    pub(super) listeners: BTreeMap<Arc<str>, ListenerRead>,
    pub(super) pools: BTreeMap<Arc<str>, PoolRead>,
    pub(super) top: Place,
    pub(super) replay_memory: Place,
    pub(super) state_file: Place,
}

/// The status endpoint, with the places that checks across tables point to.
struct AdminRead {
    admin: Admin,
    binds: Vec<Place>,
    token_file: Place,
}

/// The files beside the main one.
pub(super) struct Files<'f> {
    pub(super) folder: &'f Path,
    pub(super) read: &'f dyn Fn(&Path) -> io::Result<String>,
}

impl Files<'_> {
    /// A path as the file writes it: relative to the folder of the main file.
    pub(super) fn path(&self, written: &str) -> Result<PathBuf, Wrong> {
        if written.is_empty() || written.contains('\0') {
            return Err(Wrong::new("this is not a path", "write the path of a file"));
        }
        Ok(self.folder.join(written))
    }
}

pub(super) fn configuration(
    text: &str,
    origin: &Path,
    machine: Machine<'_>,
    read: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<Loaded, ConfigErrors> {
    let source = Arc::new(Source::new(origin, text.to_owned()));
    let report = Report::default();
    let folder = origin.parent().unwrap_or(Path::new(""));
    let files = Files { folder, read };
    let everything = with_table(&source, &report, |table| {
        document(table, &source, machine.name, &files, &report)
    });
    if report.is_whole() {
        check::across_tables(&everything, machine.addresses, &report);
        if let Some(here) = machine.here {
            check::on_this_machine(&everything, here, &report);
        }
    }
    let Everything {
        mut config,
        listeners,
        pools,
        ..
    } = everything;
    config.listeners = listeners
        .into_iter()
        .map(|(name, read)| (name, read.listener))
        .collect();
    config.pools = pools
        .into_iter()
        .map(|(name, read)| (name, read.pool))
        .collect();
    let backends_files = config
        .pools
        .values()
        .filter_map(|pool| pool.backends_file.clone());
    config.files = std::iter::once(origin.to_owned())
        .chain(backends_files)
        .collect();
    report.into_result(origin, config)
}

/// Parses a file; syntax mistakes go to the report, and what could be read goes on.
pub(super) fn with_table<T>(
    source: &Arc<Source>,
    report: &Report,
    read: impl FnOnce(&DeTable<'_>) -> T,
) -> T {
    let (table, errors) = DeTable::parse_recoverable(&source.text);
    for error in errors {
        let place = Place {
            source: Arc::clone(source),
            span: error.span().unwrap_or(0..0),
            path: String::new(),
        };
        report.syntax(&place, error.message());
    }
    read(table.get_ref())
}

fn document(
    table: &DeTable<'_>,
    source: &Arc<Source>,
    machine: &str,
    files: &Files<'_>,
    report: &Report,
) -> Everything {
    let place = start_of(source);
    let top = Section::new(Some(table), place.clone(), "", report);
    let hostname = hostname(&top, machine, report);
    let mut config = Config::for_host(&hostname);
    top.count_opt("workers", &mut config.workers);
    top.count_opt("max_sessions", &mut config.max_sessions);
    top.duration("shutdown_timeout", &mut config.shutdown_timeout);
    top.duration("drain_timeout", &mut config.drain_timeout);
    top.flag("watch", &mut config.watch);
    top.flag("splice", &mut config.splice);
    top.size("replay_memory", &mut config.replay_memory);
    config.state_file = top.text("state_file", |path| files.path(path));
    config.log = log(&top.child("log"));
    let admin = admin(&top.child("admin"), files);
    let (admin_binds, token_file) = match admin {
        Some(read) => {
            config.admin = Some(read.admin);
            (read.binds, read.token_file)
        }
        None => (Vec::new(), place.clone()),
    };
    let listeners = read_listener::all(&top, &hostname);
    let pools = read_pool::all(&top, &hostname, files);
    let [replay_memory, state_file] = ["replay_memory", "state_file"].map(|key| top.place_of(key));
    top.finish();
    Everything {
        config,
        admin_binds,
        token_file,
        listeners,
        pools,
        top: place,
        replay_memory,
        state_file,
    }
}

/// The whole file.
fn start_of(source: &Arc<Source>) -> Place {
    Place {
        source: Arc::clone(source),
        span: 0..0,
        path: String::new(),
    }
}

fn hostname(top: &Section<'_>, machine: &str, report: &Report) -> Arc<str> {
    if let Some(name) = top.text("hostname", value::own_name) {
        return name;
    }
    if !top.has("hostname") {
        match value::own_name(machine) {
            Ok(name) => return name,
            Err(_) => report.error(
                &top.place,
                Wrong::new(
                    format!(
                        "the name of this machine, {:?}, is not a host name",
                        value::shown(machine)
                    ),
                    "add a line `hostname = \"mx.example.org\"` at the top",
                ),
            ),
        }
    }
    Arc::from(NO_NAME)
}

fn log(section: &Section<'_>) -> Log {
    let mut log = Log::default();
    section.word("level", words::LEVELS, &mut log.level);
    section.word("format", words::FORMATS, &mut log.format);
    section.word("output", words::OUTPUTS, &mut log.output);
    section.flag("sessions", &mut log.sessions);
    section.flag("transactions", &mut log.transactions);
    section.flag("addresses", &mut log.addresses);
    section.finish();
    log
}

fn admin(section: &Section<'_>, files: &Files<'_>) -> Option<AdminRead> {
    section.require(
        "bind",
        "add `bind = [\"127.0.0.1:8025\", \"unix:/run/posthouse/admin.sock\"]`, or remove the \
         table [admin]",
    );
    let mode = section.text("mode", value::permissions);
    let group = section.text("group", value::group);
    let binds = section.list("bind", |text| match text.strip_prefix("unix:") {
        Some(path) => value::socket_path(path).map(|path| AdminBind::Unix {
            path,
            mode: mode.unwrap_or(ADMIN_MODE),
            group: group.clone(),
        }),
        None => value::bind(text).map(AdminBind::Tcp),
    });
    let token_file = section.text("token_file", |path| files.path(path));
    let hosts = section.list("hosts", value::asked_host);
    section.finish();
    if section.has("bind") && section.is_unset_or_empty("bind") {
        let help = "name an address, or remove the table [admin] to have no status endpoint";
        section.error("bind", "the status endpoint has no address", help);
    }
    let (bind, places): (Vec<_>, Vec<_>) = binds.into_iter().unzip();
    sockets_differ(&bind, &places, section);
    for key in ["mode", "group"] {
        sockets_only(key, &bind, section);
    }
    (!bind.is_empty()).then(|| AdminRead {
        admin: Admin {
            bind,
            token_file,
            hosts: hosts.into_iter().map(|(host, _)| host).collect(),
        },
        binds: places,
        token_file: section.place_of("token_file"),
    })
}

fn sockets_differ(binds: &[AdminBind], places: &[Place], section: &Section<'_>) {
    for (index, (bind, place)) in binds.iter().zip(places).enumerate() {
        if matches!(bind, AdminBind::Unix { .. }) && binds[..index].contains(bind) {
            let wrong = Wrong::new("this socket is named twice", "remove one of them");
            section.report.error(place, wrong);
        }
    }
}

/// A key that says something of Unix sockets alone.
fn sockets_only(key: &'static str, binds: &[AdminBind], section: &Section<'_>) {
    let is_tcp = |bind: &AdminBind| matches!(bind, AdminBind::Tcp(_));
    if section.has(key) && !binds.is_empty() && binds.iter().all(is_tcp) {
        section.error(
            key,
            format!("`{key}` has no meaning for a TCP address"),
            &format!("remove `{key}`, or add \"unix:/run/posthouse/admin.sock\" to `bind`"),
        );
    }
}

/// What `[admin]` of a file says, whatever else is wrong with the file.
pub(super) fn admin_alone(text: String, origin: &Path) -> Option<Admin> {
    let source = Arc::new(Source::new(origin, text));
    let report = Report::default();
    let folder = origin.parent().unwrap_or(Path::new(""));
    let files = Files {
        folder,
        read: &|_| Err(io::ErrorKind::NotFound.into()),
    };
    with_table(&source, &report, |table| {
        let top = Section::new(Some(table), start_of(&source), "", &report);
        admin(&top.child("admin"), &files).map(|read| read.admin)
    })
}
