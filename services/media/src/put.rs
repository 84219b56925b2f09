// SPDX-License-Identifier: MIT OR Apache-2.0
//! PutPart.

use bytes::Bytes;
use pli_api::Caller;
use pli_api::media::{PutPartRequest, PutPartResponse};
use pli_domain::{NoUpload, PartHash};
use pli_ports::{PutPartError, Retry};
use sha2::{Digest, Sha256};

use crate::blobs::Place;
use crate::error::{InvalidField, PutError, Unfit};
use crate::service::Inner;

impl Inner {
    /// Puts one part: its object first, then the note that it is there.
    pub(crate) async fn put(&self, caller: Caller, request: PutPartRequest) -> Result<PutPartResponse, PutError> {
        let key = self.admit(&caller, &request.upload).await?;
        let (now, number) = (self.ports.clock.now(), request.number);
        let upload = self.ports.media.upload(key, now).await.map_err(Unfit::from)?.ok_or(NoUpload);
        let upload = upload.map_err(PutPartError::from)?;
        let wanted = upload.part_bytes(number).map_err(PutPartError::from)?;
        let hash = checked(wanted, &request).map_err(Unfit::from)?;
        let noted = self.ports.media.part(key, number, now).await.map_err(Unfit::from)?;
        if noted.is_some_and(|noted| noted != hash) {
            return Err(PutPartError::Conflict.into());
        }
        let place = Place { key, expires_at: upload.expires_at, number, hash };
        self.blobs.put(&place, request.part).await.map_err(Unfit::from)?;
        let put = self.ports.media.put_part(key, number, hash, now).await;
        let unnamed = match &put {
            Err(PutPartError::Conflict | PutPartError::NoUpload(_)) => true,
            // No room for the note: what nothing counts must not take the room of others.
            Err(PutPartError::Store(error)) => noted.is_none() && error.retry == Retry::Room,
            _ => false,
        };
        if unnamed {
            // What is left of it goes with its day.
            let _ = self.blobs.delete(&place).await;
        }
        put?;
        self.metrics.bytes_put.add(wanted, &[]);
        Ok(PutPartResponse {})
    }
}

/// The hash of the part, if it is what the request says and as long as it must be.
fn checked(wanted: u64, request: &PutPartRequest) -> Result<PartHash, InvalidField> {
    let bytes = request.part.len() as u64;
    if bytes != wanted {
        return Err(InvalidField::Part { bytes, wanted });
    }
    let hash = hash_of(&request.part);
    if request.sha256.len() != 32 {
        return Err(InvalidField::Sha256);
    }
    if request.sha256.as_ref() != hash.as_bytes() {
        return Err(InvalidField::OtherHash);
    }
    Ok(hash)
}

pub(crate) fn hash_of(part: &Bytes) -> PartHash {
    PartHash::from_bytes(Sha256::digest(part).into())
}
