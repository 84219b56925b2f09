// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bodies that lie apart because a message goes to many shards: fetched once by an edge, however many of its sessions
//! are given the message, and put back into the envelope before it leaves. What cannot be had in time stays a reference,
//! which clients follow themselves.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use moka::future::Cache;
use pli_api::common::{Error, PayloadRef};
use pli_api::conversations::FetchPayloadRequest;
use pli_api::conversations::conversations_client::ConversationsClient;
use pli_api::delivery::Page;
use pli_api::log::envelope::BodyOrRef;
use pli_api::log::{Content, Envelope};
use pli_api::{Channel, ErrorCode, error_of_status, refusal};
use pli_domain::PayloadId;
use pli_domain::limits::ENVELOPE_BODY_BYTES_MAX;
use prost::Message as _;
use sha2::{Digest, Sha256};

/// An envelope that only points at its body is shorter than this; longer ones are not looked into.
const POINTING_BYTES_MAX: usize = 512;
/// Bytes that one kept body costs besides its own.
const BODY_OVERHEAD: usize = 160;
/// Bytes of bodies that are put back into one page; the rest stay references, so that a page keeps its bound.
const PAGE_BODIES_MAX: usize = 1024 * 1024;

/// An envelope whose body lies apart.
pub(crate) struct Pointing {
    envelope: Envelope,
    id: PayloadId,
    reference: PayloadRef,
}

/// See the module.
pub(crate) struct Bodies {
    conversations: Channel,
    kept: Cache<PayloadId, Bytes>,
    deadline: Duration,
}

impl Bodies {
    pub(crate) fn new(conversations: Channel, bytes: u64, deadline: Duration) -> Self {
        let weigh = |_: &PayloadId, body: &Bytes| u32::try_from(body.len() + BODY_OVERHEAD).unwrap_or(u32::MAX);
        let kept = Cache::builder().max_capacity(bytes).weigher(weigh).build();
        Self { conversations, kept, deadline }
    }

    /// The envelope, if its body lies apart and is one that an edge puts back: for many devices and of a message's size.
    pub(crate) fn pointing(envelope: &Bytes) -> Option<Pointing> {
        if envelope.len() > POINTING_BYTES_MAX {
            return None;
        }
        let envelope = Envelope::decode(envelope.clone()).ok()?;
        let Some(BodyOrRef::BodyRef(reference)) = &envelope.body_or_ref else { return None };
        let fits = usize::try_from(reference.size).is_ok_and(|size| size <= ENVELOPE_BODY_BYTES_MAX);
        let id = PayloadId::try_from(reference.id.as_ref()).ok().filter(|_| fits)?;
        let reference = reference.clone();
        (envelope.content() != Content::Welcome).then_some(Pointing { envelope, id, reference })
    }

    /// The encoded envelope with its body; as it was where the body cannot be had in time.
    pub(crate) async fn whole(&self, pointing: Pointing) -> Bytes {
        let Pointing { mut envelope, id, reference } = pointing;
        let fetching = self.kept.try_get_with(id, self.fetch(&reference));
        match tokio::time::timeout(self.deadline, fetching).await {
            Ok(Ok(body)) => envelope.body_or_ref = Some(BodyOrRef::Body(body)),
            Ok(Err(error)) => {
                tracing::debug!(code = error.code().as_str_name(), text = error.message, "a body stays where it is");
            }
            Err(_) => tracing::debug!("a body was not there in time; it stays where it is"),
        }
        envelope.encode_to_vec().into()
    }

    /// Puts bodies back into a page.
    pub(crate) async fn fill(&self, page: &mut Page) {
        let mut bytes = 0;
        for delivery in &mut page.deliveries {
            let Some(pointing) = Self::pointing(&delivery.envelope) else { continue };
            bytes += usize::try_from(pointing.reference.size).unwrap_or(usize::MAX);
            if bytes > PAGE_BODIES_MAX {
                return;
            }
            delivery.envelope = self.whole(pointing).await;
        }
    }

    async fn fetch(&self, reference: &PayloadRef) -> Result<Bytes, Error> {
        let mut client = ConversationsClient::new(self.conversations.clone());
        let mut body = BytesMut::new();
        while (body.len() as u64) < reference.size {
            let request = FetchPayloadRequest { id: reference.id.clone(), offset: body.len() as u64 };
            let page = client.fetch_payload(request).await.map_err(|status| error_of_status(&status))?.into_inner();
            if page.bytes.is_empty() {
                return Err(refusal(ErrorCode::Internal, "a payload ends before its size"));
            }
            body.extend_from_slice(&page.bytes);
        }
        if Sha256::digest(&body)[..] != reference.sha256[..] {
            return Err(refusal(ErrorCode::Internal, "a payload is not what its reference says"));
        }
        Ok(body.freeze())
    }
}
