// SPDX-License-Identifier: MIT OR Apache-2.0
//! The state of a started owner and its loop.

use std::collections::VecDeque;
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use pli_domain::{Checkpoint, EntryId, EntryRef, Position, Seq};
use pli_ports::{LogEpochStart, ReleaseMark, Retry, ShardState, SignalEvent, StoreError, Subject, Subscription};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use super::Context;
use super::bounds::{Fullness, Settled, TidyPlan};
use super::devices::Devices;
use super::follow::{Followed, Follower};
use super::index::Unindexed;
use super::notices::Notices;
use super::page::RowsRead;
use super::retry::retried;
use super::sessions::{Announced, Expiries};
use super::settle::{Plan, Room, SettleEnd};
use super::start::Started;
use super::tail::Tail;
use crate::error::OwnerError;
use crate::levels::Owned;

/// How a started owner ends without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was told to stop and has released the shard.
    Released,
    /// The log is not what was read before.
    Fork,
    /// Somebody else moved on.
    Fenced,
}

/// What a job came back with.
pub(super) enum Done {
    Followed(Box<Follower>, Result<Followed, StoreError>),
    Settled(Box<Plan>, Result<SettleEnd, StoreError>),
    Tidied(Box<TidyPlan>, Result<(), StoreError>),
    Announced(Box<Announced>),
    RowsRead(Box<RowsRead>),
    EpochRead(Result<ShardState, StoreError>),
    /// It answered by itself.
    Answered,
}

type Job = Pin<Box<dyn Future<Output = Done> + Send>>;

/// What wakes the loop.
enum Event {
    Stop,
    Tick,
    Done(Done),
    Signal(Option<SignalEvent>),
}

/// A started owner.
pub(super) struct Live {
    pub context: Arc<Context>,
    pub epoch: LogEpochStart,
    /// Written and read back, or what the start found.
    pub checkpoint: Checkpoint,
    /// Everything of the log up to here is known: the end of the last entry read, or the checkpoint.
    pub head: Position,
    pub last: (Seq, Option<EntryId>),
    /// The entries read last. Bound: [`super::follow::RECENT_MAX`].
    pub recent: VecDeque<EntryRef>,
    pub next: Seq,
    /// The inherited release mark until it is read past.
    pub mark: Option<EntryRef>,
    /// The log's head when it was looked at last.
    pub log_head: Seq,
    /// The log's head when the owner started: what it reads up to here may have been read before.
    pub replayed_to: Seq,
    /// Entries kept aside. Bound: `aside_entries_max`.
    pub aside: usize,
    pub tail: Tail,
    pub devices: Devices,
    pub expiries: Expiries,
    pub notices: Notices,
    pub settled: Settled,
    pub fullness: Fullness,
    /// Bound: one follow, one settle or tidying, one epoch check, and `jobs_max` that somebody waits for.
    jobs: FuturesUnordered<Job>,
    /// Jobs that somebody waits for.
    pub asked: usize,
    /// Whether a settle or the tidying after it is under way.
    pub settling: bool,
    /// Nothing is settled before: edges announce their sessions.
    pub settle_from: Instant,
    /// How much the next settle takes; less after one that found no room.
    pub room: Room,
    pub epoch_checked: Option<Instant>,
    repeat_asked: Option<Instant>,
    /// Sessions may be missing, and it is too early to ask for them again.
    repeat_wanted: bool,
    pub follower: Option<Box<Follower>>,
    /// A bound stopped following for good: an operator must act.
    pub stopped_following: bool,
    pub unindexed: Unindexed,
    /// Where its levels are shown.
    pub owned: Owned,
    pub end: Option<Ended>,
}

