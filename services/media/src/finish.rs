// SPDX-License-Identifier: MIT OR Apache-2.0
//! FinishUpload.

use pli_api::Caller;
use pli_api::media::{FinishUploadRequest, FinishUploadResponse};
use pli_domain::NoUpload;
use pli_ports::FinishUploadError;

use crate::error::{FinishError, Unfit};
use crate::service::Inner;

impl Inner {
    /// Makes an upload readable. Looks at the objects too: a part that a disk has lost is told while the device that has
    /// it is still there to put it again.
    pub(crate) async fn finish(
        &self,
        caller: Caller,
        request: FinishUploadRequest,
    ) -> Result<FinishUploadResponse, FinishError> {
        let key = self.admit(&caller, &request.upload).await?;
        let now = self.ports.clock.now();
        let upload = self.ports.media.upload(key, now).await.map_err(Unfit::from)?.ok_or(NoUpload);
        let upload = upload.map_err(FinishUploadError::from)?;
        if let Some(number) = self.there(key, &upload).await?.first_missing() {
            return Err(FinishUploadError::Missing { number }.into());
        }
        self.ports.media.finish_upload(key, now).await?;
        self.metrics.finished.add(1, &[]);
        Ok(FinishUploadResponse {})
    }
}
