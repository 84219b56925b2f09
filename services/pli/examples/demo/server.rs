// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the people talk through: one process, or a cluster.

mod apart;
mod single;

use std::path::Path;
use std::time::Duration;

use pli_client::{Fingerprint, ServerAddress};
use pli_runtime::AdminClient;

pub use apart::{Apart, Size};
pub use single::Single;

/// Metrics are there by then.
const METRICS_WITHIN: Duration = Duration::from_secs(10);

/// Which server to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Every role in one process.
    Single,
    /// Every role apart.
    Cluster(Size),
}

/// A running server.
pub enum Server {
    /// Every role in one process.
    Single(Box<Single>),
    /// Every role apart.
    Cluster(Box<Apart>),
}

impl Server {
    /// Starts it in a fresh folder.
    pub async fn start(kind: Kind, folder: &Path) -> anyhow::Result<Self> {
        match kind {
            Kind::Single => {
                let single = Single::start(&folder.join("data")).await?;
                println!("server at {}, ready after {} ms", single.address, single.took.as_millis());
                Ok(Self::Single(Box::new(single)))
            }
            Kind::Cluster(size) => Ok(Self::Cluster(Box::new(Apart::start(size, folder).await?))),
        }
    }

    /// Where the device with this number connects first, and where else.
    pub fn addresses(&self, device: usize) -> anyhow::Result<(ServerAddress, Vec<ServerAddress>)> {
        match self {
            Self::Single(single) => Ok((single.address.clone(), Vec::new())),
            Self::Cluster(apart) => apart.addresses(device),
        }
    }

    /// The certificate.
    pub fn fingerprint(&self) -> anyhow::Result<Fingerprint> {
        match self {
            Self::Single(single) => Ok(single.fingerprint),
            Self::Cluster(apart) => apart.fingerprint(),
        }
    }

    /// The one process that can be killed.
    pub fn single(&mut self) -> anyhow::Result<&mut Single> {
        match self {
            Self::Single(single) => Ok(single),
            Self::Cluster(_) => anyhow::bail!("a cluster is not one process"),
        }
    }

    /// The processes that can be broken.
    pub fn apart(&mut self) -> anyhow::Result<&mut Apart> {
        match self {
            Self::Single(_) => anyhow::bail!("one process is no cluster"),
            Self::Cluster(apart) => Ok(apart),
        }
    }

    /// How many commits the conversations service has decided with this outcome since its last start.
    pub async fn commits(&self, outcome: &str) -> anyhow::Result<u64> {
        let label = format!("outcome=\"{outcome}\"");
        self.counted("pli_conversations_commits_total{", |line| line.contains(&label)).await
    }

    /// How many decided commits somebody else than the call that decided them has finished since its last start.
    pub async fn left_behind(&self) -> anyhow::Result<u64> {
        self.counted("pli_conversations_commits_finished_total{", |line| !line.contains("by=\"committer\"")).await
    }

    /// The sum of a counter's series that are `ours`, over all processes with conversations.
    async fn counted(&self, name: &str, ours: impl Fn(&str) -> bool) -> anyhow::Result<u64> {
        let admins = match self {
            Self::Single(single) => vec![single.admin.to_string()],
            Self::Cluster(apart) => apart.conversations(),
        };
        let mut sum = 0;
        for admin in admins {
            sum += counter(&admin, name, &ours).await?;
        }
        Ok(sum)
    }

    /// Ends it; an error where something of it had ended by itself, or did not end as it should.
    pub async fn end(self) -> anyhow::Result<()> {
        match self {
            Self::Single(mut single) => {
                anyhow::ensure!(!single.ended(), "the server ended by itself");
                single.kill().await
            }
            Self::Cluster(apart) => apart.end().await,
        }
    }
}

/// The sum of the series that begin so and are `ours`, as an admin port tells them.
async fn counter(admin: &str, begins: &str, ours: impl Fn(&str) -> bool) -> anyhow::Result<u64> {
    let said = AdminClient::new(admin).patience(METRICS_WITHIN).text("/metrics").await?;
    let lines = said.lines().filter(|line| line.starts_with(begins) && ours(line));
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
}
