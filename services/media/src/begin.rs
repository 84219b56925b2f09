// SPDX-License-Identifier: MIT OR Apache-2.0
//! BeginUpload.

use pli_api::Caller;
use pli_api::media::{BeginUploadRequest, BeginUploadResponse};
use pli_domain::Upload;

use crate::error::{BeginError, InvalidField, Unfit};
use crate::service::Inner;

impl Inner {
    /// Begins an upload, or says what is there of one that was begun.
    pub(crate) async fn begin(
        &self,
        caller: Caller,
        request: BeginUploadRequest,
    ) -> Result<BeginUploadResponse, BeginError> {
        let key = self.admit(&caller, &request.upload).await?;
        let now = self.ports.clock.now();
        let new = Upload::new(request.bytes, self.config.expires_at(now)).ok_or(InvalidField::Bytes(request.bytes));
        let new = new.map_err(Unfit::from)?;
        self.limits.begun.take(&key.account, 1).map_err(Unfit::from)?;
        let upload = self.ports.media.begin_upload(key, new, self.config.quota_bytes, now).await?;
        self.metrics.begun.add(1, &[]);
        let there = self.there(key, &upload).await.map_err(BeginError::from)?;
        Ok(BeginUploadResponse { there: there.into_bits(), left_ms: self.left_ms(upload.expires_at) })
    }
}
