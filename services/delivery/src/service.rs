// SPDX-License-Identifier: MIT OR Apache-2.0
//! A delivery worker: takes leases and runs one owner per shard.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use opentelemetry::metrics::Meter;
use pli_domain::{OwnerId, ShardId, ShardMap};
use pli_ports::{Clock, DeviceQueues, Lease, Leases, ShardLog, Signals};
use pli_runtime::Trail;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::config::Config;
use crate::error::DeliveryError;
use crate::metrics::Counters;
use crate::owner::Owner;
use crate::share::Share;

/// What runs beside the owner of a shard, on the same lease.
pub trait Beside: Send + Sync + 'static {
    /// Works for `shard` until `stop`. Dropping the future is a crash, after which nothing is lost.
    fn run(&self, shard: ShardId, stop: CancellationToken) -> BoxFuture<'static, ()>;
}

/// What delivery stands on.
#[derive(Clone)]
pub struct DeliveryPorts {
    /// The shard logs.
    pub log: Arc<dyn ShardLog>,
    /// The bus.
    pub signals: Arc<dyn Signals>,
    /// Who works on a shard.
    pub leases: Arc<dyn Leases>,
    /// Rows, registers and shard states.
    pub queues: Arc<dyn DeviceQueues>,
    /// Server time, for expiry.
    pub clock: Arc<dyn Clock>,
    /// Where hops and spans of messages go.
    pub trail: Trail,
    /// What runs beside each owner: the fan-out worker.
    pub beside: Option<Arc<dyn Beside>>,
}

/// A delivery worker over all shards of a cluster.
pub struct Delivery {
    ports: DeliveryPorts,
    shards: ShardMap,
    config: Arc<Config>,
    counters: Arc<Counters>,
    id: OwnerId,
    seed: u64,
}

impl Delivery {
    /// A worker that has not begun. `seed` feeds its id and the jitter of its waits.
    pub fn new(ports: DeliveryPorts, shards: ShardMap, config: Config, meter: &Meter, seed: u64) -> Self {
        let counters = Arc::new(Counters::default());
        counters.export(meter);
        let id = OwnerId::from_bytes(ChaCha8Rng::seed_from_u64(seed).random());
        ports.trail.hops.introduce("delivery", id.as_bytes());
        Self { ports, shards, config: Arc::new(config), counters, id, seed }
    }

    /// What the worker counts; stays readable while and after it runs.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Takes its share of the leases and runs the owners until `stop`; then each owner settles what it can, leaves a
    /// release mark and gives its lease back. Workers that come and go change the share; a shard too many is handed over
    /// in order. Dropping the future instead is a crash.
    pub async fn run(self, stop: CancellationToken) -> Result<(), DeliveryError> {
        self.config.check()?;
        let mut tasks = JoinSet::new();
        let share = Arc::new(Share::new(self.shards.count()));
        let attending = share.clone().attend(self.ports.leases.clone(), self.id, self.config.clone(), self.seed);
        let attending = AbortOnDropHandle::new(tokio::spawn(attending));
        for shard in self.shards.shards() {
            let work = ShardWork {
                shard,
                ports: self.ports.clone(),
                config: self.config.clone(),
                counters: self.counters.clone(),
                id: self.id,
                share: share.clone(),
                rng: ChaCha8Rng::seed_from_u64(self.seed ^ (u64::from(shard.get()) << 32)),
            };
            tasks.spawn(work.run(stop.clone()));
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                stop.cancel();
                while tasks.join_next().await.is_some() {}
                return Err(DeliveryError::Panicked(error));
            }
        }
        drop(attending);
        if let Err(error) = self.ports.leases.leave(self.id).await {
            tracing::info!(error = &error as &dyn Error, "the other workers will notice by themselves");
        }
        Ok(())
    }
}

/// One shard's loop: lease, owner, again.
struct ShardWork {
    shard: ShardId,
    ports: DeliveryPorts,
    config: Arc<Config>,
    counters: Arc<Counters>,
    id: OwnerId,
    share: Arc<Share>,
    rng: ChaCha8Rng,
}

