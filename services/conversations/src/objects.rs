// SPDX-License-Identifier: MIT OR Apache-2.0
//! MLS objects at hand or kept apart.

use bytes::{Bytes, BytesMut};
use pli_api::common::PayloadRef;
use pli_api::conversations::{Object, object};
use pli_api::{FieldError, ids};
use pli_domain::limits::{PAGE_BYTES_MAX, PAYLOAD_BYTES_MAX};
use pli_domain::{ConversationId, PayloadId, UnixMillis};
use pli_ports::{Payloads, StoreError};
use sha2::{Digest, Sha256};

use crate::derive;

/// Most bytes of an object or payload.
pub(crate) const OBJECT_BYTES_MAX: u64 = PAYLOAD_BYTES_MAX as u64;

/// Why an object of a request cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ObjectError {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("{field} has {bytes} bytes; at most {OBJECT_BYTES_MAX} are allowed")]
    TooLarge { field: &'static str, bytes: u64 },
    #[error("{0} names a payload that is not there; store its pages first")]
    NotThere(&'static str),
    #[error("{0} names a payload with another size or SHA-256")]
    Differs(&'static str),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The bytes of a field that may be absent or a reference; absent is empty.
pub(crate) async fn optional(
    payloads: &dyn Payloads,
    field: &'static str,
    object: Option<Object>,
    now: UnixMillis,
) -> Result<Bytes, ObjectError> {
    match object.and_then(|o| o.object) {
        None => Ok(Bytes::new()),
        Some(object::Object::Inline(bytes)) => Ok(bytes),
        Some(object::Object::Ref(reference)) => fetch(payloads, field, &reference, now).await,
    }
}

/// The bytes of a field that must be there.
pub(crate) async fn required(
    payloads: &dyn Payloads,
    field: &'static str,
    object: Option<Object>,
    now: UnixMillis,
) -> Result<Bytes, ObjectError> {
    let bytes = optional(payloads, field, object, now).await?;
    if bytes.is_empty() { Err(ObjectError::Missing(field)) } else { Ok(bytes) }
}

async fn fetch(
    payloads: &dyn Payloads,
    field: &'static str,
    reference: &PayloadRef,
    now: UnixMillis,
) -> Result<Bytes, ObjectError> {
    let id: PayloadId = ids::from(field, &reference.id)?;
    if reference.size > OBJECT_BYTES_MAX {
        return Err(ObjectError::TooLarge { field, bytes: reference.size });
    }
    let bytes = whole(payloads, id, now).await?.ok_or(ObjectError::NotThere(field))?;
    if bytes.len() as u64 != reference.size || sha256(&bytes) != reference.sha256.as_ref() {
        return Err(ObjectError::Differs(field));
    }
    Ok(bytes)
}

/// A whole payload, or none. At most [`OBJECT_BYTES_MAX`], since no larger one is ever stored.
pub(crate) async fn whole(
    payloads: &dyn Payloads,
    id: PayloadId,
    now: UnixMillis,
) -> Result<Option<Bytes>, StoreError> {
    let Some(first) = payloads.page(id, 0, now).await? else { return Ok(None) };
    if first.bytes.len() as u64 == first.size {
        return Ok(Some(first.bytes));
    }
    let mut bytes = BytesMut::from(first.bytes);
    while (bytes.len() as u64) < first.size.min(OBJECT_BYTES_MAX) {
        match payloads.page(id, bytes.len() as u64, now).await? {
            Some(page) if !page.bytes.is_empty() => bytes.extend_from_slice(&page.bytes),
            _ => return Ok(None),
        }
    }
    Ok(Some(bytes.freeze()))
}

/// An object for answers and envelopes: inline where it fits a page, else stored until `expires_at`. The same bytes
/// give the same object.
pub(crate) async fn keep(
    payloads: &dyn Payloads,
    conversation: ConversationId,
    bytes: Bytes,
    expires_at: UnixMillis,
) -> Result<Object, StoreError> {
    if bytes.len() <= PAGE_BYTES_MAX {
        return Ok(Object { object: Some(object::Object::Inline(bytes)) });
    }
    let sha256 = sha256(&bytes);
    let id = derive::object_payload(conversation, &sha256);
    let size = bytes.len() as u64;
    payloads.put(id, bytes, expires_at).await?;
    let id = Bytes::copy_from_slice(id.as_bytes());
    let reference = PayloadRef { id, size, sha256: Bytes::copy_from_slice(&sha256) };
    Ok(Object { object: Some(object::Object::Ref(reference)) })
}
