// SPDX-License-Identifier: MIT OR Apache-2.0
//! DeleteUpload.

use pli_api::Caller;
use pli_api::media::{DeleteUploadRequest, DeleteUploadResponse};

use crate::error::Unfit;
use crate::service::Inner;

impl Inner {
    /// Deletes an upload: from the first write on nothing of it answers; then its objects go. Where that breaks off, the
    /// same call again finds them, and the sweep does in any case.
    pub(crate) async fn delete(
        &self,
        caller: Caller,
        request: DeleteUploadRequest,
    ) -> Result<DeleteUploadResponse, Unfit> {
        let key = self.admit(&caller, &request.upload).await?;
        if let Some(upload) = self.ports.media.delete_upload(key, self.ports.clock.now()).await? {
            self.blobs.delete_upload(key, upload.expires_at).await?;
            self.metrics.deleted.add(1, &[]);
        }
        Ok(DeleteUploadResponse {})
    }
}
