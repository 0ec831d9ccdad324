//! Where the status endpoint listens: a TCP address or a Unix socket.
//!
//! The group and permission bits of a Unix socket's file say who may change things. Its folder is
//! made if it is missing. A stale file is removed only if it is a socket and nobody
//! answers there; ours is removed when we end.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::unistd::Group;

use crate::config::model::AdminBind;

/// The permission bits of a folder that is made for a socket: everybody may enter, as the bits of
/// the socket itself decide.
const FOLDER_MODE: u32 = 0o755;

/// Connections that wait in the kernel to be accepted, as far as it allows (`net.core.somaxconn`).
/// Many clients that come again as soon as they are dropped must leave room for others.
const BACKLOG: i32 = 4096;

/// A socket that listens.
#[derive(Debug)]
pub struct AdminListener {
    pub(super) socket: Socket,
}

#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// Why it does not listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error(
        "the status endpoint cannot listen on {0}: another program (or another posthouse) does; \
         stop it or change [admin] bind"
    )]
    InUse(String),
    /// The path is something else than a socket.
    #[error(
        "the status endpoint cannot listen on {0}: that file is no socket; remove it or change \
         [admin] bind"
    )]
    NotASocket(String),
    /// The socket's group is not known here.
    #[error(
        "the status endpoint cannot listen on {at}: this host has no group {group:?}; see `getent \
         group` and change [admin] group"
    )]
    NoGroup {
        /// The socket.
        at: String,
        /// Its group.
        group: String,
    },
    /// Anything else.
    #[error("the status endpoint cannot listen on {at}; {remedy}")]
    Other {
        /// Where.
        at: String,
        /// Why.
        source: io::Error,
        /// What to do.
        remedy: &'static str,
    },
}

impl AdminListener {
    /// Listens there.
    ///
    /// # Errors
    /// It says what to do.
    pub fn bind(bind: &AdminBind) -> Result<Self, BindError> {
        match bind {
            AdminBind::Tcp(address) => tcp(*address),
            AdminBind::Unix { path, mode, group } => unix(path, *mode, group.as_deref()),
        }
    }

    /// The TCP address, with the port that the kernel chose.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(socket) => socket.local_addr().ok(),
            Socket::Unix(..) => None,
        }
    }
}

fn tcp(address: SocketAddr) -> Result<AdminListener, BindError> {
    let other = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse(address.to_string()),
        io::ErrorKind::AddrNotAvailable => BindError::Other {
            at: address.to_string(),
            source,
            remedy: "use an address of this machine in [admin] bind",
        },
        io::ErrorKind::PermissionDenied => BindError::Other {
            at: address.to_string(),
            source,
            remedy: "use a port above 1023 in [admin] bind",
        },
        _ => BindError::Other {
            at: address.to_string(),
            source,
            remedy: "see [admin] bind",
        },
    };
    let socket = TcpListener::bind(address).map_err(other)?;
    // std listens with a short queue; a second call makes it longer (listen(2)).
    rustix::net::listen(&socket, BACKLOG).map_err(|error| other(error.into()))?;
    socket.set_nonblocking(true).map_err(other)?;
    Ok(AdminListener {
        socket: Socket::Tcp(socket),
    })
}

fn unix(path: &Path, mode: u32, group: Option<&str>) -> Result<AdminListener, BindError> {
    let at = path.display().to_string();
    let failed = |remedy| {
        let at = at.clone();
        move |source: io::Error| BindError::Other { at, source, remedy }
    };
    let group = group.map(|name| group_id(name, &at)).transpose()?;
    make_folder(path).map_err(failed(FOLDER_REMEDY))?;
    remove_stale(path, &at)?;
    let socket = UnixListener::bind(path).map_err(failed(FOLDER_REMEDY))?;
    rustix::net::listen(&socket, BACKLOG)
        .map_err(|error| failed("see [admin] bind")(error.into()))?;
    let file = SocketFile::new(path).map_err(failed(FOLDER_REMEDY))?;
    if group.is_some() {
        chown(path, None, group).map_err(failed(
            "only root can give [admin] group a socket, or a member of that group: under systemd set \
             Group= in the unit instead",
        ))?;
    }
    let bits = fs::Permissions::from_mode(mode);
    fs::set_permissions(path, bits).map_err(failed("see [admin] mode"))?;
    socket
        .set_nonblocking(true)
        .map_err(failed("see [admin] bind"))?;
    Ok(AdminListener {
        socket: Socket::Unix(socket, file),
    })
}

