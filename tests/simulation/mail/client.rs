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
    /// Those that were accepted, in order.
    pub(crate) recipients: Vec<String>,
    pub(crate) content: Vec<u8>,
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
    Other(&'static str),
    Wrong(&'static str),
    Quit,
}

/// One client with one session.
#[derive(Debug)]
pub(crate) struct Client {
    /// Still to be said.
    plan: VecDeque<Command>,
    /// Said and not answered.
    waiting: VecDeque<Command>,
    /// Said and not yet arrived.
    pub(crate) output: Vec<u8>,
    input: Vec<u8>,
    pipelines: bool,
    name: u64,
    messages: u32,
    current: Sent,
    pub(crate) sent: Vec<Sent>,
    pub(crate) replies: u64,
    /// A 421 or 221 was read: nothing more is said.
    pub(crate) is_over: bool,
}

impl Client {
    pub(crate) fn new(name: u64, rng: &mut Rng) -> Self {
        let mut plan = VecDeque::from([Command::Hello]);
        for _ in 0..=rng.below(4) {
            plan_transaction(&mut plan, name, rng);
        }
        plan.push_back(Command::Quit);
        Self {
            plan,
            // The greeting.
            waiting: VecDeque::from([Command::Other("")]),
            output: Vec::new(),
            input: Vec::new(),
            pipelines: rng.below(3) > 0,
            name,
            messages: 0,
            current: Sent::default(),
            sent: Vec::new(),
            replies: 0,
            is_over: false,
        }
    }

    /// Says what it may say now: one command, or a group.
    pub(crate) fn speak(&mut self, rng: &mut Rng) {
        while !self.is_over {
            let Some(next) = self.plan.front() else {
                return;
            };
            let is_group = matches!(next, Command::Mail(_) | Command::Rcpt(_) | Command::Data);
            let behind = self.waiting.back();
            let open = behind.is_none_or(|last| {
                self.pipelines
                    && is_group
                    && matches!(last, Command::Mail(_) | Command::Rcpt(_) | Command::Content)
            });
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
        self.output.extend_from_slice(line.as_bytes());
        self.output.extend_from_slice(b"\r\n");
        self.waiting.push_back(command);
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
                fits(&[250, 451, 503, 550]);
                if code == 250 {
                    self.current.recipients.push(rcpt.clone());
                }
            }
            Command::Data => {
                fits(&[354, 451, 503, 554]);
                if code == 354 {
                    self.plan.push_front(Command::Content);
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

fn plan_transaction(plan: &mut VecDeque<Command>, name: u64, rng: &mut Rng) {
    if rng.below(6) == 0 {
        plan.push_back(match rng.below(6) {
            0 => Command::Other("NOOP"),
            1 => Command::Other("VRFY x"),
            2 => Command::Wrong("XCLIENT ADDR=192.0.2.1"),
            3 => Command::Wrong("RCPT TO:<early@example>"),
            4 => Command::Wrong("MAIL FROM:<a@b> NONSENSE=1"),
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
        plan.push_back(Command::Data);
    }
    // Whatever became of it: the next begins anew.
    plan.push_back(Command::Other("RSET"));
}
