// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls about uploads, each made until it is answered: all of them may be repeated.

use std::time::Duration;

use bytes::Bytes;
use pli_api::ErrorCode;
use pli_api::media::{
    BeginUploadRequest, BeginUploadResponse, DeleteUploadRequest, DeleteUploadResponse, FinishUploadRequest,
    FinishUploadResponse, GetPartRequest, GetPartResponse, GetUploadRequest, GetUploadResponse, PutPartRequest,
    PutPartResponse,
};
use pli_domain::UploadId;
use prost::Message;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep, timeout_at};

use super::HandoverError;
use crate::Client;
use crate::client::CallError;

/// Between two tries of a call that was lost.
const AGAIN_AFTER: Duration = Duration::from_millis(300);
/// The longest wait that the server may ask for at a time.
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(30);
/// So long without an answer, and the user hears of it.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// Calls about one upload.
pub(super) struct Upload<'a> {
    pub client: &'a Client,
    pub id: UploadId,
}

impl Upload<'_> {
    fn named(&self) -> Bytes {
        Bytes::copy_from_slice(self.id.as_bytes())
    }

    pub async fn begin(&self, bytes: u64) -> Result<BeginUploadResponse, HandoverError> {
        self.call("/pli.media.v1.Media/BeginUpload", &BeginUploadRequest { upload: self.named(), bytes }).await
    }

    pub async fn put(&self, number: u32, part: &[u8]) -> Result<(), HandoverError> {
        let sha256 = Bytes::copy_from_slice(&Sha256::digest(part));
        let part = Bytes::copy_from_slice(part);
        let request = PutPartRequest { upload: self.named(), number, part, sha256 };
        self.call::<PutPartResponse>("/pli.media.v1.Media/PutPart", &request).await.map(drop)
    }

    pub async fn finish(&self) -> Result<(), HandoverError> {
        let request = FinishUploadRequest { upload: self.named() };
        self.call::<FinishUploadResponse>("/pli.media.v1.Media/FinishUpload", &request).await.map(drop)
    }

    /// None where there is none.
    pub async fn get(&self) -> Result<Option<GetUploadResponse>, HandoverError> {
        match self.call("/pli.media.v1.Media/GetUpload", &GetUploadRequest { upload: self.named() }).await {
            Ok(found) => Ok(Some(found)),
            Err(HandoverError::Refused(why)) if why.code() == ErrorCode::UploadUnknown => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub async fn part(&self, number: u32) -> Result<Bytes, HandoverError> {
        let request = GetPartRequest { upload: self.named(), number };
        Ok(self.call::<GetPartResponse>("/pli.media.v1.Media/GetPart", &request).await?.part)
    }

    pub async fn delete(&self) -> Result<(), HandoverError> {
        let request = DeleteUploadRequest { upload: self.named() };
        self.call::<DeleteUploadResponse>("/pli.media.v1.Media/DeleteUpload", &request).await.map(drop)
    }

    async fn call<A: Message + Default>(
        &self,
        method: &'static str,
        request: &impl Message,
    ) -> Result<A, HandoverError> {
        let deadline = Instant::now() + ANSWERED_WITHIN;
        let mut why = HandoverError::Unreachable;
        loop {
            let Ok(answered) = timeout_at(deadline, self.client.call(method, request.encode_to_vec())).await else {
                return Err(why);
            };
            let wait = match answered {
                Ok(body) => return Ok(A::decode(body).unwrap_or_default()),
                Err(CallError::Ended) => return Err(HandoverError::Ended),
                Err(CallError::Refused(error)) => {
                    let wait = Duration::from_millis(error.retry_after_ms.into());
                    let waits = error.code().is_temporary() && error.code() != ErrorCode::UploadIncomplete;
                    why = HandoverError::Refused(error);
                    if !waits {
                        return Err(why);
                    }
                    wait.clamp(AGAIN_AFTER, AGAIN_AFTER_MAX)
                }
                Err(CallError::Lost | CallError::Transport(_) | CallError::Profile(_)) => {
                    why = HandoverError::Unreachable;
                    AGAIN_AFTER
                }
            };
            if Instant::now() + wait >= deadline {
                return Err(why);
            }
            sleep(wait).await;
        }
    }
}
