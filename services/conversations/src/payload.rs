// SPDX-License-Identifier: MIT OR Apache-2.0
//! PutPayload and FetchPayload. An id is 128 random or derived bits: who knows it may fetch it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pli_api::conversations::{FetchPayloadRequest, FetchPayloadResponse, PutPayloadRequest, PutPayloadResponse};
use pli_api::{Caller, ids};
use pli_domain::limits::{EXPIRY_MAX, PAGE_BYTES_MAX};
use pli_domain::{DeviceId, PayloadId};

use crate::derive;
use crate::error::{Denied, PayloadError};
use crate::objects::{self, OBJECT_BYTES_MAX};
use crate::service::Inner;

/// How long a page waits for the rest of its upload.
const UPLOAD_KEPT: Duration = Duration::from_secs(3600);
const PAGE: u64 = PAGE_BYTES_MAX as u64;

impl Inner {
    /// One page of a payload.
    pub(crate) async fn fetch_payload(
        &self,
        caller: Caller,
        request: FetchPayloadRequest,
    ) -> Result<FetchPayloadResponse, PayloadError> {
        // An edge that puts a body back into its envelope asks for itself, once for all of its sessions.
        if caller.device.is_some() || caller.address.is_some() {
            self.caller(caller, &self.limits.pages_fetched)?;
        }
        let id: PayloadId = ids::from("id", &request.id).map_err(Denied::from)?;
        let page = self.ports.payloads.page(id, request.offset, self.ports.clock.now()).await?;
        let page = page.ok_or(PayloadError::NotFound)?;
        Ok(FetchPayloadResponse { bytes: page.bytes, size: page.size })
    }

    /// One page of an upload. Pages wait in the store, not here, so any replica can take any of them; with the last
    /// one the payload is put together. Repeating a page, or all of them, changes nothing.
    pub(crate) async fn put_payload(
        &self,
        caller: Caller,
        request: PutPayloadRequest,
    ) -> Result<PutPayloadResponse, PayloadError> {
        let caller = self.caller(caller, &self.limits.pages_stored)?;
        let id: PayloadId = ids::from("id", &request.id).map_err(Denied::from)?;
        let PutPayloadRequest { bytes, offset, size, .. } = request;
        check_page(&bytes, offset, size)?;
        if offset + (bytes.len() as u64) < size {
            let expires_at = self.ports.clock.now().after(UPLOAD_KEPT);
            let page = derive::upload_page(caller.device, id, offset);
            self.ports.payloads.put(page, bytes, expires_at).await?;
            return Ok(PutPayloadResponse {});
        }
        let whole = self.put_together(caller.device, id, offset, bytes).await?;
        self.store_once(id, whole).await?;
        Ok(PutPayloadResponse {})
    }

    async fn put_together(
        &self,
        device: DeviceId,
        id: PayloadId,
        before: u64,
        last: Bytes,
    ) -> Result<Bytes, PayloadError> {
        if before == 0 {
            return Ok(last);
        }
        let now = self.ports.clock.now();
        let mut whole = BytesMut::new();
        for offset in (0..before).step_by(PAGE_BYTES_MAX) {
            let page = derive::upload_page(device, id, offset);
            let page = self.ports.payloads.page(page, 0, now).await?;
            let page = page.filter(|p| p.size == PAGE).ok_or(PayloadError::MissingPage { offset })?;
            whole.extend_from_slice(&page.bytes);
        }
        whole.extend_from_slice(&last);
        Ok(whole.freeze())
    }

    /// An id never changes its bytes. Two devices would have to share a random id and race to get past this check;
    /// readers verify SHA-256 anyway.
    async fn store_once(&self, id: PayloadId, bytes: Bytes) -> Result<(), PayloadError> {
        let (payloads, now) = (self.ports.payloads.as_ref(), self.ports.clock.now());
        match objects::whole(payloads, id, now).await? {
            Some(there) if there == bytes => Ok(()),
            Some(_) => Err(PayloadError::IdTaken),
            None => Ok(payloads.put(id, bytes, now.after(EXPIRY_MAX)).await?),
        }
    }
}

fn check_page(bytes: &Bytes, offset: u64, size: u64) -> Result<(), PayloadError> {
    if !(1..=OBJECT_BYTES_MAX).contains(&size) {
        return Err(PayloadError::Size(size));
    }
    let whole_pages_before = offset < size && offset.is_multiple_of(PAGE);
    let expected = if whole_pages_before { (size - offset).min(PAGE) } else { 0 };
    if expected == 0 || bytes.len() as u64 != expected {
        return Err(PayloadError::Page);
    }
    Ok(())
}
