//! What this machine would not let `posthouse run` do with the file, for `posthouse check`.
//!
//! What `run` would end with is an error, whatever user runs it. What depends on the user is a
//! warning, and so is what may be there only once the service manager has started the service
//! (folders below /run, credentials).

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::{Group, geteuid};
use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::super::model::AdminBind;
use super::super::read::Everything;
use super::super::report::{Place, Report};
use super::super::value::Wrong;
use super::super::{ListenChecks, Obstacle, TOKEN_OCTETS_MAX, read_regular};
use crate::types::in_words;

/// The permission bit by which everybody may read.
const OTHERS_READ: u32 = 0o004;
/// What only exists while a service runs.
const RUNTIME: &str = "/run";

pub(super) fn would_run(all: &Everything, here: &ListenChecks<'_>, report: &Report) {
    if let Some(path) = &all.config.state_file {
        state_file(path, &all.state_file, report);
    }
    if let Some(admin) = &all.config.admin {
        if let Some(path) = &admin.token_file {
            token_file(path, &all.token_file, report);
        }
        for (bind, place) in admin.bind.iter().zip(&all.admin_binds) {
            match bind {
                AdminBind::Tcp(address) => {
                    is_free(*address, place, here, report);
                    is_allowed(*address, place, here, report);
                }
                AdminBind::Unix { path, group, .. } => {
                    socket(path, place, report);
                    if let Some(group) = group {
                        known_group(group, place, report);
                    }
                }
            }
        }
    }
    for listener in all.listeners.values() {
        for (address, place) in &listener.binds {
            is_free(*address, place, here, report);
            if !listener.listener.freebind {
                is_allowed(*address, place, here, report);
            }
        }
    }
}

/// A privilege may come from the service manager, and an address when the network is up.
fn is_allowed(address: SocketAddr, place: &Place, here: &ListenChecks<'_>, report: &Report) {
    let wrong = match (here.obstacle)(address) {
        None => return,
        Some(Obstacle::Privilege) => Wrong::new(
            format!(
                "user id {} may not listen on port {}, which needs a privilege",
                geteuid(),
                address.port()
            ),
            "fine if the service manager gives it, as AmbientCapabilities=CAP_NET_BIND_SERVICE does; \
             else run `setcap cap_net_bind_service=+ep` on the program",
        ),
        Some(Obstacle::NoSuchAddress) => Wrong::new(
            format!("this host has no address {}", address.ip()),
            "correct it, or set `freebind = true` at a listener whose address moves between hosts",
        ),
    };
    report.warn(place, wrong);
}

/// A port that is taken may be taken by the very service whose file this is.
fn is_free(address: SocketAddr, place: &Place, here: &ListenChecks<'_>, report: &Report) {
    if address.port() == 0 {
        return;
    }
    if let Some(holder) = (here.holder)(address) {
        let wrong = Wrong::new(
            format!("{address} is in use by {holder}"),
            "fine if that is posthouse with this file; else stop it (`ss -ltnp` shows it), or take \
             another port",
        );
        report.warn(place, wrong);
    }
}

fn token_file(path: &Path, place: &Place, report: &Report) {
    let shown = path.display();
    let make = format!(
        "make one: (umask 027; openssl rand -hex 32 >{shown}), readable for the user posthouse runs \
         as"
    );
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.starts_with(RUNTIME) => {
            let help = "fine if the service manager makes it at the start, as LoadCredential= does";
            return report.warn(place, Wrong::new(format!("{shown} is not there"), help));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return report.error(place, Wrong::new(format!("{shown} is not there"), make));
        }
        Err(error) => return report.warn(place, not_readable(path, &error)),
    };
    match read_regular(path, TOKEN_OCTETS_MAX) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            report.warn(place, not_readable(path, &error));
        }
        Err(error) => {
            let message = format!("{shown} is no token file: {}", in_words(&error));
            let help = "name a file whose first line is the token";
            return report.error(place, Wrong::new(message, help));
        }
        Ok(text) if text.lines().next().unwrap_or_default().trim().is_empty() => {
            let message = format!("the first line of {shown} is empty: there is no token");
            report.error(place, Wrong::new(message, make));
        }
        Ok(_) => {}
    }
    if found.permissions().mode() & OTHERS_READ != 0 {
        let wrong = Wrong::new(
            format!("every user of this machine can read the token in {shown}"),
            format!("chmod 640 {shown}, with the group of the service"),
        );
        report.warn(place, wrong);
    }
}

fn not_readable(path: &Path, error: &io::Error) -> Wrong {
    let user = geteuid();
    let reason = in_words(error);
    Wrong::new(
        format!("user id {user} cannot read {}: {reason}", path.display()),
        "let the user that posthouse runs as read it; fine if that is another user, who can",
    )
}

fn state_file(path: &Path, place: &Place, report: &Report) {
    if let Some(why) = not_writable(&folder_of(path)) {
        let wrong = Wrong::new(
            format!("the counts of quotas cannot be kept: {why}"),
            "make that folder, and let the user that posthouse runs as write to it; fine if the \
             service manager makes it at the start, as StateDirectory=posthouse does",
        );
        report.warn(place, wrong);
    }
}

fn socket(path: &Path, place: &Place, report: &Report) {
    let shown = path.display();
    if fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
        let help = "remove that file, or name another path";
        return report.error(place, Wrong::new(format!("{shown} is not a socket"), help));
    }
    let folder = folder_of(path);
    // `run` makes the folder itself, but not two.
    let why = if folder.exists() {
        not_writable(&folder)
    } else {
        not_writable(&folder_of(&folder))
            .map(|why| format!("there is no folder {}, and {why}", folder.display()))
    };
    if let Some(why) = why {
        let wrong = Wrong::new(
            format!("the socket {shown} cannot be made: {why}"),
            "make its folder, and let the user that posthouse runs as write to it; fine if the \
             service manager makes it at the start, as RuntimeDirectory=posthouse does",
        );
        report.warn(place, wrong);
    }
}

fn known_group(name: &str, place: &Place, report: &Report) {
    let is_known = name.parse::<u32>().is_ok() || matches!(Group::from_name(name), Ok(Some(_)));
    if !is_known {
        let wrong = Wrong::new(
            format!("this machine has no group {name:?}"),
            "see `getent group`, and change `group`",
        );
        report.error(place, wrong);
    }
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

/// Why this user cannot make a file in a folder.
fn not_writable(folder: &Path) -> Option<String> {
    let shown = folder.display();
    if !folder.is_dir() {
        return Some(format!("there is no folder {shown}"));
    }
    let may = Access::WRITE_OK | Access::EXEC_OK;
    let refused = accessat(CWD, folder, may, AtFlags::EACCESS).err()?;
    let (user, reason) = (geteuid(), io::Error::from(refused));
    let reason = in_words(&reason);
    Some(format!("user id {user} cannot write to {shown}: {reason}"))
}

/// What everybody can reach should not tell of every client and backend.
pub(super) fn is_public(address: SocketAddr) -> bool {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => !(ip.is_loopback() || ip.is_private() || ip.is_link_local()),
        IpAddr::V6(ip) => !(ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()),
    }
}
