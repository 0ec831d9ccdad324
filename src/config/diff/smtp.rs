//! The keys of the tables that only mode "smtp" has.

use super::super::model::{ListenerSmtp, PoolSmtp};
use super::super::words::{self, word};
use super::Plan;
use super::fields::Keys;
use super::show::{duration, keywords, quoted, size};
use crate::smtp::{OwnReply, Words};

pub(super) fn diff_listener_smtp(
    name: &str,
    old: &ListenerSmtp,
    new: &ListenerSmtp,
    plan: &mut Plan,
) -> bool {
    let ListenerSmtp {
        client_quirks,
        line_endings,
        max_message_size,
        max_recipients,
        command_timeout,
        data_timeout,
        greet_delay,
        tarpit,
        announce,
        replay_max,
        replay_in_doubt,
        buffer_first,
        replies,
    } = old;
    let mut keys = Keys::of(format!("listeners.{name}.smtp."));
    keys.live("client_quirks", client_quirks, &new.client_quirks, |v| {
        word(words::CLIENT_QUIRKS, v).to_owned()
    });
    keys.live("line_endings", line_endings, &new.line_endings, |v| {
        word(words::LINE_ENDINGS, v).to_owned()
    });
    keys.live(
        "max_message_size",
        max_message_size,
        &new.max_message_size,
        size,
    );
    keys.live(
        "max_recipients",
        max_recipients,
        &new.max_recipients,
        ToString::to_string,
    );
    keys.live(
        "command_timeout",
        command_timeout,
        &new.command_timeout,
        duration,
    );
    keys.live("data_timeout", data_timeout, &new.data_timeout, duration);
    keys.live("greet_delay", greet_delay, &new.greet_delay, duration);
    keys.live("tarpit", tarpit, &new.tarpit, duration);
    keys.live("announce", announce, &new.announce, keywords);
    keys.live("replay_max", replay_max, &new.replay_max, size);
    keys.live(
        "replay_in_doubt",
        replay_in_doubt,
        &new.replay_in_doubt,
        ToString::to_string,
    );
    keys.live(
        "buffer_first",
        buffer_first,
        &new.buffer_first,
        ToString::to_string,
    );
    let changed = keys.finish(plan);
    diff_words(name, replies, &new.replies, plan) || changed
}

fn diff_words(name: &str, old: &Words, new: &Words, plan: &mut Plan) -> bool {
    let mut keys = Keys::of(format!("listeners.{name}.smtp.replies."));
    for wording in OwnReply::ALL {
        let Some(key) = wording.key else { continue };
        let [old, new] = [old, new].map(|words| words.chosen(wording.reply));
        keys.live(key, &old, &new, |line| match line {
            Some(line) => quoted(line),
            None => wording.default.to_owned(),
        });
    }
    keys.finish(plan)
}

pub(super) fn diff_pool_smtp(name: &str, old: &PoolSmtp, new: &PoolSmtp, plan: &mut Plan) -> bool {
    let PoolSmtp {
        sticky,
        idle_timeout,
        max_age,
        max_messages,
        max_idle,
        max_opening,
        min_idle,
        reply_timeout,
        data_timeout,
        block_timeout,
        final_timeout,
    } = old;
    let mut keys = Keys::of(format!("pools.{name}.smtp."));
    keys.live("sticky", sticky, &new.sticky, |v| {
        word(words::STICKY, v).to_owned()
    });
    for (key, old, new) in [
        ("idle_timeout", idle_timeout, &new.idle_timeout),
        ("max_age", max_age, &new.max_age),
        ("reply_timeout", reply_timeout, &new.reply_timeout),
        ("data_timeout", data_timeout, &new.data_timeout),
        ("block_timeout", block_timeout, &new.block_timeout),
        ("final_timeout", final_timeout, &new.final_timeout),
    ] {
        keys.live(key, old, new, duration);
    }
    for (key, old, new) in [
        ("max_messages", max_messages, &new.max_messages),
        ("max_idle", max_idle, &new.max_idle),
        ("max_opening", max_opening, &new.max_opening),
        ("min_idle", min_idle, &new.min_idle),
    ] {
        keys.live(key, old, new, ToString::to_string);
    }
    keys.finish(plan)
}