impl ShardWork {
    async fn run(mut self, stop: CancellationToken) {
        let mut failures = 0u32;
        while !stop.is_cancelled() {
            if let Some(lease) = self.ask().await {
                let ended = self.own(lease, &stop).await;
                self.share.give_back(ended == Ended::HandedOver);
                failures = if ended == Ended::Failed { failures.saturating_add(1) } else { 0 };
            }
            let pause = self.pause(failures);
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.share.freed(self.shard), if failures == 0 => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// The lease, if this worker may own another shard and nobody else holds this one.
    async fn ask(&mut self) -> Option<Lease> {
        let place = self.share.take(self.shard, &mut self.rng)?;
        match self.ports.leases.acquire(self.shard, self.id, self.config.lease_ttl()).await {
            Ok(Some(lease)) => {
                place.keep();
                self.counters.leases_taken(1);
                Some(lease)
            }
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(shard = %self.shard, error = &error as &dyn Error, "asking for a lease failed");
                None
            }
        }
    }

    /// A renewal interval with jitter; after failures of the owner it doubles up to the bound of starts.
    fn pause(&mut self, failures: u32) -> Duration {
        let base = self.config.lease_renew().saturating_mul(1 << failures.min(10));
        let most = base.min(self.config.start_backoff_max()).max(self.config.lease_renew());
        most.mul_f64(self.rng.random_range(0.5..1.0))
    }

    /// Runs the owner while the lease holds and the shard is no surplus.
    async fn own(&mut self, lease: Lease, stop: &CancellationToken) -> Ended {
        let stop_owner = stop.child_token();
        let seed = self.rng.random();
        let owner = Owner::new(self.shard, self.ports.clone(), self.config.clone(), self.counters.clone(), seed);
        let beside = self
            .ports
            .beside
            .clone()
            .map(|beside| AbortOnDropHandle::new(tokio::spawn(beside.run(self.shard, stop_owner.clone()))));
        let mut running = AbortOnDropHandle::new(tokio::spawn(owner.run(stop_owner.clone())));
        let mut left = None;
        let failed = tokio::select! {
            biased;
            ended = &mut running => report(self.shard, ended),
            lost = self.keep(&lease) => {
                left = Some(lost);
                match lost {
                    Left::Lost => tracing::warn!(shard = %self.shard, "the lease is lost"),
                    Left::Surplus => tracing::info!(shard = %self.shard, "handed over to a worker with fewer shards"),
                }
                stop_owner.cancel();
                report(self.shard, running.await)
            }
        };
        drop(beside);
        let released = self.ports.leases.release(&lease).await;
        if let Err(error) = &released {
            tracing::info!(
                shard = %self.shard,
                error = error as &dyn Error,
                "the lease was not given back; it expires by itself"
            );
        }
        self.count_move(left, released.is_ok());
        match (left, failed) {
            (Some(Left::Surplus), _) => Ended::HandedOver,
            (_, true) => Ended::Failed,
            (_, false) => Ended::InOrder,
        }
    }

    fn count_move(&self, left: Option<Left>, released: bool) {
        match left {
            Some(Left::Lost) => self.counters.leases_lost(1),
            Some(Left::Surplus) => self.counters.leases_handed_over(1),
            None if released => self.counters.leases_given_back(1),
            None => {}
        }
    }

    /// Renews until the lease is lost, or may be because no renewal got through for its whole life, or until this worker
    /// owns more than its share.
    async fn keep(&self, lease: &Lease) -> Left {
        let mut renewed = Instant::now();
        loop {
            sleep(self.config.lease_renew()).await;
            if self.share.is_surplus() {
                return Left::Surplus;
            }
            match self.ports.leases.renew(lease, self.config.lease_ttl()).await {
                Ok(true) => renewed = Instant::now(),
                Ok(false) => return Left::Lost,
                Err(error) => {
                    tracing::warn!(shard = %self.shard, error = &error as &dyn Error, "renewing a lease failed");
                    if renewed.elapsed() >= self.config.lease_ttl() {
                        return Left::Lost;
                    }
                }
            }
        }
    }
}

/// How owning a shard ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    InOrder,
    Failed,
    HandedOver,
}

/// Why an owner ends although nobody stops the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Lost,
    Surplus,
}

type Outcome = Result<Result<(), crate::error::OwnerError>, tokio::task::JoinError>;

fn report(shard: ShardId, ended: Outcome) -> bool {
    match ended {
        Ok(Ok(())) => false,
        Ok(Err(error)) => {
            tracing::error!(%shard, error = &error as &dyn Error, "an owner ended; it is started again later");
            true
        }
        Err(error) => {
            tracing::error!(%shard, %error, "an owner's task panicked; it is started again later");
            true
        }
    }
}
