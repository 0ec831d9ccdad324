//! `[listeners.NAME]` and its replies.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::model::{EarlyTalker, GreetingMode, Listener, Mode, ProxyIn, Replies};
use super::read_smtp;
use super::report::Place;
use super::section::Section;
use super::value::{self, Class, Wrong};
use super::words;
use crate::types::Networks;

/// A listener with the places that checks across tables point to.
pub(super) struct ListenerRead {
    pub(super) listener: Listener,
    /// What is meant by `mode`; unknown where the word is none: then nothing that depends on it is
    /// a mistake.
    pub(super) mode: Option<Mode>,
    pub(super) binds: Vec<(SocketAddr, Place)>,
    pub(super) pool: Place,
    pub(super) greeting: Place,
    pub(super) replay_max: Option<Place>,
}

pub(super) fn all(top: &Section<'_>, hostname: &str) -> BTreeMap<Arc<str>, ListenerRead> {
    let help = "write a table: [listeners.mx] with `bind` and `pool`";
    top.named("listeners", help)
        .into_iter()
        .map(|(name, table, place)| {
            let section = Section::new(Some(table), place, "listeners.NAME", top.report);
            (name, listener(&section, hostname))
        })
        .collect()
}

fn listener(section: &Section<'_>, hostname: &str) -> ListenerRead {
    section.require("bind", "add `bind = [\"0.0.0.0:25\", \"[::]:25\"]`");
    section.require("pool", "add `pool = \"NAME\"` and a table [pools.NAME]");
    let binds = section.list("bind", value::bind);
    let pool = section
        .text("pool", value::name)
        .unwrap_or_else(|| Arc::from(""));
    let addresses = binds.iter().map(|(address, _)| *address).collect();
    let mut listener = Listener::new(addresses, &pool, hostname);
    check_binds(section, &binds);
    let mode = section.word_or("mode", words::MODES, listener.mode);
    listener.mode = mode.unwrap_or(listener.mode);
    choices(section, &mut listener);
    networks(section, &mut listener);
    limits(section, &mut listener);
    section.flag("freebind", &mut listener.freebind);
    listener.interface = section.text("interface", value::interface);
    listener.source = without_places(section.list("source", value::source));
    section.duration("proxy_header_timeout", &mut listener.proxy_header_timeout);
    section.duration("idle_timeout", &mut listener.idle_timeout);
    section.duration("half_close_timeout", &mut listener.half_close_timeout);
    replies(&section.child("replies"), &mut listener.replies, hostname);
    let smtp = section.child("smtp");
    listener.smtp = read_smtp::listener(&smtp, &listener, hostname);
    contradictions(section, &listener);
    if let Some(mode) = mode {
        read_smtp::mode_contradictions(section, &listener, mode);
    }
    let [pool, greeting] = ["pool", "greeting"].map(|key| section.place_of(key));
    section.finish();
    ListenerRead {
        listener,
        mode,
        binds,
        pool,
        greeting,
        replay_max: smtp.has("replay_max").then(|| smtp.place_of("replay_max")),
    }
}

fn check_binds(section: &Section<'_>, binds: &[(SocketAddr, Place)]) {
    if section.has("bind") && section.is_unset_or_empty("bind") {
        section.error(
            "bind",
            "a listener needs an address",
            "write `bind = [\"0.0.0.0:25\", \"[::]:25\"]`",
        );
    }
    for (address, place) in binds {
        if address.port() == 0 {
            let wrong = Wrong::new(
                "port 0 lets the kernel choose a port, another one after each start",
                "fine for a test; otherwise name the port",
            );
            section.report.warn(place, wrong);
        }
    }
}

fn choices(section: &Section<'_>, listener: &mut Listener) {
    section.word("greeting", words::GREETINGS, &mut listener.greeting);
    section.word(
        "proxy_protocol",
        words::PROXIES,
        &mut listener.proxy_protocol,
    );
    section.word(
        "early_talker",
        words::EARLY_TALKERS,
        &mut listener.early_talker,
    );
}

fn networks(section: &Section<'_>, listener: &mut Listener) {
    let networks = |key| Networks::new(without_places(section.list(key, value::network)));
    listener.trusted_proxies = networks("trusted_proxies");
    listener.allow = networks("allow");
    listener.deny = networks("deny");
    listener.monitor_networks = networks("monitor_networks");
}

fn limits(section: &Section<'_>, listener: &mut Listener) {
    section.count("max_sessions", &mut listener.max_sessions);
    section.count(
        "max_sessions_per_client",
        &mut listener.max_sessions_per_client,
    );
    listener.rate_per_client = section.text("rate_per_client", value::rate);
    listener.accept_rate = section.text("accept_rate", value::rate);
    section.count("backlog", &mut listener.backlog);
}

fn replies(section: &Section<'_>, replies: &mut Replies, hostname: &str) {
    let read = |key, class, into: &mut Arc<str>| {
        if let Some(text) = section.text(key, |text| value::reply(text, class, hostname)) {
            *into = text;
        }
    };
    read("unavailable", Class::Temporary, &mut replies.unavailable);
    read("denied", Class::Permanent, &mut replies.denied);
    read("client_limit", Class::Temporary, &mut replies.client_limit);
    read("global_limit", Class::Temporary, &mut replies.global_limit);
    read("early_talker", Class::Permanent, &mut replies.early_talker);
    read(
        "shutting_down",
        Class::Temporary,
        &mut replies.shutting_down,
    );
    section.finish();
}

/// Keys of one listener that cannot all be meant.
fn contradictions(section: &Section<'_>, listener: &Listener) {
    let required = listener.proxy_protocol == ProxyIn::Required;
    if required && section.is_unset_or_empty("trusted_proxies") {
        section.error(
            "proxy_protocol",
            "a PROXY header is required but nobody is trusted to send one",
            "add `trusted_proxies = [\"10.0.0.0/8\"]` with the balancers in front",
        );
    }
    if !required && !listener.trusted_proxies.is_empty() {
        section.warn(
            "trusted_proxies",
            "without a PROXY header nobody needs to be trusted to send one",
            "set `proxy_protocol = \"required\"` or remove this key",
        );
    }
    if listener.greeting == GreetingMode::None && listener.early_talker != EarlyTalker::Pass {
        section.error(
            "early_talker",
            "with `greeting = \"none\"` the client speaks first: nobody is early",
            "remove this key",
        );
    }
}

fn without_places<T>(list: Vec<(T, Place)>) -> Vec<T> {
    list.into_iter().map(|(value, _)| value).collect()
}
