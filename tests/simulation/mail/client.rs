//! A client of the simulated world: it says what it likes, in whatever pieces, and remembers what
//! it was told.

use std::collections::VecDeque;

use posthouse::types::Rng;

/// What a client was told about one message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    /// In the content, and so the way to find its copies.
    pub(crate) id: String,
    pub(crate) mail: String,
    /// Those that were named, in order.
    pub(crate) named: Vec<String>,
    /// Those that were accepted, in order.
    pub(crate) recipients: Vec<String>,
    pub(crate) content: Vec<u8>,
    /// By BDAT.
    pub(crate) in_chunks: bool,
    /// All of the content and its end were said.
    pub(crate) is_completed: bool,
    /// The code of the reply to it.
    pub(crate) told: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Command {
    Hello,
    Mail(String),
    Rcpt(String),
    Data,
    Content,
    /// A message by BDAT, in chunks of its own making.
    Chunks,
    Chunk(Chunk),
    Other(&'static str),
    Wrong(&'static str),
    Quit,
}

impl Sent {
    /// Whether these are the recipients that were accepted. A client that left before it heard of
    /// some may have been served all the same.
    pub(crate) fn is_for(&self, recipients: &[String]) -> bool {
        if self.told.is_some() || !self.in_chunks {
            return self.recipients == recipients;
        }
        let named = |recipient| self.named.contains(recipient);
        recipients.starts_with(&self.recipients) && recipients.iter().all(named)
    }
}

/// A part of a message, said with BDAT.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chunk {
    octets: Vec<u8>,
    is_last: bool,
}

/// One client with one session.
#[derive(Debug)]
pub(crate) struct Client {
    /// Still to be said.
    plan: VecDeque<Command>,
    /// Said and not answered.
    waiting: VecDeque<Command>,
    /// A chunk of the message was refused: no more are said.
    is_refused: bool,
    /// Said and not yet arrived.
    pub(crate) output: Vec<u8>,
    input: Vec<u8>,
    pipelines: bool,
    /// It says EHLO before it is greeted.
    is_early: bool,
    name: u64,
    messages: u32,
    current: Sent,
    pub(crate) sent: Vec<Sent>,
    pub(crate) replies: u64,
    /// Recipients that no place was left for.
    pub(crate) recipients_put_off: u64,
    /// A 421 or 221 was read: nothing more is said.
    pub(crate) is_over: bool,
}

impl Client {
    pub(crate) fn new(name: u64, may_chunk: bool, rng: &mut Rng) -> Self {
        let mut plan = VecDeque::from([Command::Hello]);
        if rng.below(8) == 0 {
            // It guesses, and is answered later and later (rule B5).
            let guesses = 5 + rng.below(4) as usize;
            plan.extend(std::iter::repeat_n(Command::Wrong("GUESS"), guesses));
        }
        for _ in 0..=rng.below(4) {
            plan_transaction(&mut plan, name, may_chunk, rng);
        }
        plan.push_back(Command::Quit);
        Self {
            plan,
            // The greeting, if it waits for that.
            waiting: VecDeque::from([Command::Other("")]),
            is_early: rng.below(8) == 0,
            is_refused: false,
            output: Vec::new(),
            input: Vec::new(),
            pipelines: rng.below(3) > 0,
            name,
            messages: 0,
            current: Sent::default(),
            sent: Vec::new(),
            replies: 0,
            recipients_put_off: 0,
            is_over: false,
        }
    }

    /// Says what it may say now: one command, or a group.
    pub(crate) fn speak(&mut self, rng: &mut Rng) {
        while !self.is_over {
            let Some(next) = self.plan.front() else {
                return;
            };
            let is_group = matches!(
                next,
                Command::Mail(_)
                    | Command::Rcpt(_)
                    | Command::Data
                    | Command::Chunks
                    | Command::Chunk(_)
            );
            let may_follow = |last: &Command| {
                matches!(
                    last,
                    Command::Mail(_) | Command::Rcpt(_) | Command::Content | Command::Chunk(_)
                )
            };
            let behind = self.waiting.back();
            if std::mem::take(&mut self.is_early) && *next == Command::Hello {
                let next = self.plan.pop_front();
                self.say(next.expect("it was just seen"), rng);
                continue;
            }
            let open = behind.is_none_or(|last| self.pipelines && is_group && may_follow(last));
            if !open || (behind.is_some() && rng.below(8) == 0) {
                return;
            }
            if let Some(next) = self.plan.pop_front() {
                self.say(next, rng);
            }
        }
    }

    fn say(&mut self, command: Command, rng: &mut Rng) {
        let line = match &command {
            Command::Hello => "EHLO client.example".to_owned(),
            Command::Mail(line) | Command::Rcpt(line) => line.clone(),
            Command::Data => "DATA".to_owned(),
            Command::Other(line) | Command::Wrong(line) => (*line).to_owned(),
            Command::Chunks => return self.cut(rng),
            Command::Chunk(chunk) => {
                let last = if chunk.is_last { " LAST" } else { "" };
                let line = format!("BDAT {}{last}\r\n", chunk.octets.len());
                self.output.extend_from_slice(line.as_bytes());
                self.output.extend_from_slice(&chunk.octets);
                if chunk.is_last {
                    self.current.is_completed = true;
                    self.sent.push(std::mem::take(&mut self.current));
                }
                self.waiting.push_back(command);
                return;
            }
            Command::Quit => "QUIT".to_owned(),
            Command::Content => {
                let content = self.content(rng);
                self.output.extend_from_slice(&content);
                self.output.extend_from_slice(b".\r\n");
                self.current.content = content;
                self.current.is_completed = true;
                self.sent.push(std::mem::take(&mut self.current));
                self.waiting.push_back(command);
                return;
            }
        };
        if let Command::Mail(line) = &command {
            self.current = Sent {
                mail: line.clone(),
                ..Sent::default()
            };
        }
        if let Command::Rcpt(line) = &command {
            self.current.named.push(line.clone());
        }
        self.output.extend_from_slice(line.as_bytes());
        // Every other line ends as scripts end them (rule G12); behind BDAT come counted octets.
        let is_script = line.len().is_multiple_of(2) && !line.starts_with("BDAT");
        let end: &[u8] = if is_script { b"\n" } else { b"\r\n" };
        self.output.extend_from_slice(end);
        self.waiting.push_back(command);
    }

    /// Plans a message in chunks, cut where they fall. They hold what DATA could not say.
    fn cut(&mut self, rng: &mut Rng) {
        self.is_refused = false;
        let mut content = self.content(rng);
        for _ in 0..rng.below(4) {
            let piece: &[u8] = match rng.below(4) {
                0 => b"\r\n.\r\n",
                1 => b"\n.\n",
                2 => b"BDAT 5 LAST\r\n",
                _ => b"bare\rand\0",
            };
            content.extend_from_slice(piece);
        }
        let mut chunks = Vec::new();
        let mut rest = &content[..];
        for _ in 0..rng.below(4) {
            let length = rng.below(rest.len() as u32 + 1) as usize;
            let (octets, behind) = rest.split_at(length);
            rest = behind;
            chunks.push(Command::Chunk(Chunk {
                octets: octets.to_vec(),
                is_last: false,
            }));
        }
        chunks.push(Command::Chunk(Chunk {
            octets: rest.to_vec(),
            is_last: true,
        }));
        for chunk in chunks.into_iter().rev() {
            self.plan.push_front(chunk);
        }
        self.current.content = content;
        self.current.in_chunks = true;
    }

    /// A message with dots where they hurt.
    fn content(&mut self, rng: &mut Rng) -> Vec<u8> {
        self.messages += 1;
        self.current.id = format!("{}-{}", self.name, self.messages);
        let mut content = format!("Message-Id: {}\r\n", self.current.id).into_bytes();
        for _ in 0..rng.below(40) {
            let line = match rng.below(5) {
                0 => "..",
                1 => "...quite",
                2 => "",
                3 => "a line of text with . and .. in it",
                _ => "QUIT",
            };
            content.extend_from_slice(line.as_bytes());
            content.extend_from_slice(b"\r\n");
        }
        content
    }

    /// Hears octets.
    ///
    /// # Panics
    /// When a reply answers nothing.
    pub(crate) fn hear(&mut self, octets: &[u8]) {
        self.input.extend_from_slice(octets);
        while let Some(end) = self.input.windows(2).position(|two| two == b"\r\n") {
            let line: Vec<u8> = self.input.drain(..end + 2).collect();
            let line = String::from_utf8(line).expect("replies are ASCII");
            if line.as_bytes()[3] == b' ' {
                let code = line[..3].parse().expect("a code");
                self.answered(code, line.trim_end());
            }
        }
    }

    fn answered(&mut self, code: u16, line: &str) {
        self.replies += 1;
        if code == 421 {
            self.is_over = true;
            return;
        }
        if code == 554 && self.waiting.front() == Some(&Command::Other("")) {
            // It talked too early.
            self.is_over = true;
            return;
        }
        let waiting = self.waiting.pop_front();
        assert!(waiting.is_some(), "{line:?} answers nothing (promise 3)");
        let Some(command) = waiting else { return };
        let fits = |codes: &[u16]| assert!(codes.contains(&code), "{command:?} was told {line:?}");
        match &command {
            Command::Other("") => fits(&[220]),
            Command::Other("VRFY x") => fits(&[252]),
            Command::Hello | Command::Other(_) => fits(&[250]),
            Command::Wrong(_) => fits(&[500, 501, 502, 503, 555]),
            Command::Quit => {
                fits(&[221]);
                self.is_over = true;
            }
            Command::Mail(_) => fits(&[250, 451, 452, 503, 550]),
            Command::Rcpt(rcpt) => {
                fits(&[250, 451, 452, 503, 550]);
                if code == 452 {
                    assert!(line.contains(" 4.5.3 "), "{line:?}");
                    let said = self.sent.iter().find(|sent| sent.told.is_none());
                    let before = said.map_or(&self.current, |said| said);
                    assert!(
                        !before.recipients.is_empty(),
                        "the first has a place or moves"
                    );
                    self.recipients_put_off += 1;
                }
                if code == 250 {
                    // Chunks may have been said in one flight with it.
                    let said = self.sent.iter_mut().find(|sent| sent.told.is_none());
                    let of = said.unwrap_or(&mut self.current);
                    of.recipients.push(rcpt.clone());
                }
            }
            Command::Data => {
                fits(&[354, 451, 503, 554]);
                if code == 354 {
                    self.plan.push_front(Command::Content);
                }
            }
            Command::Chunks => unreachable!("it is cut before it is said"),
            Command::Chunk(chunk) => {
                fits(&[250, 451, 452, 503, 550, 552, 554, 455]);
                assert!(
                    !(self.is_refused && code == 250),
                    "rule C4: {line:?} behind a refused chunk"
                );
                self.is_refused |= code != 250;
                if self.is_refused {
                    let is_chunk = |next: &Command| matches!(next, Command::Chunk(_));
                    while self.plan.front().is_some_and(is_chunk) {
                        self.plan.pop_front();
                    }
                }
                if chunk.is_last {
                    let first = self.sent.iter_mut().find(|sent| sent.told.is_none());
                    first.expect("a message was sent").told = Some(code);
                }
            }
            Command::Content => {
                fits(&[250, 451, 452, 552]);
                let first = self.sent.iter_mut().find(|sent| sent.told.is_none());
                first.expect("a message was sent").told = Some(code);
            }
        }
    }

    /// Whether it waits for nothing and has nothing to say.
    pub(crate) fn is_content(&self) -> bool {
        self.waiting.is_empty() && self.plan.is_empty() && self.output.is_empty()
    }
}

fn plan_transaction(plan: &mut VecDeque<Command>, name: u64, may_chunk: bool, rng: &mut Rng) {
    if rng.below(6) == 0 {
        plan.push_back(match rng.below(7) {
            0 => Command::Other("NOOP"),
            1 => Command::Other("VRFY x"),
            2 => Command::Wrong("XCLIENT ADDR=192.0.2.1"),
            3 => Command::Wrong("RCPT TO:<early@example>"),
            4 => Command::Wrong("MAIL FROM:<a@b> NONSENSE=1"),
            5 => Command::Wrong("BDAT 6 LAST\r\nQUIT"),
            _ => Command::Other("RSET"),
        });
    }
    let sender = if rng.below(12) == 0 {
        "refused"
    } else {
        "sender"
    };
    plan.push_back(Command::Mail(format!("MAIL FROM:<{sender}{name}@example>")));
    for number in 0..=rng.below(4) {
        let who = match rng.below(8) {
            0 => "no",
            1 => "p",
            2 => "q",
            _ => "someone",
        };
        plan.push_back(Command::Rcpt(format!("RCPT TO:<{who}{number}@example>")));
    }
    if rng.below(10) > 0 {
        let chunks = may_chunk && rng.below(2) == 0;
        plan.push_back(if chunks {
            Command::Chunks
        } else {
            Command::Data
        });
    }
    // Whatever became of it: the next begins anew.
    plan.push_back(Command::Other("RSET"));
}
