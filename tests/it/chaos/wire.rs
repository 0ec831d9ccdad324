//! A connection that breaks off: after so many octets, in the way that its plan says; its writes are
//! whole, torn, or one octet at a time.

use std::time::Duration;

use posthouse::types::Rng;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an end that was told in order waits for the peer's.
const PARTING: Duration = Duration::from_secs(1);
/// Octets that are written one by one, of one text; the rest of it follows at once.
const SINGLE_MAX: usize = 48;
/// The longest line that is read.
const LINE_MAX: usize = 4096;

/// How a connection breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// RST.
    Reset,
    /// `close`: FIN, or RST if something was not read.
    Close,
    /// FIN; what the peer still says is read.
    End,
}

/// What counts towards the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    Read,
    Written,
}

/// When and how a connection breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Doom {
    count: Count,
    left: usize,
    how: How,
}

impl Doom {
    /// At any octet: of a greeting as likely as of a message.
    pub(crate) fn any(rng: &mut Rng) -> Self {
        let most = [8, 40, 400, 4000][rng.below(4) as usize];
        Self {
            count: [Count::Read, Count::Written][rng.below(2) as usize],
            left: rng.below(most) as usize,
            how: How::any(rng),
        }
    }
}

impl How {
    pub(crate) fn any(rng: &mut Rng) -> Self {
        [Self::Reset, Self::Close, Self::End][rng.below(3) as usize]
    }
}

/// How texts are cut into writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Whole,
    Torn,
    Single,
}

impl Style {
    pub(crate) fn any(rng: &mut Rng) -> Self {
        [Self::Whole, Self::Whole, Self::Torn, Self::Single][rng.below(4) as usize]
    }
}

/// Why a connection does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// We broke it off; whether all of the last text was handed over before.
    Us { all: bool },
    /// The peer ended it in order.
    Ended,
    /// The peer reset it.
    Reset,
    /// Nothing came for too long.
    Late,
}

pub(crate) struct Wire {
    stream: Option<TcpStream>,
    doom: Option<Doom>,
    style: Style,
    patience: Duration,
    rng: Rng,
    input: Vec<u8>,
    room: Box<[u8]>,
}

impl Wire {
    pub(crate) fn new(
        stream: TcpStream,
        doom: Option<Doom>,
        style: Style,
        patience: Duration,
        rng: Rng,
    ) -> Self {
        stream.set_nodelay(true).expect("a socket option");
        Self {
            stream: Some(stream),
            doom,
            style,
            patience,
            rng,
            input: Vec::new(),
            room: vec![0; 16 * 1024].into(),
        }
    }

    /// Whether more has come than was asked for.
    pub(crate) fn has_more(&self) -> bool {
        !self.input.is_empty()
    }

    /// Writes these octets, or those before the end.
    pub(crate) async fn say(&mut self, octets: &[u8]) -> Result<(), Gone> {
        let mut left = octets;
        if let Some(doom) = &mut self.doom
            && doom.count == Count::Written
        {
            left = &octets[..doom.left.min(octets.len())];
            doom.left -= left.len();
        }
        let all = left.len() == octets.len();
        let mut singles = SINGLE_MAX;
        while !left.is_empty() {
            let piece = match self.style {
                Style::Single if singles > 0 => 1,
                Style::Torn if singles > 0 => 1 + self.rng.below(left.len() as u32) as usize,
                Style::Whole | Style::Torn | Style::Single => left.len(),
            };
            singles = singles.saturating_sub(1);
            let (now, later) = left.split_at(piece);
            left = later;
            self.write(now).await?;
        }
        if self.is_over() {
            self.break_off().await;
            return Err(Gone::Us { all });
        }
        Ok(())
    }

    async fn write(&mut self, octets: &[u8]) -> Result<(), Gone> {
        let stream = self.stream.as_mut().ok_or(Gone::Us { all: false })?;
        match timeout(self.patience, stream.write_all(octets)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Gone::Reset),
            Err(_) => Err(Gone::Late),
        }
    }

    /// A line without its CRLF.
    pub(crate) async fn line(&mut self) -> Result<String, Gone> {
        loop {
            if let Some(at) = self.input.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.input.drain(..at + 2).take(at).collect();
                return Ok(String::from_utf8(line).unwrap_or_else(|_| "not UTF-8".to_owned()));
            }
            assert!(self.input.len() < LINE_MAX, "a line without an end");
            self.fill().await?;
        }
    }

    /// So many octets.
    pub(crate) async fn exactly(&mut self, octets: usize) -> Result<Vec<u8>, Gone> {
        while self.input.len() < octets {
            self.fill().await?;
        }
        Ok(self.input.drain(..octets).collect())
    }

    async fn fill(&mut self) -> Result<(), Gone> {
        let mut most = self.room.len();
        if let Some(doom) = &self.doom
            && doom.count == Count::Read
        {
            most = most.min(doom.left);
        }
        if most == 0 {
            self.break_off().await;
            return Err(Gone::Us { all: true });
        }
        let stream = self.stream.as_mut().ok_or(Gone::Us { all: true })?;
        match timeout(self.patience, stream.read(&mut self.room[..most])).await {
            Ok(Ok(0)) => Err(Gone::Ended),
            Ok(Ok(count)) => {
                self.input.extend_from_slice(&self.room[..count]);
                if let Some(doom) = &mut self.doom
                    && doom.count == Count::Read
                {
                    doom.left -= count;
                }
                Ok(())
            }
            Ok(Err(_)) => Err(Gone::Reset),
            Err(_) => Err(Gone::Late),
        }
    }

    fn is_over(&self) -> bool {
        let doom = self.doom.as_ref();
        doom.is_some_and(|doom| doom.count == Count::Written && doom.left == 0)
    }

    async fn break_off(&mut self) {
        let how = self.doom.map_or(How::Close, |doom| doom.how);
        self.leave(how).await;
    }

    /// Breaks off now.
    pub(crate) async fn leave(&mut self, how: How) {
        let Some(mut stream) = self.stream.take() else {
            return;
        };
        match how {
            How::Close => {}
            How::Reset => {
                let reset = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                reset.expect("a socket option");
            }
            How::End => {
                let parting = async {
                    // The peer may have left.
                    if stream.shutdown().await.is_ok() {
                        while stream
                            .read(&mut self.room)
                            .await
                            .is_ok_and(|count| count > 0)
                        {}
                    }
                };
                let _ = timeout(PARTING, parting).await;
            }
        }
    }
}
