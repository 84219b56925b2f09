// SPDX-License-Identifier: MIT OR Apache-2.0
//! GetUpload and GetPart, and what is there of an upload.

use bytes::Bytes;
use pli_api::Caller;
use pli_api::media::{GetPartRequest, GetPartResponse, GetUploadRequest, GetUploadResponse};
use pli_domain::{NoUpload, Upload, UploadKey, UploadStage};

use crate::blobs::Place;
use crate::error::{GetError, InvalidField, Unfit};
use crate::put::hash_of;
use crate::service::Inner;

/// Which parts are there.
pub(crate) struct There {
    bits: Vec<u8>,
    parts: u32,
}

impl There {
    fn new(parts: u32) -> Self {
        Self { bits: vec![0; parts.div_ceil(8) as usize], parts }
    }

    fn at(number: u32) -> (usize, u8) {
        let bit = number.saturating_sub(1);
        ((bit / 8) as usize, 1 << (bit % 8))
    }

    fn add(&mut self, number: u32) {
        let (byte, bit) = Self::at(number);
        if let Some(byte) = self.bits.get_mut(byte) {
            *byte |= bit;
        }
    }

    fn has(&self, number: u32) -> bool {
        let (byte, bit) = Self::at(number);
        self.bits.get(byte).is_some_and(|byte| byte & bit != 0)
    }

    /// The first part that is not there.
    pub(crate) fn first_missing(&self) -> Option<u32> {
        (1..=self.parts).find(|number| !self.has(*number))
    }

    /// As the answer says it.
    pub(crate) fn into_bits(self) -> Bytes {
        self.bits.into()
    }
}

impl Inner {
    /// Parts that are noted and whose objects are there in full length.
    pub(crate) async fn there(&self, key: UploadKey, upload: &Upload) -> Result<There, Unfit> {
        let noted = self.ports.media.parts(key, self.ports.clock.now()).await?;
        let stored = self.blobs.list(key, upload.expires_at).await?;
        let mut there = There::new(upload.parts());
        for (number, hash) in noted {
            let place = Place { key, expires_at: upload.expires_at, number, hash };
            if stored.get(&place.name()).copied() == upload.part_bytes(number).ok() {
                there.add(number);
            }
        }
        Ok(there)
    }

    async fn live(&self, key: UploadKey) -> Result<Upload, GetError> {
        let upload = self.ports.media.upload(key, self.ports.clock.now()).await.map_err(Unfit::from)?;
        Ok(upload.ok_or(NoUpload)?)
    }

    /// What is there of an upload.
    pub(crate) async fn get_upload(
        &self,
        caller: Caller,
        request: GetUploadRequest,
    ) -> Result<GetUploadResponse, GetError> {
        let key = self.admit(&caller, &request.upload).await?;
        let upload = self.live(key).await?;
        Ok(GetUploadResponse {
            bytes: upload.bytes,
            there: self.there(key, &upload).await?.into_bits(),
            finished: upload.stage == UploadStage::Finished,
            left_ms: self.left_ms(upload.expires_at),
        })
    }

    /// One part of a finished upload, if it is still what was put.
    pub(crate) async fn get_part(&self, caller: Caller, request: GetPartRequest) -> Result<GetPartResponse, GetError> {
        let (key, number) = (self.admit(&caller, &request.upload).await?, request.number);
        let upload = self.live(key).await?;
        upload.part_bytes(number).map_err(|refused| Unfit::from(InvalidField::Number(refused)))?;
        if upload.stage != UploadStage::Finished {
            return Err(GetError::Unfinished);
        }
        let hash = self.ports.media.part(key, number, self.ports.clock.now()).await.map_err(Unfit::from)?;
        let place = Place { key, expires_at: upload.expires_at, number, hash: hash.ok_or(NoUpload)? };
        let part = self.blobs.get(&place).await?.filter(|part| hash_of(part) == place.hash);
        let part = part.ok_or(GetError::Lost(number))?;
        self.metrics.bytes_read.add(part.len() as u64, &[]);
        Ok(GetPartResponse { part })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_are_pinned_and_name_what_is_missing() {
        let mut there = There::new(11);
        for number in [1, 2, 9, 11, 12, 99] {
            there.add(number);
        }
        assert_eq!(there.first_missing(), Some(3));
        (3..=10).for_each(|number| there.add(number));
        assert_eq!(there.first_missing(), None);
        assert_eq!(there.into_bits().as_ref(), [0xFF, 0b1111]);
        let mut some = There::new(10);
        some.add(2);
        some.add(9);
        assert_eq!(some.into_bits().as_ref(), [0b10, 0b1]);
    }
}
