// SPDX-License-Identifier: MIT OR Apache-2.0
//! The first device's side.

use std::time::Duration;

use bytes::Bytes;
use pli_api::directory::SignedDeviceList;
use pli_client_core::linking::{Approver, Approving, LinkCode, LinkError, Newcomer, Refusal, Told};
use pli_client_core::{ChangeSet, Command, CommandError};
use pli_domain::DeviceId;
use tokio::time::{Instant, interval, sleep_until};

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
    /// What the new device's person said, where that came already.
    consent: Option<Bytes>,
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
    /// Meets the new device that showed this code. The client must be online for it. Nothing of the link is waited for
    /// longer than `by`, where that comes before the end of the code.
    ///
    /// # Errors
    /// Among others [`CommandError::TooManyDevices`], of which the new device is told too.
    pub async fn meet_new_device(&self, code: LinkCode, by: Option<Instant>) -> Result<Approval, LinkFailure> {
        let (place, hosts) = (code.rendezvous(), self.hosts().to_vec());
        let approver = self.query(move |core| Approver::begin(code, core, &hosts)).await??;
        let refusal = approver.refusal();
        let mut meeting = Meeting::join(self.clone(), &place, by).await?;
        let blob = meeting.wait(1).await?;
        let approving = approver.greeted(&blob, rand::random())?;
        meeting.put(1, approving.blob()).await?;
        if let Some(why) = refusal {
            meeting.put(2, &approving.refused(why)).await?;
            return Err(LinkFailure::Command(CommandError::TooManyDevices));
        }
        Ok(Approval { client: self.clone(), approving, meeting, consent: None })
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
        let Self { client, approving, mut meeting, consent } = self;
        let blob = match consent {
            Some(blob) => blob,
            None => meeting.wait(2).await?,
        };
        let newcomer = client.query(move |core| approving.consented(&blob, core)).await??;
        Ok((client, newcomer, meeting))
    }

    /// Returns once the link is over without this side, while its person is asked: most often because the person at the new
    /// device said no, at the latest when the code ends. Cancel safe.
    pub async fn is_over(&mut self) -> LinkFailure {
        if self.consent.is_none() {
            let said = self.meeting.wait(2).await;
            match said.and_then(|blob| Ok((self.approving.is_declined(&blob)?, blob))) {
                Ok((false, blob)) => self.consent = Some(blob),
                Ok((true, _)) => return LinkError::Declined.into(),
                Err(LinkFailure::NotWaited) => return LinkFailure::NotAnswered { nor_there: true },
                Err(error) => return error,
            }
        }
        sleep_until(self.meeting.deadline()).await;
        match self.meeting.over() {
            LinkFailure::NotWaited => LinkFailure::NotAnswered { nor_there: false },
            error => error,
        }
    }

    /// The device is not let in, most often because the person said no; the new device hears of it, and why, at once.
    pub async fn decline(mut self, why: Refusal) -> Result<(), LinkFailure> {
        self.meeting.put_last(2, &self.approving.refused(why)).await
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
