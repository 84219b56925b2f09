// SPDX-License-Identifier: MIT OR Apache-2.0
//! PutBlob.

use pli_api::Caller;
use pli_api::links::{PutBlobRequest, PutBlobResponse};
use pli_domain::limits::RENDEZVOUS_BLOB_BYTES_MAX;
use pli_ports::Access;
use pli_runtime::limits::address_key;

use crate::access::{id, number, party};
use crate::error::{InvalidField, PutError};
use crate::service::Inner;

impl Inner {
    /// Puts one blob of the caller's side.
    pub(crate) async fn put(&self, caller: Caller, request: PutBlobRequest) -> Result<PutBlobResponse, PutError> {
        let id = id(&request.rendezvous)?;
        let party = party(&caller, request.side(), &request.secret)?;
        let number = number(request.number)?;
        let bytes = request.blob.len();
        if !(1..=RENDEZVOUS_BLOB_BYTES_MAX).contains(&bytes) {
            return Err(InvalidField::Blob(bytes).into());
        }
        self.limits.calls.take(&address_key(caller.address), 1)?;
        let access = Access { id, party, now: self.clock.now() };
        self.links.put_blob(access, number, request.blob).await?;
        self.metrics.blob_bytes.add(bytes as u64, &[]);
        Ok(PutBlobResponse {})
    }
}
