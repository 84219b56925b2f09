// SPDX-License-Identifier: MIT OR Apache-2.0
//! Readiness, told by each dependency itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::watch;

/// What one dependency says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DependencyState {
    /// Whether it can be used.
    pub ready: bool,
    /// Why not, or what there is to know.
    pub detail: String,
}

/// The answer of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealthReport {
    /// True when every dependency is.
    pub ready: bool,
    /// By name.
    pub dependencies: BTreeMap<&'static str, DependencyState>,
}

/// What is known of one dependency.
#[derive(Debug)]
struct Known {
    state: DependencyState,
    /// It was ready at least once.
    started: bool,
}

/// Collects the states of the process's dependencies. Cheap to clone. Holds one entry per name, and names are
/// constants of the code.
#[derive(Debug, Clone)]
pub struct Health {
    states: Arc<watch::Sender<BTreeMap<&'static str, Known>>>,
}

impl Default for Health {
    fn default() -> Self {
        Self { states: Arc::new(watch::Sender::new(BTreeMap::new())) }
    }
}

impl Health {
    /// Adds a dependency that is not ready yet.
    pub fn dependency(&self, name: &'static str) -> Dependency {
        let dependency = Dependency { name, health: self.clone() };
        dependency.not_ready("starting");
        dependency
    }

    /// What is known now.
    pub fn report(&self) -> HealthReport {
        let known = self.states.borrow();
        let dependencies: BTreeMap<_, _> = known.iter().map(|(name, known)| (*name, known.state.clone())).collect();
        HealthReport { ready: dependencies.values().all(|state| state.ready), dependencies }
    }

    /// Waits until every dependency was ready at least once. One that cannot be used at the moment, because its disk is
    /// full, keeps no process from starting: acknowledgements are to be served all the same.
    pub async fn wait_started(&self) {
        // The sender lives in `self`, so the channel cannot close meanwhile.
        let _ = self.states.subscribe().wait_for(|states| states.values().all(|known| known.started)).await;
    }
}

/// The handle by which one dependency tells its state.
#[derive(Debug, Clone)]
pub struct Dependency {
    name: &'static str,
    health: Health,
}

impl Dependency {
    /// It can be used.
    pub fn ready(&self) {
        self.set(true, String::new());
    }
    /// It cannot be used, and why.
    pub fn not_ready(&self, detail: impl Into<String>) {
        self.set(false, detail.into());
    }
    fn set(&self, ready: bool, detail: String) {
        self.health.states.send_modify(|states| {
            let started = ready || states.get(self.name).is_some_and(|known| known.started);
            states.insert(self.name, Known { state: DependencyState { ready, detail }, started });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_means_every_dependency_is() {
        let health = Health::default();
        let (log, edge) = (health.dependency("log"), health.dependency("edge"));
        log.ready();
        assert!(!health.report().ready);
        let waiting = tokio::spawn({
            let health = health.clone();
            async move { health.wait_started().await }
        });
        log.not_ready("for a moment");
        edge.ready();
        waiting.await.expect("ends");
        log.not_ready("disk full");
        let report = health.report();
        assert!(!report.ready);
        assert_eq!(report.dependencies["log"].detail, "disk full");
    }
}
