//! What the backends of a pool announce, and what we may announce in front of them (rule E3).
//!
//! Read from what each backend said last, to a probe or to a session, and kept by this thread until
//! one says something else: an EHLO costs a comparison of two numbers.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::balance::Member;
use crate::smtp::{Extensions, Keywords, Needed};
use crate::snapshot::{self, ListenerView, PoolView};
use crate::types::Generation;

/// What this thread knows.
#[derive(Debug, Default)]
pub(super) struct Capabilities {
    /// By stable index of the pool.
    pools: RefCell<Vec<Option<Rc<OfPool>>>>,
    /// By stable index of the listener.
    listeners: RefCell<Vec<Option<OfListener>>>,
}

/// When something was read: in which generation, after how many announcements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    generation: Generation,
    pool: usize,
    announcements: u32,
}

#[derive(Debug)]
struct OfPool {
    version: Version,
    /// By index of the member.
    members: Vec<Option<Extensions>>,
}

#[derive(Debug)]
struct OfListener {
    version: Version,
    announced: Rc<Extensions>,
}

impl Capabilities {
    /// What may be announced to clients of `listener` in front of `pool`.
    pub(super) fn announced(
        &self,
        generation: Generation,
        listener: &ListenerView,
        pool: &PoolView,
    ) -> Rc<Extensions> {
        let version = version(generation, pool);
        let mut listeners = self.listeners.borrow_mut();
        let index = listener.state.index;
        if listeners.len() <= index {
            listeners.resize_with(index + 1, || None);
        }
        if let Some(known) = &listeners[index]
            && known.version == version
        {
            return Rc::clone(&known.announced);
        }
        let announced = Rc::new(announce(listener, pool, &self.of_pool(version, pool)));
        listeners[index] = Some(OfListener {
            version,
            announced: Rc::clone(&announced),
        });
        announced
    }

    /// What a backend of `pool` is known to lack of what is needed.
    pub(super) fn lacking(
        &self,
        generation: Generation,
        pool: &PoolView,
        member: &Member,
        needed: Needed,
    ) -> Keywords {
        let known = self.of_pool(version(generation, pool), pool);
        let extensions = known.members.get(member.index as usize);
        let extensions = extensions.and_then(Option::as_ref);
        extensions.map_or(Keywords::default(), |known| known.lacks(needed))
    }

    /// A backend has announced this to a session; it is noted if it is something new.
    pub(super) fn learn(
        &self,
        generation: Generation,
        pool: &PoolView,
        member: &Member,
        announced: &Extensions,
    ) {
        let known = self.of_pool(version(generation, pool), pool);
        let before = known.members.get(member.index as usize);
        let before = before.and_then(Option::as_ref);
        let same = |known: &Extensions| {
            (known.keywords, known.size_max, known.limits)
                == (announced.keywords, announced.size_max, announced.limits)
        };
        if before.is_some_and(same) {
            return;
        }
        let mut reply = Vec::new();
        announced.write_ehlo("", &mut reply);
        let text = String::from_utf8_lossy(&reply);
        let lines = text.lines().skip(1).filter_map(|line| line.get(4..));
        let lines: Arc<[Arc<str>]> = lines.map(Arc::from).collect();
        if member.settings.state.announces(&lines) {
            tracing::info!(
                pool = &*member.pool,
                backend = &*member.settings.name,
                announces = lines.join(", "),
                "backend.extensions-changed"
            );
        }
    }

    fn of_pool(&self, version: Version, pool: &PoolView) -> Rc<OfPool> {
        let mut pools = self.pools.borrow_mut();
        if pools.len() <= pool.index {
            pools.resize_with(pool.index + 1, || None);
        }
        let known = &mut pools[pool.index];
        match known {
            Some(known) if known.version == version => Rc::clone(known),
            _ => {
                let members = pool.pool.members().iter();
                let read = Rc::new(OfPool {
                    version,
                    members: members.map(|member| read(member)).collect(),
                });
                *known = Some(Rc::clone(&read));
                read
            }
        }
    }
}

fn version(generation: Generation, pool: &PoolView) -> Version {
    Version {
        generation,
        pool: pool.index,
        announcements: pool.pool.announcements(),
    }
}

fn read(member: &Member) -> Option<Extensions> {
    let lines = member.settings.state.announced()?;
    Some(Extensions::of_lines(
        lines.iter().map(|line| line.as_bytes()),
    ))
}

fn announce(listener: &ListenerView, pool: &PoolView, known: &OfPool) -> Extensions {
    let unknown = Extensions::default();
    let in_service = |member: &&Arc<Member>| member.settings.state.is_in_service();
    let members = pool.pool.members().iter().filter(in_service);
    let backends = members.map(|member| {
        let of_member = known.members.get(member.index as usize);
        of_member.and_then(Option::as_ref).unwrap_or(&unknown)
    });
    snapshot::announced(&listener.settings.smtp, backends)
}
