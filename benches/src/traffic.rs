// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages between pairs of devices: each is accepted and, where its receiver is there, delivered once, in order, and
//! acknowledged, or the measurement fails.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use hdrhistogram::Histogram;
use pli_api::edge::{SendResult, send_result, server_frame};
use pli_api::log::Envelope;
use pli_domain::ConversationId;
use prost::Message;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use crate::Ready;
use crate::load::{Device, SEND_ID_END, Session, converse, in_an_hour_ms, message};

/// Bytes of a message's body.
pub const BYTES: usize = 256;
/// Sends of one session without a result; what is due above it waits, and its waiting counts.
const OPEN_MAX: usize = 128;
/// Sends of one batch.
const BATCH_MAX: usize = 64;
/// What is accepted is delivered by then, or the measurement fails; so is a send that gets no result.
const DELIVERED_WITHIN: Duration = Duration::from_secs(60);
/// The longest latency that is told apart, in microseconds.
const LATENCY_US_MAX: u64 = 120_000_000;
/// Send ids of one connection of a pair begin here, times its number.
const ROUND: u64 = 1 << 32;

/// Two devices with a conversation.
pub struct Friends {
    alice: Device,
    bob: Device,
    room: ConversationId,
}

impl Friends {
    /// Registers two devices, `load.{2n}` at one edge and `load.{2n + 1}` at the next, and makes their conversation.
    pub async fn meet(edges: &[Ready], n: usize) -> Result<Self> {
        let ([one, two], number) = (at(edges, n)?, 2 * n as u64);
        let (alice, bob) = (Device::register(one, number).await?, Device::register(two, number + 1).await?);
        let (mut to, mut from) = (alice.connect(one).await?, bob.connect(two).await?);
        let room = converse((&alice, &mut to), (&bob, &mut from)).await?;
        Ok(Self { alice, bob, room })
    }

    /// Opens both sessions. `round` is another number each time: send ids are made of it.
    pub async fn connect(&self, edges: &[Ready], n: usize, round: u64) -> Result<Pair> {
        let [one, two] = at(edges, n)?;
        let mut pair = Pair::new(vec![self.room], self.alice.connect(one).await?, Some(self.bob.connect(two).await?));
        pair.next = round * ROUND;
        Ok(pair)
    }

    /// Opens the sender's session; the receiver is away.
    pub async fn connect_sender(&self, edges: &[Ready], n: usize, round: u64) -> Result<Pair> {
        let mut pair = Pair::new(vec![self.room], self.alice.connect(at(edges, n)?[0]).await?, None);
        pair.next = round * ROUND;
        Ok(pair)
    }
}

/// The edges of the two devices of pair `n`.
fn at(edges: &[Ready], n: usize) -> Result<[&Ready; 2]> {
    ensure!(!edges.is_empty(), "there is no edge");
    Ok([&edges[n % edges.len()], &edges[(n + 1) % edges.len()]])
}

/// An open session that writes into conversations, round and round, and the one that receives it all; none where nobody
/// of them is connected.
pub struct Pair {
    rooms: Vec<ConversationId>,
    to: Session,
    from: Option<Session>,
    next: u64,
}

impl Pair {
    /// Of sessions that are open. A receiver is in all of the conversations.
    pub const fn new(rooms: Vec<ConversationId>, to: Session, from: Option<Session>) -> Self {
        Self { rooms, to, from, next: 0 }
    }
}

/// When messages are sent.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// So many of each pair in flight, as fast as they are accepted.
    Window(usize),
    /// So many a second over all pairs, evenly, whatever is still in flight (an open loop: a message that is sent late
    /// counts from the moment at which it was due).
    PerSecond(f64),
}

/// What an exchange was.
pub struct Exchanged {
    /// Messages that were accepted.
    pub accepted: u64,
    /// Messages that were refused.
    pub refused: u64,
    /// Messages that were delivered and acknowledged by the receiving session: all that were accepted of pairs whose
    /// receiver is there.
    pub delivered: u64,
    /// From the begin to the last delivery.
    pub lasted: Duration,
    /// From a message's due moment to its `accepted`, in microseconds.
    pub accept_us: Histogram<u64>,
    /// Bytes of an encoded envelope.
    pub envelope_bytes: u64,
}

impl Exchanged {
    fn none() -> Result<Self> {
        let (accept_us, lasted) = (histogram()?, Duration::ZERO);
        Ok(Self { accepted: 0, refused: 0, delivered: 0, lasted, accept_us, envelope_bytes: 0 })
    }
}

/// Three significant digits up to two minutes; what takes longer counts as two minutes.
pub fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?)
}

/// Adds a duration to a histogram of microseconds.
pub fn record(histogram: &mut Histogram<u64>, took: Duration) {
    histogram.saturating_record(u64::try_from(took.as_micros()).unwrap_or(LATENCY_US_MAX).max(1));
}

