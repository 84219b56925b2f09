// SPDX-License-Identifier: MIT OR Apache-2.0
//! Uploads through bare sessions.

use bytes::Bytes;
use pli_api::common::Error;
use pli_api::media::{
    BeginUploadRequest, BeginUploadResponse, FinishUploadRequest, FinishUploadResponse, GetPartRequest,
    GetPartResponse, PutPartRequest, PutPartResponse,
};
use sha2::{Digest, Sha256};

use crate::meeting::Session;

/// Length of a full part.
pub const PART: usize = 65_536;

/// The upload of a test.
pub fn id() -> Bytes {
    Bytes::from_static(&[7; 16])
}

/// Bytes that differ from part to part.
pub fn part(number: u32) -> Bytes {
    vec![number as u8; PART].into()
}

/// Begins an upload of so many full parts, or goes on with it.
pub async fn begin(session: &mut Session, parts: usize) -> Result<BeginUploadResponse, Error> {
    let request = BeginUploadRequest { upload: id(), bytes: (parts * PART) as u64 };
    session.call("/pli.media.v1.Media/BeginUpload", &request).await
}

pub async fn put(session: &mut Session, number: u32) -> Result<PutPartResponse, Error> {
    let part = part(number);
    let sha256 = Sha256::digest(&part).to_vec().into();
    let request = PutPartRequest { upload: id(), number, part, sha256 };
    session.call("/pli.media.v1.Media/PutPart", &request).await
}

pub async fn finish(session: &mut Session) -> Result<FinishUploadResponse, Error> {
    session.call("/pli.media.v1.Media/FinishUpload", &FinishUploadRequest { upload: id() }).await
}

pub async fn read(session: &mut Session, number: u32) -> Result<Bytes, Error> {
    let request = GetPartRequest { upload: id(), number };
    session.call::<GetPartResponse>("/pli.media.v1.Media/GetPart", &request).await.map(|read| read.part)
}
