//! What each peer is told: one configuration each, as close to each other as they can be.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::peer::{Health, Kind, Logs, Peer, Run};
use super::tools;

impl Peer {
    /// The text of its configuration file; `None` where there is no balancer.
    pub(super) fn configuration(&self, backends: &[(SocketAddr, u32)]) -> Option<String> {
        match self.kind {
            Kind::Direct => None,
            Kind::Haproxy | Kind::HaproxySplice => Some(self.haproxy(backends)),
            Kind::Nginx => Some(self.nginx(backends)),
            Kind::NginxMail => Some(self.nginx_mail()),
            Kind::Posthouse | Kind::PosthouseSmtp => Some(self.posthouse(backends)),
        }
    }

    fn haproxy(&self, backends: &[(SocketAddr, u32)]) -> String {
        let mut text = String::from(
            "global\n  nbthread 1\n  maxconn 9000\n  maxpipes 100\n\ndefaults\n  mode tcp\n  \
             timeout connect 3s\n  timeout client 660s\n  timeout server 660s\n  retries 3\n  \
             option redispatch\n  balance leastconn\n",
        );
        if self.kind == Kind::HaproxySplice {
            text.push_str("  option splice-request\n  option splice-response\n");
        }
        if self.setup.logs == Logs::On {
            text.push_str("  log stdout format raw local0\n  option tcplog\n");
        }
        let _ = writeln!(
            text,
            "\nfrontend mx\n  bind 0.0.0.0:{} backlog 4096",
            self.port
        );
        text.push_str("  default_backend mx\n\nbackend mx\n");
        if self.setup.health == Health::On {
            text.push_str("  option smtpchk EHLO bench.example\n");
            text.push_str("  default-server check inter 2s fall 3 rise 2\n");
        }
        for (number, (at, weight)) in backends.iter().enumerate() {
            let _ = writeln!(text, "  server b{number} {at} weight {weight}");
        }
        text
    }

    fn nginx(&self, backends: &[(SocketAddr, u32)]) -> String {
        let folder = self.folder.display();
        let mut text = self.nginx_head(tools::STREAM_MODULE);
        text.push_str("stream {\n");
        match self.setup.logs {
            Logs::Off => text.push_str("  access_log off;\n"),
            Logs::On => {
                let _ = writeln!(
                    text,
                    "  log_format session '$remote_addr:$remote_port [$time_local] $upstream_addr \
                     $status $bytes_received $bytes_sent $upstream_connect_time \
                     $upstream_first_byte_time $session_time';\n  access_log {folder}/access.log \
                     session;"
                );
            }
        }
        text.push_str("  upstream mx {\n    least_conn;\n");
        let noticed = match self.setup.health {
            Health::Off => "max_fails=0",
            Health::On => "max_fails=1 fail_timeout=10s",
        };
        for (at, weight) in backends {
            let _ = writeln!(text, "    server {at} weight={weight} {noticed};");
        }
        let _ = writeln!(
            text,
            "  }}\n  server {{\n    listen 0.0.0.0:{} backlog=4096;\n    proxy_pass mx;\n    \
             proxy_buffer_size 16k;\n    proxy_connect_timeout 3s;\n    proxy_timeout 660s;\n  \
             }}\n}}",
            self.port
        );
        text
    }

    fn nginx_mail(&self) -> String {
        let mut text = self.nginx_head(tools::MAIL_MODULE);
        let auth = self.auth.as_ref().map(|auth| auth.address.to_string());
        let _ = writeln!(
            text,
            "mail {{\n  server_name bench.example;\n  auth_http {}/;\n  proxy_pass_error_message \
             on;\n  proxy_timeout 660s;\n  timeout 660s;\n  xclient off;\n  smtp_auth none;\n  \
             smtp_capabilities PIPELINING 8BITMIME SIZE;\n  server {{\n    listen 0.0.0.0:{} \
             backlog=4096;\n    protocol smtp;\n    smtp_greeting_delay 0;\n  }}\n}}",
            auth.unwrap_or_default(),
            self.port
        );
        text
    }

    fn nginx_head(&self, module: &str) -> String {
        format!(
            "load_module {module};\ndaemon off;\nmaster_process {};\nworker_processes 1;\nuser \
             root;\npid {}/nginx.pid;\nerror_log stderr crit;\nworker_rlimit_nofile 20000;\n\
             events {{ worker_connections 19000; }}\n",
            if self.setup.run == Run::Callgrind {
                "off"
            } else {
                "on"
            },
            self.folder.display(),
        )
    }

    fn posthouse(&self, backends: &[(SocketAddr, u32)]) -> String {
        let sessions = self.setup.logs == Logs::On;
        let mode = match self.kind {
            Kind::PosthouseSmtp => "smtp",
            _ => "passthrough",
        };
        let mut text = format!(
            "workers = 1\nhostname = \"bench.example\"\n\n[log]\nlevel = \"{}\"\nsessions = \
             {sessions}\ntransactions = {sessions}\n\n[listeners.mx]\nbind = \
             [\"0.0.0.0:{}\"]\nmode = \"{mode}\"\npool = \"mx\"\n\n[pools.mx]\nbalance = \"least-connections\"\nidentity = \"none\"\n",
            if sessions { "info" } else { "error" },
            self.port,
        );
        if let Some(admin) = self.admin {
            let _ = writeln!(text, "\n[admin]\nbind = \"{admin}\"");
        }
        if self.setup.health == Health::Off {
            text.push_str("\n[pools.mx.health]\nprobe = false\n");
        }
        text.push_str("\n[pools.mx.backends]\n");
        for (number, (at, weight)) in backends.iter().enumerate() {
            let _ = writeln!(
                text,
                "b{number} = {{ address = \"{at}\", weight = {weight} }}"
            );
        }
        text
    }
}