impl Live {
    pub fn new(context: Arc<Context>, started: Started) -> Self {
        let now = Instant::now();
        let follower = Some(Box::new(Follower::new(&context)));
        let settle_from = now + context.config.announce_round();
        let owned = context.counters.levels.own(context.shard);
        Self {
            epoch: started.epoch,
            checkpoint: started.checkpoint,
            head: started.checkpoint.position,
            last: started.last,
            recent: VecDeque::new(),
            next: started.next,
            mark: started.mark,
            log_head: started.log_head,
            replayed_to: started.log_head,
            aside: started.aside as usize,
            tail: Tail::default(),
            devices: Devices::default(),
            expiries: Expiries::default(),
            notices: Notices::new(started.checkpoint.position),
            settled: Settled::default(),
            fullness: Fullness::default(),
            jobs: FuturesUnordered::new(),
            asked: 0,
            settling: false,
            settle_from,
            room: Room::default(),
            epoch_checked: None,
            repeat_asked: None,
            repeat_wanted: false,
            follower,
            stopped_following: false,
            unindexed: Unindexed::default(),
            owned,
            end: None,
            context,
        }
    }

    /// Works until `stop` or until it must start again.
    pub async fn run(mut self, stop: &CancellationToken) -> Result<Ended, OwnerError> {
        let context = self.context.clone();
        let subject = Subject::owner(context.shard);
        let mut subscription = tokio::select! {
            biased;
            () = stop.cancelled() => return self.release().await,
            subscribed = retried(&context, || context.ports.signals.subscribe(&subject)) => subscribed?,
        };
        self.ask_for_announcements().await;
        let every = context.config.settle_every();
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut jobs_first = true;
        while self.end.is_none() {
            self.follow_on();
            match self.event(stop, &mut ticks, &mut *subscription, jobs_first).await {
                Event::Stop => {
                    drop(subscription);
                    return self.release().await;
                }
                Event::Tick => self.tick().await,
                Event::Done(done) => self.done(done).await?,
                Event::Signal(Some(event)) => self.signal(event).await,
                Event::Signal(None) => return Err(OwnerError::BusClosed(context.shard)),
            }
            jobs_first = !jobs_first;
            tokio::task::coop::consume_budget().await;
        }
        Ok(self.end.unwrap_or(Ended::Fenced))
    }

    /// The next event. Jobs and signals take turns in going first, so that neither starves the other.
    async fn event(
        &mut self,
        stop: &CancellationToken,
        ticks: &mut Interval,
        subscription: &mut dyn Subscription,
        jobs_first: bool,
    ) -> Event {
        let jobs = &mut self.jobs;
        if jobs_first {
            tokio::select! {
                biased;
                () = stop.cancelled() => Event::Stop,
                _ = ticks.tick() => Event::Tick,
                Some(done) = jobs.next() => Event::Done(done),
                signal = subscription.next() => Event::Signal(signal),
            }
        } else {
            tokio::select! {
                biased;
                () = stop.cancelled() => Event::Stop,
                _ = ticks.tick() => Event::Tick,
                signal = subscription.next() => Event::Signal(signal),
                Some(done) = jobs.next() => Event::Done(done),
            }
        }
    }

    /// Runs a job beside the loop.
    pub fn spawn(&mut self, job: impl Future<Output = Done> + Send + 'static) {
        self.jobs.push(Box::pin(job));
    }

    async fn done(&mut self, done: Done) -> Result<(), OwnerError> {
        match done {
            Done::Followed(follower, followed) => {
                self.follower = Some(follower);
                self.followed(followed?).await;
            }
            Done::Settled(plan, end) => self.settled(*plan, end?).await,
            Done::Tidied(plan, tidied) => {
                tidied?;
                self.tidied(*plan).await;
            }
            Done::Announced(announced) => self.announced(*announced).await,
            Done::RowsRead(read) => self.rows_read(*read).await,
            Done::EpochRead(state) => self.epoch_read(state),
            Done::Answered => self.asked -= 1,
        }
        Ok(())
    }

    /// Every `settle_every`: what is done by time.
    async fn tick(&mut self) {
        self.index_unindexed();
        self.forget_silent_sessions();
        self.repeat_notices().await;
        if self.repeat_wanted {
            self.ask_for_announcements().await;
        }
        self.settle_on();
    }