/// Lets every pair send for `lasting` at this pace, and waits until all is accepted or refused, and delivered.
///
/// Fails where something accepted does not arrive within a minute, arrives twice or out of order.
pub async fn exchange(pairs: Vec<Pair>, pace: Pace, lasting: Duration) -> Result<(Vec<Pair>, Exchanged)> {
    let (begun, count) = (Instant::now(), pairs.len());
    let tasks = pairs.into_iter().enumerate().map(|(n, pair)| {
        let pacing = Pacing::new(pace, (n, count), begun);
        let one = timeout(lasting + DELIVERED_WITHIN, one(pair, pacing, begun + lasting));
        tokio::spawn(async move { one.await.context("a message had no end in time")? })
    });
    let mut all = Exchanged::none()?;
    let mut pairs = Vec::with_capacity(count);
    for ended in try_join_all(tasks).await? {
        let (pair, sent, received) = ended?;
        all.accepted += sent.accepted;
        all.refused += sent.refused;
        all.accept_us.add(&sent.accept_us)?;
        all.delivered += received.count;
        all.envelope_bytes = all.envelope_bytes.max(received.envelope_bytes);
        pairs.push(pair);
    }
    all.lasted = begun.elapsed();
    Ok((pairs, all))
}

async fn one(pair: Pair, pacing: Pacing, end: Instant) -> Result<(Pair, Sent, Received)> {
    let Pair { rooms, to, from, next } = pair;
    let (tell, told) = oneshot::channel();
    let sender = Sender::new(to, rooms, next)?;
    let sending = async {
        let ended = sender.run(pacing, end).await.context("a sender")?;
        // Nobody listens where the receiver is away.
        tell.send(ended.2.accepted).ok();
        Ok(ended)
    };
    let receiving = async {
        match from {
            None => Ok((None, Received::default())),
            Some(session) => receive(session, next, told).await.context("a receiver").map(|(s, r)| (Some(s), r)),
        }
    };
    let ((to, rooms, sent), (from, received)) = tokio::try_join!(sending, receiving)?;
    let next = sent.next;
    Ok((Pair { rooms, to, from, next }, sent, received))
}

/// When one sender's messages are due.
enum Pacing {
    Window(usize),
    Every { each: Duration, next: Instant },
}

impl Pacing {
    /// Of sender `n` of `count`; paced ones take turns.
    fn new(pace: Pace, (n, count): (usize, usize), begun: Instant) -> Self {
        match pace {
            Pace::Window(open) => Self::Window(open.min(OPEN_MAX)),
            Pace::PerSecond(rate) => {
                let each = Duration::from_secs_f64(count as f64 / rate);
                Self::Every { each, next: begun + each.mul_f64(n as f64 / count as f64) }
            }
        }
    }

    /// The due moments of what is to be sent now.
    fn due(&mut self, now: Instant, end: Instant, open: usize) -> Vec<Instant> {
        let room = OPEN_MAX.saturating_sub(open).min(BATCH_MAX);
        match self {
            Self::Window(most) if now < end => vec![now; most.saturating_sub(open).min(room)],
            Self::Window(_) => Vec::new(),
            Self::Every { each, next } => {
                let mut due = Vec::new();
                while *next <= now && *next < end && due.len() < room {
                    due.push(*next);
                    *next += *each;
                }
                due
            }
        }
    }

    /// When something is due again without a result, if there is such a moment.
    fn wake(&self, end: Instant, open: usize) -> Option<Instant> {
        match self {
            Self::Window(_) => None,
            Self::Every { next, .. } => (*next < end && open < OPEN_MAX).then_some(*next),
        }
    }

    fn is_over(&self, now: Instant, end: Instant) -> bool {
        match self {
            Self::Window(_) => now >= end,
            Self::Every { next, .. } => *next >= end,
        }
    }
}

struct Sent {
    accepted: u64,
    refused: u64,
    accept_us: Histogram<u64>,
    next: u64,
}

struct Sender {
    session: Session,
    rooms: Vec<ConversationId>,
    /// When what is in flight was due; at most `OPEN_MAX`.
    open: BTreeMap<u64, Instant>,
    expires_at_ms: u64,
    sent: Sent,
}

impl Sender {
    fn new(session: Session, rooms: Vec<ConversationId>, next: u64) -> Result<Self> {
        let sent = Sent { accepted: 0, refused: 0, accept_us: histogram()?, next };
        Ok(Self { session, rooms, open: BTreeMap::new(), expires_at_ms: in_an_hour_ms()?, sent })
    }

    /// Sends until `end`, then waits for the last results.
    async fn run(mut self, mut pacing: Pacing, end: Instant) -> Result<(Session, Vec<ConversationId>, Sent)> {
        loop {
            let due = pacing.due(Instant::now(), end, self.open.len());
            if !due.is_empty() {
                self.send(due).await?;
            }
            if self.open.is_empty() && pacing.is_over(Instant::now(), end) {
                return Ok((self.session, self.rooms, self.sent));
            }
            let wake = pacing.wake(end, self.open.len());
            tokio::select! {
                frame = self.session.next() => self.take(frame?.frame).await?,
                () = sleep_until(wake.unwrap_or(end)), if wake.is_some() || self.open.is_empty() => {}
            }
        }
    }

