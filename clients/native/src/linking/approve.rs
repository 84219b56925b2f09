// SPDX-License-Identifier: MIT OR Apache-2.0
//! The first device's side.

use std::time::Duration;

use pli_api::directory::SignedDeviceList;
use pli_client_core::linking::{Approver, Approving, LinkCode, Newcomer, Refusal, Told};
use pli_client_core::{ChangeSet, Command, CommandError};
use pli_domain::DeviceId;
use tokio::time::{Instant, interval};

use super::LinkFailure;
use super::meeting::Meeting;
use crate::Client;

/// How often is looked whether the directory has the list.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A new device was met, and a person is asked.
pub struct Approval {
    client: Client,
    approving: Approving,
    meeting: Meeting<Client>,
}

impl std::fmt::Debug for Approval {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Approval({:?})", self.approving)
    }
}

/// A new device is in the account's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approved {
    /// Which.
    pub device: DeviceId,
    /// What it is called.
    pub name: String,
    /// It said that it knows; where it did not in time, it learns it when it is started again.
    pub confirmed: bool,
}

impl Client {
    /// Meets the new device that showed this code. The client must be online for it.
    pub async fn meet_new_device(&self, code: LinkCode) -> Result<Approval, LinkFailure> {
        let (place, hosts) = (code.rendezvous(), self.hosts().to_vec());
        let approver = self.query(move |core| Approver::begin(code, core, &hosts)).await??;
        let mut meeting = Meeting::join(self.clone(), &place).await?;
        let blob = meeting.wait(1).await?;
        let approving = approver.greeted(&blob, rand::random())?;
        meeting.put(1, approving.blob()).await?;
        Ok(Approval { client: self.clone(), approving, meeting })
    }
}

impl Approval {
    /// What the new device is called.
    pub fn name(&self) -> &str {
        self.approving.name()
    }
    /// Six digits that the new device shows too.
    pub fn number(&self) -> String {
        self.approving.number()
    }
    /// When it is too late.
    pub const fn deadline(&self) -> Instant {
        self.meeting.deadline()
    }

    /// Waits for the new device's consent.
    async fn consent(self) -> Result<(Client, Newcomer, Meeting<Client>), LinkFailure> {
        let Self { client, approving, mut meeting } = self;
        let blob = meeting.wait(2).await?;
        let newcomer = client.query(move |core| approving.consented(&blob, core)).await??;
        Ok((client, newcomer, meeting))
    }

    /// The person said no; the new device is told as soon as its own person has answered.
    pub async fn decline(self) -> Result<(), LinkFailure> {
        let (_, newcomer, mut meeting) = self.consent().await?;
        meeting.put(2, &newcomer.refused(Refusal::Declined)).await
    }

    /// The person said yes. On return the device is in the account's list.
    pub async fn approve(self) -> Result<Approved, LinkFailure> {
        let (client, newcomer, mut meeting) = self.consent().await?;
        let (device, key, name) = (newcomer.device(), newcomer.key(), newcomer.name().to_owned());
        // Before it can be listed: what is not shared now never is.
        let shared = vec![crate::handover::shared(device, &newcomer.history_secret())];
        client.rows().commit_with(ChangeSet::default(), shared).await?;
        let command = Command::AddDevice { device, key, name: name.clone() };
        if let Err(error) = client.command(command).await {
            let error = LinkFailure::from(error);
            let why = match &error {
                LinkFailure::Command(CommandError::TooManyDevices) => Refusal::TooManyDevices,
                _ => Refusal::Failed,
            };
            let _ = meeting.put(2, &newcomer.refused(why)).await;
            return Err(error);
        }
        let list = match listed(&client, device, meeting.deadline()).await {
            Err(LinkFailure::Waits) => {
                // The new device gives up too: it must not be listed later, when nobody has its keys.
                client.command(Command::RemoveDevice { device }).await?;
                return Err(LinkFailure::Waits);
            }
            list => list?,
        };
        let Some(list) = list else {
            let _ = meeting.put(2, &newcomer.refused(Refusal::Failed)).await;
            return Err(LinkFailure::NotListed);
        };
        let (verdict, told) = newcomer.listed(list);
        let confirmed = confirm(&mut meeting, verdict, told).await;
        if let Err(error) = &confirmed {
            tracing::debug!(%error, "the new device did not say that it knows");
        }
        Ok(Approved { device, name, confirmed: confirmed.is_ok() })
    }
}

async fn confirm(meeting: &mut Meeting<Client>, verdict: Vec<u8>, told: Told) -> Result<(), LinkFailure> {
    meeting.put(2, &verdict).await?;
    let blob = meeting.wait(3).await?;
    Ok(told.stored(&blob)?)
}

/// The list that names the device, once the directory has it; none where it was refused.
async fn listed(client: &Client, device: DeviceId, by: Instant) -> Result<Option<SignedDeviceList>, LinkFailure> {
    let mut look = interval(LOOK_EVERY);
    while Instant::now() < by {
        look.tick().await;
        let (list, waits) = client.query(move |core| (core.list_with(device), core.list_change_waits(device))).await?;
        if list.is_some() || !waits {
            return Ok(list);
        }
    }
    Err(LinkFailure::Waits)
}
