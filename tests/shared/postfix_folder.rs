//! The folder of a Postfix instance of its own, for the tests against real servers and for the
//! benches: mail is discarded after it was queued.
//!
//! The default instance of the machine is never touched: `postfix -c FOLDER/config` keeps
//! configuration, queue, data and log apart. Needs root (master binds and changes user) and the
//! account `postfix`.

use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::path::Path;

/// Services that an instance needs to take and discard mail.
const SERVICES: &str = "\
smtpd      pass         -  -  n  -      -  smtpd
pickup     unix         n  -  n  60     1  pickup
cleanup    unix         n  -  n  -      0  cleanup
qmgr       unix         n  -  n  300    1  qmgr
tlsmgr     unix         -  -  n  1000?  1  tlsmgr
rewrite    unix         -  -  n  -      -  trivial-rewrite
bounce     unix         -  -  n  -      0  bounce
defer      unix         -  -  n  -      0  bounce
trace      unix         -  -  n  -      0  bounce
verify     unix         -  -  n  -      1  verify
flush      unix         n  -  n  1000?  0  flush
proxymap   unix         -  -  n  -      -  proxymap
discard    unix         -  -  n  -      -  discard
smtp       unix         -  -  n  -      -  smtp
error      unix         -  -  n  -      -  error
retry      unix         -  -  n  -      -  error
anvil      unix         -  -  n  -      1  anvil
scache     unix         -  -  n  -      1  scache
postlog    unix-dgram   n  -  n  -      1  postlogd
tlsproxy   unix         -  -  n  -      0  tlsproxy
dnsblog    unix         -  -  n  -      0  dnsblog
";

/// Fills `folder`, which exists, with what an instance with these `listeners` (lines of `master.cf`)
/// and these further `settings` (lines of `main.cf`) needs.
///
/// # Errors
/// The folder cannot be written, or given to the account `postfix`.
pub(crate) fn fill(folder: &Path, settings: &str, listeners: &str) -> io::Result<()> {
    for name in ["config", "queue", "data"] {
        fs::create_dir_all(folder.join(name))?;
    }
    let user = nix::unistd::User::from_name("postfix")?;
    let user = user.ok_or_else(|| io::Error::other("there is no account postfix"))?;
    chown(folder.join("data"), Some(user.uid.as_raw()), None)?;
    let config = folder.join("config");
    fs::write(config.join("main.cf"), main_cf(folder) + settings)?;
    fs::write(config.join("master.cf"), listeners.to_owned() + SERVICES)
}

fn main_cf(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "compatibility_level = 3.6\n\
         queue_directory = {folder}/queue\n\
         data_directory = {folder}/data\n\
         maillog_file = {folder}/maillog\n\
         maillog_file_prefixes = {folder}\n\
         mydestination =\n\
         inet_interfaces = 127.0.0.1\n\
         inet_protocols = ipv4\n\
         alias_maps =\n\
         alias_database =\n\
         default_transport = discard:\n\
         relay_transport = discard:\n\
         local_transport = discard:\n\
         smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination\n\
         smtpd_peername_lookup = no\n\
         smtpd_client_connection_count_limit = 0\n"
    )
}