    async fn send(&mut self, due: Vec<Instant>) -> Result<()> {
        let mut batch = Vec::with_capacity(due.len());
        for moment in due {
            let n = self.sent.next;
            batch.push(message(self.rooms[n as usize % self.rooms.len()], n, BYTES, self.expires_at_ms));
            self.open.insert(n, moment);
            self.sent.next += 1;
        }
        self.session.send(batch).await
    }

    async fn take(&mut self, frame: Option<server_frame::Frame>) -> Result<()> {
        match frame {
            Some(server_frame::Frame::SendResults(results)) => {
                results.results.into_iter().try_for_each(|result| self.result(&result))
            }
            // What waits for the sender itself is not counted.
            Some(server_frame::Frame::Deliver(deliver)) => self.session.ack(deliver.position).await,
            Some(server_frame::Frame::Close(close)) => bail!("the edge closed the session: {close:?}"),
            _ => Ok(()),
        }
    }

    fn result(&mut self, result: &SendResult) -> Result<()> {
        let n = number(&result.send_id).context("a result of another send")?;
        let due = self.open.remove(&n).context("a second result of a send")?;
        match &result.result {
            Some(send_result::Result::Accepted(_)) => {
                record(&mut self.sent.accept_us, due.elapsed());
                self.sent.accepted += 1;
            }
            _ => self.sent.refused += 1,
        }
        Ok(())
    }
}

/// The number in a send id of [`message`].
fn number(send_id: &[u8]) -> Option<u64> {
    let (number, end) = send_id.split_first_chunk::<8>()?;
    (end == SEND_ID_END).then(|| u64::from_be_bytes(*number))
}

#[derive(Default)]
struct Received {
    count: u64,
    envelope_bytes: u64,
}

/// Acknowledges everything until as many messages came as the sender says were accepted. What was sent before `first` is
/// acknowledged and not counted.
async fn receive(mut session: Session, first: u64, mut told: oneshot::Receiver<u64>) -> Result<(Session, Received)> {
    let (mut received, mut expected, mut last) = (Received::default(), None, None);
    while expected != Some(received.count) {
        tokio::select! {
            count = &mut told, if expected.is_none() => expected = Some(count.context("the sender failed")?),
            frame = session.next() => {
                let Some(server_frame::Frame::Deliver(deliver)) = frame?.frame else { continue };
                let envelope = Envelope::decode(&*deliver.envelope)?;
                session.ack(deliver.position).await?;
                let Some(n) = number(&envelope.send_id).filter(|n| *n >= first) else { continue };
                ensure!(last.is_none_or(|last| n > last), "message {n} came after {last:?}: twice or out of order");
                last = Some(n);
                received.count += 1;
                received.envelope_bytes = deliver.envelope.len() as u64;
            }
        }
    }
    Ok((session, received))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paced_senders_take_turns_and_catch_up_within_the_bound() {
        let begun = Instant::now();
        let end = begun + Duration::from_secs(1);
        let at = |ms| begun + Duration::from_millis(ms);
        let mut second = Pacing::new(Pace::PerSecond(20.0), (1, 2), begun);
        assert_eq!(second.due(at(49), end, 0), []);
        assert_eq!(second.wake(end, 0), Some(at(50)));
        assert_eq!(second.due(at(250), end, 0), [at(50), at(150), at(250)]);
        assert_eq!(second.due(at(990), end, OPEN_MAX - 1), [at(350)], "only one more may be open");
        assert_eq!(second.wake(end, OPEN_MAX), None, "a result comes first");
        assert!(!second.is_over(at(2_000), end), "what was due before the end is sent after it");
        assert_eq!(second.due(at(2_000), end, 0).len(), 6);
        assert!(second.is_over(at(2_000), end));
    }

    #[test]
    fn a_window_is_filled_until_the_end() {
        let begun = Instant::now();
        let end = begun + Duration::from_secs(1);
        let mut window = Pacing::new(Pace::Window(4), (0, 1), begun);
        assert_eq!(window.due(begun, end, 1).len(), 3);
        assert_eq!(window.due(end, end, 0), []);
        assert!(window.is_over(end, end));
    }

    #[test]
    fn a_send_id_tells_its_number() {
        let send = message(ConversationId::from_bytes([1; 16]), 7 * ROUND + 3, BYTES, 0);
        assert_eq!(number(&send.send_id), Some(7 * ROUND + 3));
        assert_eq!(number(&[9; 16]), None, "somebody else's");
        assert_eq!(number(&[0x11; 8]), None, "too short");
    }
}
