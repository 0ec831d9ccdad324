//! The programs that are measured against or measured with: found, or installed with apt-get.
//!
//! Debian starts a freshly installed service by itself; a policy file keeps it from that while the
//! packages are unpacked. Nothing is ever removed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A program and the Debian packages it comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    packages: &'static [&'static str],
}

pub(crate) const HAPROXY: Tool = Tool {
    program: "haproxy",
    packages: &["haproxy"],
};
pub(crate) const NGINX: Tool = Tool {
    program: "nginx",
    packages: &["nginx-light", "libnginx-mod-stream"],
};
pub(crate) const NGINX_MAIL: Tool = Tool {
    program: "nginx",
    packages: &["nginx-light", "libnginx-mod-mail"],
};
pub(crate) const SMTP_SOURCE: Tool = Tool {
    program: "smtp-source",
    packages: &["postfix"],
};
pub(crate) const SMTP_SINK: Tool = Tool {
    program: "smtp-sink",
    packages: &["postfix"],
};
pub(crate) const POSTFIX: Tool = Tool {
    program: "postfix",
    packages: &["postfix"],
};
pub(crate) const STRACE: Tool = Tool {
    program: "strace",
    packages: &["strace"],
};
pub(crate) const VALGRIND: Tool = Tool {
    program: "valgrind",
    packages: &["valgrind"],
};
pub(crate) const PERF: Tool = Tool {
    program: "perf",
    packages: &["linux-perf"],
};

/// Where nginx's modules are.
pub(crate) const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
pub(crate) const MAIL_MODULE: &str = "/usr/lib/nginx/modules/ngx_mail_module.so";

const PATHS: [&str; 5] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin"];
const POLICY: &str = "/usr/sbin/policy-rc.d";

impl Tool {
    /// Where the program is, if it is installed.
    pub(crate) fn find(self) -> Option<PathBuf> {
        PATHS
            .iter()
            .map(|folder| Path::new(folder).join(self.program))
            .find(|path| path.exists())
    }

    /// Where the program is; installs it first if it is missing.
    pub(crate) fn ensure(self) -> Result<PathBuf> {
        let modules = [
            ("libnginx-mod-stream", STREAM_MODULE),
            ("libnginx-mod-mail", MAIL_MODULE),
        ];
        for (package, module) in modules {
            if self.packages.contains(&package) && !Path::new(module).exists() {
                self.install()?;
            }
        }
        if let Some(path) = self.find() {
            return Ok(path);
        }
        self.install()?;
        self.find().with_context(|| {
            format!(
                "{} is still missing after apt-get install {:?}",
                self.program, self.packages
            )
        })
    }

    /// The first line the program says of its version.
    pub(crate) fn version(self) -> String {
        let flag = match self.program {
            "haproxy" | "nginx" => "-v",
            _ => "--version",
        };
        let Some(path) = self.find() else {
            return format!("{}: not installed", self.program);
        };
        Command::new(path).arg(flag).output().map_or_else(
            |error| format!("{}: {error}", self.program),
            |output| {
                let said = [output.stdout, output.stderr].concat();
                String::from_utf8_lossy(&said)
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            },
        )
    }

    fn install(self) -> Result<()> {
        eprintln!(
            "installing {:?} with apt-get (for {})",
            self.packages, self.program
        );
        let _quiet = NoServiceStarts::new()?;
        let install = || {
            Command::new("apt-get")
                .args(["install", "-y", "-q", "--no-install-recommends"])
                .args(self.packages)
                .env("DEBIAN_FRONTEND", "noninteractive")
                .stdout(Stdio::null())
                .status()
        };
        if install().is_ok_and(|status| status.success()) {
            return Ok(());
        }
        // The package lists may be missing or old.
        Command::new("apt-get")
            .args(["update", "-q"])
            .stdout(Stdio::null())
            .status()?;
        let status = install()?;
        if !status.success() {
            bail!(
                "apt-get install {:?} failed ({status}); install it by hand",
                self.packages
            );
        }
        Ok(())
    }
}

/// The version of Postfix, which smtp-source and smtp-sink do not say themselves.
pub(crate) fn postfix_version() -> String {
    Command::new("/usr/sbin/postconf")
        .args(["-d", "-h", "mail_version"])
        .output()
        .map_or_else(
            |_| "?".to_owned(),
            |o| String::from_utf8_lossy(&o.stdout).trim().to_owned(),
        )
}

/// While it lives, Debian's packages start no service.
struct NoServiceStarts {
    ours: bool,
}

impl NoServiceStarts {
    fn new() -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        fs::write(POLICY, "#!/bin/sh\nexit 101\n").with_context(|| {
            format!("cannot write {POLICY}: run as root, or install the tools by hand")
        })?;
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        Ok(Self { ours: true })
    }
}

impl Drop for NoServiceStarts {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(POLICY);
        }
    }
}
