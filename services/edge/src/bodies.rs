// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bodies that lie apart because a message goes to many shards: fetched once by an edge, however many of its sessions
//! are given the message, and put back into the envelope before it leaves. What cannot be had in time stays a reference,
//! which clients follow themselves.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::{BoxFuture, Shared};
use futures::{FutureExt as _, StreamExt as _, stream};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
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
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// An envelope that only points at its body is shorter than this; longer ones are not looked into.
const POINTING_BYTES_MAX: usize = 512;
/// Bytes that one kept body costs besides its own: its entry and the future that gave it.
const BODY_OVERHEAD: u32 = 400;
/// Bodies that are fetched at a time for one page.
const FETCHES_AT_ONCE: usize = 8;
/// Bodies that an edge fetches at a time; the others wait.
const FETCHES_MAX: usize = 256;
/// A fetch, with the wait for its place, ends after so many deadlines of those who wait for it: a slow one is there for whoever
/// comes next.
const FETCH_DEADLINES: u32 = 5;

/// An envelope whose body lies apart.
pub(crate) struct Pointing {
    envelope: Envelope,
    id: PayloadId,
    reference: PayloadRef,
}

/// The page ends before this delivery.
fn end_before(page: &mut Page, index: usize) {
    page.deliveries.truncate(index);
    if let Some(last) = page.deliveries.last() {
        page.next = last.position;
        page.at_head = false;
        page.gaps.retain(|gap| gap.to <= last.position);
    }
}

/// A body that is there or on its way: all who ask wait for the same fetch.
#[derive(Clone)]
struct Kept {
    size: u32,
    body: Shared<BoxFuture<'static, Option<Bytes>>>,
}

/// See the module.
pub(crate) struct Bodies {
    conversations: Channel,
    kept: Cache<PayloadId, Kept>,
    deadline: Duration,
    places: Arc<Semaphore>,
}

impl Bodies {
    pub(crate) fn new(conversations: Channel, bytes: u64, deadline: Duration) -> Self {
        let weigh = |_: &PayloadId, kept: &Kept| kept.size.saturating_add(BODY_OVERHEAD);
        let lru = EvictionPolicy::lru();
        let kept = Cache::builder().max_capacity(bytes).weigher(weigh).eviction_policy(lru).build();
        Self { conversations, kept, deadline, places: Arc::new(Semaphore::new(FETCHES_MAX)) }
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
        self.whole_by(pointing, Instant::now() + self.deadline).await
    }

    async fn whole_by(&self, pointing: Pointing, by: Instant) -> Bytes {
        let Pointing { mut envelope, id, reference } = pointing;
        match tokio::time::timeout_at(by, self.body(id, reference, by)).await {
            Ok(Some(body)) => envelope.body_or_ref = Some(BodyOrRef::Body(body)),
            Ok(None) => {}
            Err(_) => tracing::debug!("a body was not there in time; it stays where it is"),
        }
        envelope.encode_to_vec().into()
    }

    /// The body, once for all who ask for it. Who waits no longer does not end the fetch; a page whose time is over, which is
    /// `by`, begins none.
    async fn body(&self, id: PayloadId, reference: PayloadRef, by: Instant) -> Option<Bytes> {
        if by <= Instant::now() {
            return self.kept.get(&id)?.body.now_or_never()?;
        }
        let size = u32::try_from(reference.size).unwrap_or(u32::MAX);
        self.kept.get_with(id, || Kept { size, body: self.fetching(id, reference) }).body.await
    }

    /// Begins when it is first waited for, and then ends by itself. What could not be had is not kept.
    fn fetching(&self, id: PayloadId, reference: PayloadRef) -> Shared<BoxFuture<'static, Option<Bytes>>> {
        let (kept, conversations, places) = (self.kept.clone(), self.conversations.clone(), self.places.clone());
        let (longest, failing) = (self.deadline * FETCH_DEADLINES, kept.clone());
        let fetching = async move {
            let fetch = async {
                let _place = places.acquire().await;
                fetch(conversations, &reference).await
            };
            let fetched = tokio::time::timeout(longest, fetch).await;
            let failed = match fetched {
                Ok(Ok(body)) => return Some(body),
                Ok(Err(error)) => Some(error),
                Err(_) => None,
            };
            let code = failed.as_ref().map(|error| error.code().as_str_name());
            tracing::debug!(code, text = failed.map(|error| error.message), "a body stays where it is");
            failing.invalidate(&id);
            None
        };
        // Nothing is awaited between its place in the cache and the first poll. One that is evicted on its way costs a second
        // fetch.
        let waiting = async move {
            tokio::spawn(fetching).await.unwrap_or_else(|_| {
                kept.invalidate(&id);
                None
            })
        };
        waiting.boxed().shared()
    }

    /// The same as of now, or none where it has to be fetched.
    pub(crate) fn at_hand(&self, pointing: &Pointing) -> Option<Bytes> {
        let body = self.kept.get(&pointing.id)?.body.now_or_never()??;
        let envelope = Envelope { body_or_ref: Some(BodyOrRef::Body(body)), ..pointing.envelope.clone() };
        Some(envelope.encode_to_vec().into())
    }

    /// Puts bodies back into a page. It ends before the first one for which it has no room, so that it holds about
    /// `bytes_max` with them; the next read goes on there.
    pub(crate) async fn fill(&self, page: &mut Page, bytes_max: usize) {
        let mut bytes = 0;
        let mut pointing = Vec::new();
        for (index, delivery) in page.deliveries.iter().enumerate() {
            let points = Self::pointing(&delivery.envelope);
            let more = points.as_ref().and_then(|points| usize::try_from(points.reference.size).ok()).unwrap_or(0);
            bytes += delivery.envelope.len() + more;
            if bytes > bytes_max && more > 0 && index > 0 {
                end_before(page, index);
                break;
            }
            pointing.extend(points.map(|points| (index, points)));
        }
        // One deadline for all of them: what a session waits for is the page.
        let by = Instant::now() + self.deadline;
        let wholes =
            stream::iter(pointing.into_iter().map(async |(index, points)| (index, self.whole_by(points, by).await)));
        let wholes: Vec<(usize, Bytes)> = wholes.buffered(FETCHES_AT_ONCE).collect().await;
        for (index, whole) in wholes {
            page.deliveries[index].envelope = whole;
        }
    }
}

async fn fetch(conversations: Channel, reference: &PayloadRef) -> Result<Bytes, Error> {
    let mut client = ConversationsClient::new(conversations);
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

#[cfg(test)]
mod tests {
    use pli_api::delivery::{Delivery, GapRange};

    use super::*;

    #[test]
    fn a_page_that_ends_earlier_is_read_on_from_there() {
        let delivery = |position| Delivery { position, envelope: Bytes::from_static(b"x") };
        let gap = |from, to| GapRange { from, to };
        let deliveries = vec![delivery(3), delivery(7), delivery(9)];
        let mut page = Page { deliveries, gaps: vec![gap(3, 6), gap(7, 8)], next: 12, at_head: true };
        end_before(&mut page, 2);
        assert_eq!(page.deliveries.len(), 2);
        assert_eq!((page.next, page.at_head, page.gaps), (7, false, vec![gap(3, 6)]));
    }
}
