// SPDX-License-Identifier: MIT OR Apache-2.0
//! MLS objects too large for one frame: fetched and stored in pages of at most 48 KiB.

use bytes::Bytes;
use pli_api::{common, conversations as api};
use pli_domain::limits::PAGE_BYTES_MAX;
use pli_domain::{ConversationId, PayloadId, UnixMillis};
use prost::Message as _;
use sha2::{Digest, Sha256};

use super::Core;
use super::calls::Ask;

/// Largest object that is fetched or stored.
const OBJECT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Objects kept in memory at a time, each way: more than any set has.
const OBJECTS_MAX: usize = 8;

/// Whom objects are for: a conversation, or what comes in where there is none.
type Owner = Option<ConversationId>;

/// An object on its way here.
#[derive(Debug)]
pub(super) struct Fetch {
    owner: Owner,
    id: PayloadId,
    size: u64,
    sha256: Bytes,
    bytes: Vec<u8>,
    /// Gone on the server, or not what it was said to be.
    failed: bool,
    /// It was had, with all that it was fetched with: it makes room for others.
    used: bool,
}

/// An object on its way to the server.
#[derive(Debug)]
pub(super) struct Put {
    owner: ConversationId,
    id: PayloadId,
    bytes: Bytes,
    done: usize,
    /// It was named in a request, with all that it was stored with: it makes room for others.
    used: bool,
}

/// Makes room for so many more where there are so many that give way, and answers whether there is room. What is under way,
/// or waits here for what is, never does: of many sets that are wanted at once none would ever be whole.
fn make_room<T>(slots: &mut Vec<T>, count: usize, gives_way: impl Fn(&T) -> bool) -> bool {
    let given = slots.iter().filter(|slot| gives_way(slot)).count();
    if slots.len() + count > OBJECTS_MAX + given {
        return false;
    }
    while slots.len() + count > OBJECTS_MAX {
        let Some(place) = slots.iter().position(&gives_way) else { return false };
        slots.remove(place);
    }
    true
}

impl Core {
    /// The objects that references name, which are needed together: their bytes, an error if one of them cannot be had,
    /// nothing while they are fetched or wait for their turn.
    pub(super) fn fetch(
        &mut self,
        owner: Owner,
        references: &[common::PayloadRef],
        now: UnixMillis,
    ) -> Option<Result<Vec<Bytes>, ()>> {
        let ids = references.iter().map(|reference| PayloadId::try_from(reference.id.as_ref()).ok());
        let Some(ids) = ids.collect::<Option<Vec<PayloadId>>>() else { return Some(Err(())) };
        if references.iter().any(|reference| reference.size > OBJECT_BYTES_MAX) {
            return Some(Err(()));
        }
        self.fetches.retain(|f| f.owner != owner || ids.contains(&f.id));
        if self.fetches.iter().any(|f| f.failed && ids.contains(&f.id)) {
            // Told once: whoever needs it again fetches it again.
            self.fetches.retain(|f| f.owner != owner && !(f.failed && ids.contains(&f.id)));
            return Some(Err(()));
        }
        let missing: Vec<_> = ids.iter().zip(references).filter(|(id, _)| self.fetched_bytes(**id).is_none()).collect();
        if !missing.is_empty() {
            if make_room(&mut self.fetches, missing.len(), |f| f.used && !ids.contains(&f.id)) {
                missing.into_iter().for_each(|(id, reference)| self.begin_fetch(owner, *id, reference, now));
            }
            return None;
        }
        let whole = ids.iter().map(|id| self.fetched_bytes(*id).flatten()).collect::<Option<Vec<Bytes>>>()?;
        self.fetches.iter_mut().filter(|f| ids.contains(&f.id)).for_each(|f| f.used = true);
        Some(Ok(whole))
    }

    fn begin_fetch(&mut self, owner: Owner, id: PayloadId, reference: &common::PayloadRef, now: UnixMillis) {
        let (size, sha256) = (reference.size, Bytes::copy_from_slice(&reference.sha256));
        self.fetches.push(Fetch { owner, id, size, sha256, bytes: Vec::new(), failed: false, used: false });
        self.ask_fetch(id, now);
    }

    /// Whether it is on its way, and its bytes when all are here.
    fn fetched_bytes(&self, id: PayloadId) -> Option<Option<Bytes>> {
        let fetch = self.fetches.iter().find(|f| f.id == id)?;
        let whole = fetch.bytes.len() as u64 == fetch.size;
        Some(whole.then(|| Bytes::copy_from_slice(&fetch.bytes)))
    }

    /// The bytes of objects for a conversation that are at hand, or as [`Core::fetch`].
    pub(super) fn objects(
        &mut self,
        id: ConversationId,
        objects: &[&api::Object],
        now: UnixMillis,
    ) -> Option<Result<Vec<Bytes>, ()>> {
        let each = objects.iter().map(|object| object.object.as_ref());
        let Some(each) = each.collect::<Option<Vec<_>>>() else { return Some(Err(())) };
        let references = each.iter().filter_map(|object| match object {
            api::object::Object::Ref(reference) => Some(reference.clone()),
            api::object::Object::Inline(_) => None,
        });
        let references: Vec<common::PayloadRef> = references.collect();
        let mut fetched = match references.is_empty() {
            true => Vec::new().into_iter(),
            false => match self.fetch(Some(id), &references, now)? {
                Ok(fetched) => fetched.into_iter(),
                Err(()) => return Some(Err(())),
            },
        };
        let bytes = each.into_iter().map(|object| match object {
            api::object::Object::Inline(bytes) => Some(bytes.clone()),
            api::object::Object::Ref(_) => fetched.next(),
        });
        Some(bytes.collect::<Option<_>>().ok_or(()))
    }

