// SPDX-License-Identifier: MIT OR Apache-2.0
//! Broken stores of rendezvous.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use pli_domain::{DeviceAddress, NoPlace, NotAdmitted, Party, RendezvousId, SecretHash, UnixMillis};
use pli_ports::{
    Access, GetBlobError, JoinRendezvousError, Links, NewRendezvous, OpenRendezvousError, PutBlobError, StoreError,
};
use pli_testkit::conformance;
use pli_testkit::memory::{MemoryLinks, MemoryWorld};

use super::caught;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    EverybodyJoins,
    SecondApproverReads,
    NobodyNeedsToJoin,
    BlobReplaced,
    HolesAllowed,
    NinthBlobAccepted,
    LifeStartsAgain,
    NeverOver,
    AbsenceTold,
    OwnBlobRead,
    IdOpenedTwice,
    BlobTakenByReading,
    EmptyBlobAccepted,
    LimitIgnored,
}

struct BrokenLinks {
    links: MemoryLinks,
    fault: Fault,
    /// The approver that the store knows, by whom others are let in.
    joined: Mutex<Option<DeviceAddress>>,
    read: Mutex<Vec<(RendezvousId, u8)>>,
}

impl BrokenLinks {
    /// Who asks, as the broken store sees it.
    fn seen(&self, mut access: Access) -> Access {
        if self.fault == Fault::NeverOver {
            access.now = UnixMillis(0);
        }
        if let (Fault::EverybodyJoins | Fault::SecondApproverReads, Party::Approver(secret, _), Some(joined)) =
            (self.fault, access.party, *self.joined.lock().expect("no panic"))
        {
            access.party = Party::Approver(secret, joined);
        }
        access
    }

    /// What is not told by a right store.
    fn told(&self, why: NotAdmitted) -> NotAdmitted {
        match self.fault {
            Fault::AbsenceTold if why == NotAdmitted::Gone => NotAdmitted::NotJoined,
            _ => why,
        }
    }
}

#[async_trait]
impl Links for BrokenLinks {
    async fn open_rendezvous(
        &self,
        rendezvous: NewRendezvous,
        now: UnixMillis,
    ) -> Result<UnixMillis, OpenRendezvousError> {
        match self.links.open_rendezvous(rendezvous, now).await {
            Ok(_) if self.fault == Fault::LifeStartsAgain => Ok(rendezvous.expires_at),
            Err(OpenRendezvousError::IdTaken) if self.fault == Fault::IdOpenedTwice => Ok(rendezvous.expires_at),
            answer => answer,
        }
    }

    async fn join_rendezvous(
        &self,
        id: RendezvousId,
        (secret, device): (SecretHash, DeviceAddress),
        now: UnixMillis,
    ) -> Result<UnixMillis, JoinRendezvousError> {
        let now = if self.fault == Fault::NeverOver { UnixMillis(0) } else { now };
        match self.links.join_rendezvous(id, (secret, device), now).await {
            Err(JoinRendezvousError::NotAdmitted(NotAdmitted::Taken)) if self.fault == Fault::EverybodyJoins => {
                Ok(UnixMillis(0))
            }
            Err(JoinRendezvousError::NotAdmitted(why)) => Err(self.told(why).into()),
            Ok(end) => {
                *self.joined.lock().expect("no panic") = Some(device);
                Ok(end)
            }
            answer => answer,
        }
    }

    async fn put_blob(&self, access: Access, number: u8, blob: Bytes) -> Result<(), PutBlobError> {
        if blob.is_empty() && self.fault == Fault::EmptyBlobAccepted {
            return Ok(());
        }
        match self.links.put_blob(self.seen(access), number, blob).await {
            Err(PutBlobError::Conflict) if self.fault == Fault::BlobReplaced => Ok(()),
            Err(PutBlobError::NoPlace(NoPlace::Order { .. })) if self.fault == Fault::HolesAllowed => Ok(()),
            Err(PutBlobError::NoPlace(NoPlace::Full)) if self.fault == Fault::NinthBlobAccepted => Ok(()),
            Err(PutBlobError::NotAdmitted(NotAdmitted::NotJoined)) if self.fault == Fault::NobodyNeedsToJoin => Ok(()),
            Err(PutBlobError::NotAdmitted(why)) => Err(self.told(why).into()),
            answer => answer,
        }
    }

    async fn blob(&self, access: Access, number: u8) -> Result<Option<Bytes>, GetBlobError> {
        let found = match self.links.blob(self.seen(access), number).await {
            Err(GetBlobError::NotAdmitted(NotAdmitted::NotJoined)) if self.fault == Fault::NobodyNeedsToJoin => None,
            Err(GetBlobError::NotAdmitted(why)) => return Err(self.told(why).into()),
            answer => answer?,
        };
        if self.fault == Fault::OwnBlobRead && found.is_none() && number == 1 {
            return Ok(Some(Bytes::from_static(b"one's own")));
        }
        if self.fault == Fault::BlobTakenByReading && found.is_some() {
            let mut read = self.read.lock().expect("no panic");
            let before = read.contains(&(access.id, number));
            read.push((access.id, number));
            return Ok(found.filter(|_| !before));
        }
        Ok(found)
    }

    async fn expire_rendezvous(&self, now: UnixMillis, limit: u32) -> Result<u32, StoreError> {
        let limit = if self.fault == Fault::LimitIgnored { u32::MAX } else { limit };
        self.links.expire_rendezvous(now, limit).await
    }
}

#[tokio::test(start_paused = true)]
async fn broken_links_are_caught() {
    for (fault, expected) in [
        (Fault::EverybodyJoins, "a_second_approver_is_refused"),
        (Fault::EverybodyJoins, "racing_approvers_join_once"),
        (Fault::SecondApproverReads, "a_second_approver_is_refused"),
        (Fault::NobodyNeedsToJoin, "a_device_that_has_not_joined_is_told_so"),
        (Fault::BlobReplaced, "other_bytes_under_a_number_are_refused"),
        (Fault::BlobReplaced, "racing_blobs_of_one_number_are_written_once"),
        (Fault::HolesAllowed, "a_blob_that_does_not_follow_is_refused"),
        (Fault::NinthBlobAccepted, "a_ninth_blob_is_refused"),
        (Fault::NinthBlobAccepted, "racing_sides_put_no_ninth_blob"),
        (Fault::LifeStartsAgain, "opening_again_is_answered_as_the_first_time"),
        (Fault::NeverOver, "everything_is_over_at_its_end"),
        (Fault::NeverOver, "what_was_never_opened_answers_as_what_is_over"),
        (Fault::AbsenceTold, "a_wrong_secret_answers_as_nothing"),
        (Fault::AbsenceTold, "what_was_never_opened_answers_as_what_is_over"),
        (Fault::OwnBlobRead, "rendezvous_are_apart"),
        (Fault::IdOpenedTwice, "an_id_is_for_one_opening"),
        (Fault::BlobTakenByReading, "blobs_of_both_sides_arrive_in_order"),
        (Fault::EmptyBlobAccepted, "a_blob_outside_its_bound_is_refused"),
        (Fault::LimitIgnored, "expired_rendezvous_are_forgotten_within_a_limit"),
    ] {
        let open = move |world: &MemoryWorld| {
            let (joined, read) = (Mutex::default(), Mutex::default());
            Arc::new(BrokenLinks { links: world.links(), fault, joined, read }) as Arc<dyn Links>
        };
        caught(conformance::links::CASES, expected, open).await;
    }
}
