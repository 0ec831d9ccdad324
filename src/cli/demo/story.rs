//! What happens to the backends, and when.

use std::io;
use std::time::Duration;

use super::{Mode, NAMES};
use crate::lab::{At, Script, SinkHandle};

/// The story of an endless demo, then it begins again.
const CHAPTER: Duration = Duration::from_secs(45);
/// A demo shorter than this has only the death and the return.
const WHOLE_STORY: Duration = Duration::from_secs(20);

/// Something that happens to a backend, by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scene {
    /// Killed: its port is closed, its connections are reset.
    Kill(usize),
    /// The same as soon as somebody is in the middle of a message to it.
    KillWithin(usize),
    /// The same as soon as it has taken a message, before it can say so.
    KillBehind(usize),
    /// Started again on the same port.
    Revive(usize),
    /// Greets everybody with 421.
    Refuse(usize),
    /// Accepts and never greets, as a Postfix at its process limit.
    Hang(usize),
    /// Refuses every message at its end, because its disk is full.
    Full(usize),
    /// Good again.
    Heal(usize),
}

/// What is still to come.
#[derive(Clone, Debug)]
pub(super) struct Story {
    length: Duration,
    endless: bool,
    begun: Duration,
    next: usize,
    scenes: Vec<(f64, Scene)>,
}

/// Scenes by the share of the chapter at which they come.
const ALL: [(f64, Scene); 6] = [
    (0.08, Scene::Kill(1)),
    (0.28, Scene::Revive(1)),
    (0.42, Scene::Refuse(2)),
    (0.56, Scene::Heal(2)),
    (0.70, Scene::Hang(0)),
    (0.84, Scene::Heal(0)),
];
const SHORT: [(f64, Scene); 2] = [(0.2, Scene::Kill(1)), (0.5, Scene::Revive(1))];
/// Those of smtp mode, where greetings are seldom and what counts is inside the session.
const ALL_SMTP: [(f64, Scene); 6] = [
    (0.08, Scene::KillWithin(1)),
    (0.28, Scene::Revive(1)),
    (0.42, Scene::Full(2)),
    (0.56, Scene::Heal(2)),
    (0.70, Scene::KillBehind(0)),
    (0.84, Scene::Revive(0)),
];
const SHORT_SMTP: [(f64, Scene); 2] = [(0.2, Scene::KillWithin(1)), (0.5, Scene::Revive(1))];

impl Story {
    /// The story of a demo of this length, or of one without end.
    pub(super) fn of(mode: Mode, limit: Option<Duration>) -> Self {
        let is_short = limit.is_some_and(|limit| limit < WHOLE_STORY);
        let scenes = match (mode, is_short) {
            (Mode::Passthrough, true) => SHORT.to_vec(),
            (Mode::Passthrough, false) => ALL.to_vec(),
            (Mode::Smtp, true) => SHORT_SMTP.to_vec(),
            (Mode::Smtp, false) => ALL_SMTP.to_vec(),
        };
        Self {
            length: limit.unwrap_or(CHAPTER),
            endless: limit.is_none(),
            begun: Duration::ZERO,
            next: 0,
            scenes,
        }
    }

    /// The scenes whose time has come.
    pub(super) fn due(&mut self, elapsed: Duration) -> Vec<Scene> {
        let mut due = Vec::new();
        if self.endless && elapsed >= self.begun + self.length {
            self.begun += self.length;
            self.next = 0;
        }
        while let Some((share, scene)) = self.scenes.get(self.next) {
            if elapsed < self.begun + self.length.mul_f64(*share) {
                break;
            }
            due.push(*scene);
            self.next += 1;
        }
        due
    }

    /// What makes every backend good again, wherever the story was left.
    pub(super) fn healing(&self) -> Vec<Scene> {
        let played = &self.scenes[..self.next];
        played
            .iter()
            .flat_map(|(_, scene)| match *scene {
                Scene::Kill(index) | Scene::KillWithin(index) | Scene::KillBehind(index) => {
                    vec![Scene::Revive(index)]
                }
                Scene::Refuse(index) | Scene::Hang(index) | Scene::Full(index) => {
                    vec![Scene::Heal(index)]
                }
                Scene::Revive(_) | Scene::Heal(_) => vec![],
            })
            .collect()
    }
}

impl Scene {
    /// Does it.
    pub(super) async fn play(self, sinks: &[SinkHandle]) -> io::Result<()> {
        match self {
            Self::Kill(index) => sinks[index].stop().await,
            Self::KillWithin(index) => {
                sinks[index].script_for_all(Script::good().die_at(At::MidData));
            }
            Self::KillBehind(index) => {
                sinks[index].script_for_all(Script::good().die_at(At::Taken));
            }
            Self::Revive(index) => {
                sinks[index].script_for_all(Script::good());
                sinks[index].restart().await?;
            }
            Self::Refuse(index) => {
                let reply = format!("421 4.3.2 {}.demo is overloaded", NAMES[index]);
                sinks[index].script(Script::good().reply(At::Greeting, &reply));
            }
            Self::Hang(index) => {
                sinks[index].hold();
                sinks[index].script(Script::good().hold_at(At::Greeting));
            }
            Self::Full(index) => {
                let full = Script::good().reply(At::Dot, "452 4.3.1 insufficient system storage");
                sinks[index].script_for_all(full);
            }
            // Whoever still waits is greeted, as by a process that was only stopped.
            Self::Heal(index) => {
                sinks[index].script_for_all(Script::good());
                sinks[index].release();
            }
        }
        Ok(())
    }

    /// The backend.
    pub(super) fn index(self) -> usize {
        match self {
            Self::Kill(index)
            | Self::KillWithin(index)
            | Self::KillBehind(index)
            | Self::Full(index)
            | Self::Revive(index)
            | Self::Refuse(index)
            | Self::Hang(index)
            | Self::Heal(index) => index,
        }
    }

    /// What it is, for people.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Kill(_) => "we kill it: port closed, connections reset",
            Self::KillWithin(_) => "we kill it in the middle of a message",
            Self::KillBehind(_) => "we kill it when it has a message and has not said so yet",
            Self::Full(_) => "we fill its disk: it refuses every message at its end with 452",
            Self::Revive(_) => "we start it again",
            Self::Refuse(_) => "we overload it: it greets everybody with 421",
            Self::Hang(_) => "we freeze it: it accepts and never greets",
            Self::Heal(_) => "we make it well again",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scene_comes_once_in_order_and_the_endless_story_begins_again() {
        for (mode, scenes) in [(Mode::Passthrough, ALL), (Mode::Smtp, ALL_SMTP)] {
            let mut story = Story::of(mode, None);
            let mut seen = Vec::new();
            for second in 0..=50 {
                seen.extend(story.due(Duration::from_secs(second)));
            }
            let first = scenes.map(|(_, scene)| scene);
            assert_eq!(seen[..6], first);
            assert_eq!(seen[6..], first[..1]);
        }
    }

    #[test]
    fn whoever_was_hurt_is_healed_wherever_the_story_ends() {
        let kills = [
            (Mode::Passthrough, Scene::Kill(1)),
            (Mode::Smtp, Scene::KillWithin(1)),
        ];
        for (mode, kill) in kills {
            let mut story = Story::of(mode, Some(Duration::from_secs(6)));
            assert!(story.healing().is_empty());
            assert_eq!(story.due(Duration::from_secs(2)), [kill]);
            assert_eq!(story.healing(), [Scene::Revive(1)]);
        }
    }
}
