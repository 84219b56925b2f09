// SPDX-License-Identifier: MIT OR Apache-2.0
//! Configuration, telemetry, health, rate limits and shutdown, the same for every role.
//!
//! Nothing here knows a service. [`load`] merges a configuration, [`Telemetry`] makes meters whose figures the admin
//! port shows, [`Trail`] remembers and traces the way of messages, [`Health`] collects what each dependency says of itself, [`AdminServer`] serves both, [`AdminClient`] asks one, [`limits`]
//! counts what a key may do in a while, and [`Shutdown`] turns signals into two tokens: stop taking work, and stop.

mod admin;
mod build;
mod config;
mod health;
pub mod limits;
mod logs;
mod secret;
mod shutdown;
mod telemetry;
pub mod trail;

pub use admin::{AdminAnswer, AdminAskError, AdminClient, AdminError, AdminServer};
pub use build::BuildInfo;
pub use config::{ConfigError, Sources, load};
pub use health::{Dependency, DependencyState, Health, HealthReport};
pub use logs::{LogError, LogFormat, LogsConfig, init_logs};
pub use secret::Secret;
pub use shutdown::Shutdown;
pub use telemetry::{LATENCY_SECONDS, Telemetry, TelemetryError};
pub use trail::{TelemetryConfig, Trail};
