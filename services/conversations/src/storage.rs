// SPDX-License-Identifier: MIT OR Apache-2.0
//! What openmls writes of one public group, caught and given back. Values are CBOR: self-describing, so that fields
//! which a later openmls adds with a default can still be read.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use openmls_traits::public_storage::PublicStorageProvider;
use openmls_traits::storage::{CURRENT_VERSION, traits};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::record::GroupRecord;

/// A value that does not encode or decode.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    #[error("public group state does not encode: {0}")]
    Encode(#[from] ciborium::ser::Error<std::io::Error>),
    #[error("public group state does not decode: {0}")]
    Decode(#[from] ciborium::de::Error<std::io::Error>),
}

/// The slots of one group. Queued proposals are not kept: the service keeps proposals itself, by reference.
#[derive(Default)]
pub(crate) struct GroupStorage {
    slots: Mutex<GroupRecord>,
}

impl GroupStorage {
    pub(crate) fn new(record: GroupRecord) -> Self {
        Self { slots: Mutex::new(record) }
    }

    pub(crate) fn into_record(self) -> GroupRecord {
        self.slots.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn slots(&self) -> MutexGuard<'_, GroupRecord> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(slot: &mut Bytes, value: &impl Serialize) -> Result<(), StorageError> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes)?;
    *slot = bytes.into();
    Ok(())
}

fn read<T: DeserializeOwned>(slot: &Bytes) -> Result<Option<T>, StorageError> {
    if slot.is_empty() {
        return Ok(None);
    }
    Ok(Some(ciborium::from_reader(slot.as_ref())?))
}

/// The methods of the four slots.
macro_rules! slots {
    ($($write:ident, $read:ident, $delete:ident: $value:ident = $slot:ident;)*) => {
        $(
            fn $write<G: traits::GroupId<CURRENT_VERSION>, V: traits::$value<CURRENT_VERSION>>(
                &self, _: &G, value: &V,
            ) -> Result<(), StorageError> {
                write(&mut self.slots().$slot, value)
            }
            fn $read<G: traits::GroupId<CURRENT_VERSION>, V: traits::$value<CURRENT_VERSION>>(
                &self, _: &G,
            ) -> Result<Option<V>, StorageError> {
                read(&self.slots().$slot)
            }
            fn $delete<G: traits::GroupId<CURRENT_VERSION>>(&self, _: &G) -> Result<(), StorageError> {
                self.slots().$slot.clear();
                Ok(())
            }
        )*
    };
}

impl PublicStorageProvider<CURRENT_VERSION> for GroupStorage {
    type PublicError = StorageError;

    slots! {
        write_tree, tree, delete_tree: TreeSync = tree;
        write_context, group_context, delete_context: GroupContext = context;
        write_confirmation_tag, confirmation_tag, delete_confirmation_tag: ConfirmationTag = confirmation_tag;
        write_interim_transcript_hash, interim_transcript_hash, delete_interim_transcript_hash:
            InterimTranscriptHash = transcript_hash;
    }

    fn queue_proposal<
        G: traits::GroupId<CURRENT_VERSION>,
        R: traits::ProposalRef<CURRENT_VERSION>,
        P: traits::QueuedProposal<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
        _: &R,
        _: &P,
    ) -> Result<(), StorageError> {
        Ok(())
    }

    fn queued_proposals<
        G: traits::GroupId<CURRENT_VERSION>,
        R: traits::ProposalRef<CURRENT_VERSION>,
        P: traits::QueuedProposal<CURRENT_VERSION>,
    >(
        &self,
        _: &G,
    ) -> Result<Vec<(R, P)>, StorageError> {
        Ok(Vec::new())
    }

    fn remove_proposal<G: traits::GroupId<CURRENT_VERSION>, R: traits::ProposalRef<CURRENT_VERSION>>(
        &self,
        _: &G,
        _: &R,
    ) -> Result<(), StorageError> {
        Ok(())
    }

    fn clear_proposal_queue<G: traits::GroupId<CURRENT_VERSION>, R: traits::ProposalRef<CURRENT_VERSION>>(
        &self,
        _: &G,
    ) -> Result<(), StorageError> {
        Ok(())
    }
}
