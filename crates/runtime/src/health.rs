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

/// Collects the states of the process's dependencies. Cheap to clone. Holds one entry per name, and names are
/// constants of the code.
#[derive(Debug, Clone)]
pub struct Health {
    states: Arc<watch::Sender<BTreeMap<&'static str, DependencyState>>>,
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
        let dependencies = self.states.borrow().clone();
        HealthReport { ready: all_ready(&dependencies), dependencies }
    }

    /// Waits until every dependency is ready.
    pub async fn wait_ready(&self) {
        // The sender lives in `self`, so the channel cannot close meanwhile.
        let _ = self.states.subscribe().wait_for(all_ready).await;
    }
}

fn all_ready(states: &BTreeMap<&'static str, DependencyState>) -> bool {
    states.values().all(|state| state.ready)
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
            states.insert(self.name, DependencyState { ready, detail });
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
            async move { health.wait_ready().await }
        });
        edge.ready();
        waiting.await.expect("ends");
        log.not_ready("disk full");
        let report = health.report();
        assert!(!report.ready);
        assert_eq!(report.dependencies["log"].detail, "disk full");
    }
}