/// What to do when the socket's folder does not take it.
const FOLDER_REMEDY: &str = "its folder must exist and belong to the user posthouse runs as: \
                             RuntimeDirectory=posthouse in the systemd unit, or `install -d -o USER \
                             /run/posthouse`";

/// Makes the folder of the socket, if only that one is missing.
fn make_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.exists() => {
            match fs::DirBuilder::new().mode(FOLDER_MODE).create(folder) {
                // Another process was faster.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                made => made,
            }
        }
        Some(_) | None => Ok(()),
    }
}

/// The number of a group, by its name or number.
fn group_id(name: &str, at: &str) -> Result<u32, BindError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) | Err(_) => Err(BindError::NoGroup {
            at: at.to_owned(),
            group: name.to_owned(),
        }),
    }
}

fn remove_stale(path: &Path, at: &str) -> Result<(), BindError> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !found.file_type().is_socket() {
        return Err(BindError::NotASocket(at.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|source| BindError::Other {
                at: at.to_owned(),
                source,
                remedy: "remove the file of the ended process",
            }),
        // Whoever answers, or refuses us for another reason, is alive.
        _ => Err(BindError::InUse(at.to_owned())),
    }
}

/// Removes the socket's file when we end, if it is still ours.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            device_and_inode: (found.dev(), found.ino()),
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.device_and_inode);
        if ours {
            // A file that cannot be removed is stale, and the next start removes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &Path) -> AdminBind {
        AdminBind::Unix {
            path: path.to_owned(),
            mode: 0o660,
            group: None,
        }
    }

    #[test]
    fn the_folder_of_a_socket_is_made_and_one_more_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("posthouse/admin.sock");
        let listener = AdminListener::bind(&at(&path)).expect("bind");
        let made = fs::metadata(path.parent().expect("a folder")).expect("it is there");
        assert!(made.is_dir());
        drop(listener);
        let deep = folder.path().join("no/such/admin.sock");
        let error = AdminListener::bind(&at(&deep)).expect_err("two folders are missing");
        assert!(error.to_string().contains("RuntimeDirectory"), "{error}");
    }

    #[test]
    fn a_socket_is_given_to_its_group_and_an_unknown_group_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("admin");
        let of_group = |name: &str| AdminBind::Unix {
            path: path.clone(),
            mode: 0o660,
            group: Some(name.into()),
        };
        // Our own group is one that every user may give a file to.
        let own = nix::unistd::getegid().as_raw();
        let listener = AdminListener::bind(&of_group(&own.to_string())).expect("bind");
        assert_eq!(fs::metadata(&path).expect("a file").gid(), own);
        drop(listener);
        let error = AdminListener::bind(&of_group("no-such-group")).expect_err("unknown");
        assert!(error.to_string().contains("getent group"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn a_unix_socket_has_its_permissions_and_goes_with_us() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("admin");
        let listener = AdminListener::bind(&at(&path)).expect("bind");
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("admin");
        // std leaves the file behind: as after a kill.
        drop(UnixListener::bind(&path).expect("bind"));
        assert!(path.exists());
        let living = AdminListener::bind(&at(&path)).expect("the stale one is replaced");
        let error = AdminListener::bind(&at(&path)).expect_err("somebody answers");
        assert!(matches!(error, BindError::InUse(_)), "{error}");
        assert!(path.exists());
        drop(living);
    }

    #[test]
    fn a_file_that_is_no_socket_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("admin");
        fs::write(&path, "precious").expect("write");
        let error = AdminListener::bind(&at(&path)).expect_err("no socket");
        assert!(matches!(error, BindError::NotASocket(_)), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
    }

    #[test]
    fn a_port_in_use_is_said_with_the_remedy() {
        let first = AdminListener::bind(&AdminBind::Tcp("127.0.0.1:0".parse().expect("address")))
            .expect("bind");
        let address = first.address().expect("TCP");
        let error = AdminListener::bind(&AdminBind::Tcp(address)).expect_err("in use");
        assert!(error.to_string().contains("change [admin] bind"), "{error}");
    }
}