    /// Settles what is due, then leaves the mark. The subscription is gone: nothing is answered any more, and what
    /// the log yields from here on is left to the next owner.
    async fn release(mut self) -> Result<Ended, OwnerError> {
        let context = self.context.clone();
        let grace = context.config.release_grace();
        if timeout(grace, self.settle_last()).await.is_err() {
            tracing::warn!(shard = %context.shard, "stopped before everything was settled; the next owner goes on");
        }
        if let Some(end) = self.end {
            return Ok(if end == Ended::Fork { end } else { Ended::Released });
        }
        // Jobs still under way are dropped here: nothing of this owner acts after its mark.
        self.jobs.clear();
        let read = self.last.1.map(|id| EntryRef { seq: self.last.0, id });
        let last = self.mark.filter(|mark| mark.seq > self.last.0).or(read);
        let mark = ReleaseMark { epoch: self.epoch.epoch, last };
        // Once: a retry after an unknown outcome could put back a mark that somebody has taken, and it would serve twice.
        match timeout(grace, context.ports.queues.put_mark(context.shard, mark)).await {
            Ok(Ok(true)) => context.counters.marks_written(1),
            Ok(Ok(false)) => tracing::info!(shard = %context.shard, "somebody else has begun a log epoch"),
            Ok(Err(error)) if error.retry == Retry::Never => return Err(error.into()),
            _ => tracing::warn!(shard = %context.shard, "perhaps no release mark was left; then a log epoch begins"),
        }
        Ok(Ended::Released)
    }

    async fn settle_last(&mut self) {
        loop {
            if !self.settling && !self.settle_on() {
                return;
            }
            match self.jobs.next().await {
                Some(Done::Settled(plan, Ok(end))) => self.settled(*plan, end).await,
                Some(Done::Tidied(plan, Ok(()))) => self.tidied(*plan).await,
                Some(Done::Settled(_, Err(error)) | Done::Tidied(_, Err(error))) => {
                    tracing::error!(
                        shard = %self.context.shard,
                        error = &error as &dyn Error,
                        "the last settle failed"
                    );
                    return;
                }
                Some(_) => {}
                None => return,
            }
            if self.end.is_some() {
                return;
            }
        }
    }

    /// Reads the shard's log epoch again, at most once a second: somebody named a higher one.
    pub fn check_epoch(&mut self) {
        if !self.may_check_epoch() {
            return;
        }
        let context = self.context.clone();
        self.spawn(async move { Done::EpochRead(context.ports.queues.shard_state(context.shard).await) });
    }

    /// Whether the log epoch may be read again now; taking the turn.
    pub fn may_check_epoch(&mut self) -> bool {
        let recent = self.epoch_checked.is_some_and(|at| at.elapsed().as_secs() < 1);
        if !recent {
            self.epoch_checked = Some(Instant::now());
        }
        !recent
    }

    fn epoch_read(&mut self, state: Result<ShardState, StoreError>) {
        match state {
            Ok(state) => self.fence(&state),
            Err(error) => {
                tracing::info!(
                    shard = %self.context.shard,
                    error = &error as &dyn Error,
                    "reading the log epoch failed"
                )
            }
        }
    }

    /// Ends this owner if a higher log epoch stands.
    pub fn fence(&mut self, state: &ShardState) {
        if state.log_epoch.epoch > self.epoch.epoch {
            self.context.counters.fenced(1);
            self.end = Some(Ended::Fenced);
        }
    }

    /// Asks every edge to announce its sessions again, at most every ten seconds.
    pub async fn ask_for_announcements(&mut self) {
        self.repeat_wanted = self.repeat_asked.is_some_and(|at| at.elapsed().as_secs() < 10);
        if self.repeat_wanted {
            return;
        }
        self.repeat_asked = Some(Instant::now());
        self.context.tell_edges().await;
    }
}
