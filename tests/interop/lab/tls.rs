//! A self-signed certificate for servers under test.

use std::path::{Path, PathBuf};

/// Files with a certificate and its key.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    /// PEM.
    pub(crate) certificate: PathBuf,
    /// PEM.
    pub(crate) key: PathBuf,
}

impl Certificate {
    /// Makes one for `name`, in `folder`.
    pub(crate) fn self_signed(name: &str, folder: &Path) -> Self {
        let made = rcgen::generate_simple_self_signed([name.to_owned()])
            .expect("a host name makes a certificate");
        let files = Self {
            certificate: folder.join("cert.pem"),
            key: folder.join("key.pem"),
        };
        std::fs::write(&files.certificate, made.cert.pem()).expect("our folder can be written");
        std::fs::write(&files.key, made.signing_key.serialize_pem())
            .expect("our folder can be written");
        files
    }
}
