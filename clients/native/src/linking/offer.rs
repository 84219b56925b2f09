// SPDX-License-Identifier: MIT OR Apache-2.0
//! The new device's side.

use bytes::Bytes;
use pli_client_core::linking::{Joining, LinkCode, LinkError, NewDevice, WITHDRAWN};
use pli_domain::{AccountId, Handle};
use tokio::time::Instant;

use super::meeting::{Meeting, Servers, Stranger};
use super::{LinkFailure, profile_mark, proof};
use crate::Connector;
use crate::client::{ClientOptions, pin};
use crate::driver::now;
use crate::history::Rows;
use crate::profile::{self, Profile};

/// A new device that shows its code.
pub struct NewLink {
    new: NewDevice,
    meeting: Meeting<Stranger>,
    rows: Rows,
    asked: Handle,
    /// Blob 2, of whoever has read the code.
    answer: Option<Bytes>,
}

impl std::fmt::Debug for NewLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewLink({:?})", self.new)
    }
}

impl NewLink {
    /// Opens a rendezvous and puts blob 1 there; `name` is what the account calls this device. The profile is held until
    /// the link has ended. Nothing of the link is waited for longer than `by`, where that comes before the end of the code.
    pub async fn open(options: &ClientOptions, name: &str, by: Option<Instant>) -> Result<Self, LinkFailure> {
        let new = NewDevice::begin(&options.server.to_string(), name, rand::random())?;
        let folder = profile::folder(&options.home, &options.server, &options.name);
        let profile = Profile::lock(&folder)?;
        let pin = pin(&profile, options.fingerprint)?;
        let rows = Rows::new(profile.store()?);
        let connector = Connector::new(pin, options.transport).quic_port(options.quic_port);
        let connector = connector.remembering(&profile.ways());
        let stranger = Stranger::new(Servers::new(options, connector), profile);
        let mut meeting = Meeting::open(stranger, &new, by).await?;
        meeting.put(1, new.hello()).await?;
        Ok(Self { new, meeting, rows, asked: options.name.handle.clone(), answer: None })
    }

    /// What it shows.
    pub fn code(&self) -> &LinkCode {
        self.new.code()
    }

    /// When the code expires.
    pub const fn deadline(&self) -> Instant {
        self.meeting.deadline()
    }

    /// Waits until somebody has read the code. Cancel safe.
    pub async fn is_read(&mut self) -> Result<(), LinkFailure> {
        if self.answer.is_none() {
            let answer = self.meeting.wait(1).await.map_err(|error| match error {
                LinkFailure::NotWaited => LinkFailure::NotRead,
                error => error,
            })?;
            self.answer = Some(answer);
        }
        Ok(())
    }

    /// Nobody is to read the code any more: whoever does is told so at once.
    pub async fn withdraw(mut self) -> Result<(), LinkFailure> {
        self.meeting.put_last(2, WITHDRAWN).await
    }

    /// Waits for whoever reads the code.
    pub async fn offered(mut self) -> Result<Offer, LinkFailure> {
        self.is_read().await?;
        let blob = self.answer.take().unwrap_or_default();
        let joining = self.new.offered(&blob)?;
        let mut offer = Offer { joining, meeting: self.meeting, rows: self.rows };
        if offer.joining.handle() != &self.asked {
            let came = offer.joining.handle().clone();
            let blob = offer.joining.decline();
            // Whether or not the other side hears of it.
            let _ = offer.meeting.put(2, &blob).await;
            return Err(LinkFailure::OtherAccount { asked: self.asked, came });
        }
        Ok(offer)
    }
}

/// It knows whose device it would be.
pub struct Offer {
    joining: Joining,
    meeting: Meeting<Stranger>,
    rows: Rows,
}

impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Offer({:?})", self.joining)
    }
}

impl Offer {
    /// Which account.
    pub const fn account(&self) -> AccountId {
        self.joining.account()
    }
    /// What it is called.
    pub const fn handle(&self) -> &Handle {
        self.joining.handle()
    }
    /// Six digits that the other device shows too.
    pub fn number(&self) -> String {
        self.joining.number()
    }

    /// Returns once the link is over without this side, while its person is asked: most often because the first device said
    /// no, at the latest when the code ends. Cancel safe.
    pub async fn is_over(&mut self) -> LinkFailure {
        match self.meeting.wait(2).await {
            Ok(blob) => match self.joining.refused(&blob) {
                Ok(why) => LinkError::Refused(why).into(),
                Err(error) => error.into(),
            },
            Err(LinkFailure::NotWaited) => LinkFailure::NotAnswered { nor_there: false },
            Err(error) => error,
        }
    }

    /// The person said no; the first device hears of it at once.
    pub async fn decline(mut self) -> Result<(), LinkFailure> {
        let blob = self.joining.decline();
        self.meeting.put_last(2, &blob).await
    }

    /// The person said yes. On return this is a device of the account, durably, and the profile can be opened; the server has
    /// said that the account is the one with the handle. Where it says another, nothing is kept.
    pub async fn accept(self) -> Result<(), LinkFailure> {
        let Self { joining, mut meeting, rows } = self;
        let (mut core, changes, consented) = joining.accept(rand::random(), now())?;
        let server_time = meeting.caller.server_time().await.map_err(LinkFailure::of_call)?;
        let left = meeting.deadline().saturating_duration_since(Instant::now());
        // From blob 3 on it may be listed at any moment, whatever becomes of this process.
        let shared = crate::handover::shared(core.address().device, &consented.history_secret());
        rows.commit_with(changes, vec![profile_mark::begins(server_time.after(left)), shared]).await?;
        meeting.put(2, consented.blob()).await?;
        let blob = meeting.wait(2).await?;
        let listed = match consented.listed(&blob) {
            Ok(listed) => listed,
            Err(error) => {
                // It will not be listed: nothing happened.
                if matches!(error, LinkError::Refused(_)) {
                    rows.clear().await?;
                }
                return Err(error.into());
            }
        };
        let changes = core.linked(listed.list()).map_err(LinkError::List)?;
        rows.commit_with(changes, Vec::new()).await?;
        // It is linked, whether or not the other side hears that it knows.
        if let Err(error) = meeting.put(3, listed.blob()).await {
            tracing::debug!(%error, "the last blob was not put");
        }
        let (mut servers, _profile) = meeting.caller.into_parts();
        match Box::pin(proof::ask(&mut core, &mut servers)).await {
            Ok(proof::Answer::Listed) => {}
            Ok(proof::Answer::Refused(why)) => {
                // The account that was joined is none of this server's.
                rows.clear().await?;
                return Err(LinkFailure::Refused(Box::new(why)));
            }
            Err(error) => {
                if matches!(error, LinkFailure::Link(_)) {
                    rows.clear().await?;
                }
                return Err(error);
            }
        }
        Ok(rows.commit_with(pli_client_core::ChangeSet::default(), vec![profile_mark::finished()]).await?)
    }
}