    /// Goes on with what is half-way, and forgets what nobody waits for any more.
    pub(super) fn move_objects(&mut self, now: UnixMillis) {
        let (conversations, comes_in) = (&self.conversations, !self.inbound.is_empty());
        self.fetches.retain(|f| match f.owner {
            Some(id) => conversations.get(&id).is_some_and(|c| c.comes_back.is_some() || !c.backlog.is_empty()),
            None => comes_in,
        });
        self.puts.retain(|p| conversations.get(&p.owner).is_some_and(|c| c.commit.is_some() || !c.created));
        let wanted: Vec<PayloadId> =
            self.fetches.iter().filter(|f| !f.failed && (f.bytes.len() as u64) < f.size).map(|f| f.id).collect();
        wanted.into_iter().for_each(|id| self.ask_fetch(id, now));
        let unfinished: Vec<PayloadId> = self.puts.iter().filter(|p| p.done < p.bytes.len()).map(|p| p.id).collect();
        for id in unfinished {
            self.ask(Ask::Put(id), |core| core.put_page(id), now);
        }
    }

    fn ask_fetch(&mut self, id: PayloadId, now: UnixMillis) {
        let Some(offset) = self.fetches.iter().find(|f| f.id == id).map(|f| f.bytes.len() as u64) else { return };
        let request = api::FetchPayloadRequest { id: Bytes::copy_from_slice(id.as_bytes()), offset };
        self.ask(Ask::Fetch(id), |_| Some(request.encode_to_vec()), now);
    }

    pub(super) fn fetched(&mut self, id: PayloadId, page: Option<&api::FetchPayloadResponse>) {
        let Some(fetch) = self.fetches.iter_mut().find(|f| f.id == id) else { return };
        let Some(page) = page.filter(|p| !p.bytes.is_empty()) else {
            fetch.failed = true;
            return;
        };
        fetch.bytes.extend_from_slice(&page.bytes);
        let (have, size) = (fetch.bytes.len() as u64, fetch.size);
        let wrong = have == size && Sha256::digest(&fetch.bytes).as_slice() != fetch.sha256.as_ref();
        fetch.failed = have > size || wrong;
    }

    /// Objects for a request of a conversation: inline if they are small, else stored first; nothing while they are, or
    /// wait for their turn.
    pub(super) fn offer(&mut self, owner: ConversationId, all: &[&[u8]], now: UnixMillis) -> Option<Vec<api::Object>> {
        let large = all.iter().filter(|bytes| !is_small(bytes)).map(|bytes| (put_id(bytes), *bytes));
        let large: Vec<(PayloadId, &[u8])> = large.collect();
        let is_wanted = |id: PayloadId| large.iter().any(|(wanted, _)| *wanted == id);
        self.puts.retain(|p| p.owner != owner || is_wanted(p.id));
        let missing = large.iter().filter(|(id, _)| !self.puts.iter().any(|p| p.id == *id));
        let missing: Vec<_> = missing.copied().collect();
        if !missing.is_empty() {
            if make_room(&mut self.puts, missing.len(), |p| p.used && !is_wanted(p.id)) {
                for (id, bytes) in missing {
                    self.puts.push(Put { owner, id, bytes: Bytes::copy_from_slice(bytes), done: 0, used: false });
                    self.ask(Ask::Put(id), |core| core.put_page(id), now);
                }
            }
            return None;
        }
        if self.puts.iter().any(|p| is_wanted(p.id) && p.done < p.bytes.len()) {
            return None;
        }
        self.puts.iter_mut().filter(|p| is_wanted(p.id)).for_each(|p| p.used = true);
        Some(all.iter().map(|bytes| stored_object(bytes)).collect())
    }

    fn put_page(&mut self, id: PayloadId) -> Option<Vec<u8>> {
        let put = self.puts.iter().find(|p| p.id == id)?;
        let end = (put.done + PAGE_BYTES_MAX).min(put.bytes.len());
        let request = api::PutPayloadRequest {
            id: Bytes::copy_from_slice(id.as_bytes()),
            bytes: put.bytes.slice(put.done..end),
            offset: put.done as u64,
            size: put.bytes.len() as u64,
        };
        Some(request.encode_to_vec())
    }

    pub(super) fn put(&mut self, id: PayloadId, stored: bool) {
        if !stored {
            // With what it was to be stored with, which begins again when there is room for all of it.
            let owners: Vec<ConversationId> = self.puts.iter().filter(|p| p.id == id).map(|p| p.owner).collect();
            self.puts.retain(|p| !owners.contains(&p.owner));
            return;
        }
        if let Some(put) = self.puts.iter_mut().find(|p| p.id == id) {
            put.done = (put.done + PAGE_BYTES_MAX).min(put.bytes.len());
        }
    }
}

fn is_small(bytes: &[u8]) -> bool {
    bytes.len() <= PAGE_BYTES_MAX / 3
}

/// The name that an object is stored under: the first half of its hash.
fn put_id(bytes: &[u8]) -> PayloadId {
    let mut id = [0; 16];
    id.copy_from_slice(&Sha256::digest(bytes)[..16]);
    PayloadId::from_bytes(id)
}

/// An object in a request, which is stored already if it is large.
fn stored_object(bytes: &[u8]) -> api::Object {
    let object = match is_small(bytes) {
        true => api::object::Object::Inline(Bytes::copy_from_slice(bytes)),
        false => api::object::Object::Ref(common::PayloadRef {
            id: Bytes::copy_from_slice(put_id(bytes).as_bytes()),
            size: bytes.len() as u64,
            sha256: Bytes::copy_from_slice(&Sha256::digest(bytes)),
        }),
    };
    api::Object { object: Some(object) }
}
