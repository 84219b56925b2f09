// SPDX-License-Identifier: MIT OR Apache-2.0
//! MLS objects too large for one frame: fetched and stored in pages of at most 48 KiB.

use std::collections::BTreeSet;

use bytes::Bytes;
use pli_api::{common, conversations as api};
use pli_domain::limits::PAGE_BYTES_MAX;
use pli_domain::{ConversationId, PayloadId, UnixMillis};
use prost::Message as _;
use sha2::{Digest, Sha256};

use super::Core;
use super::calls::{Ask, Calls};

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

impl Fetch {
    const fn is_whole(&self) -> bool {
        self.bytes.len() as u64 == self.size
    }
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

/// Drops the others, and what is asked for them: a late answer must not be taken for one about the same object when that is
/// begun again.
fn keep_slots<T>(slots: &mut Vec<T>, calls: &mut Calls, ask: impl Fn(&T) -> Ask, keep: impl Fn(&T) -> bool) {
    for gone in slots.extract_if(.., |slot| !keep(slot)) {
        calls.forget(&ask(&gone));
    }
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
        self.keep_fetches(|f| f.owner != owner || ids.contains(&f.id));
        if self.fetches.iter().any(|f| f.failed && ids.contains(&f.id)) {
            // Told once: whoever needs it again fetches it again.
            self.keep_fetches(|f| f.owner != owner && !(f.failed && ids.contains(&f.id)));
            return Some(Err(()));
        }
        let known: BTreeSet<PayloadId> = self.fetches.iter().map(|f| f.id).collect();
        let missing: Vec<_> = ids.iter().zip(references).filter(|(id, _)| !known.contains(id)).collect();
        if !missing.is_empty() {
            if make_room(&mut self.fetches, missing.len(), |f| f.used && !ids.contains(&f.id)) {
                missing.into_iter().for_each(|(id, reference)| self.begin_fetch(owner, *id, reference, now));
            }
            return None;
        }
        // Nothing is copied before all of it is here.
        let whole = ids.iter().map(|id| self.fetches.iter().find(|f| f.id == *id && f.is_whole()));
        let whole = whole.collect::<Option<Vec<&Fetch>>>()?;
        let whole = whole.into_iter().map(|f| Bytes::copy_from_slice(&f.bytes)).collect();
        self.fetches.iter_mut().filter(|f| ids.contains(&f.id)).for_each(|f| f.used = true);
        Some(Ok(whole))
    }

    fn begin_fetch(&mut self, owner: Owner, id: PayloadId, reference: &common::PayloadRef, now: UnixMillis) {
        let (size, sha256) = (reference.size, Bytes::copy_from_slice(&reference.sha256));
        self.fetches.push(Fetch { owner, id, size, sha256, bytes: Vec::new(), failed: false, used: false });
        self.ask_fetch(id, now);
    }

    fn keep_fetches(&mut self, keep: impl Fn(&Fetch) -> bool) {
        keep_slots(&mut self.fetches, &mut self.calls, |f| Ask::Fetch(f.id), keep);
    }

    fn keep_puts(&mut self, keep: impl Fn(&Put) -> bool) {
        keep_slots(&mut self.puts, &mut self.calls, |p| Ask::Put(p.id), keep);
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
        let Self { conversations, inbound, fetches, puts, calls, .. } = self;
        let is_fetched_for = |f: &Fetch| match f.owner {
            Some(id) => conversations.get(&id).is_some_and(|c| c.comes_back.is_some() || !c.backlog.is_empty()),
            None => !inbound.is_empty(),
        };
        keep_slots(fetches, calls, |f| Ask::Fetch(f.id), is_fetched_for);
        let is_stored_for = |p: &Put| conversations.get(&p.owner).is_some_and(|c| c.commit.is_some() || !c.created);
        keep_slots(puts, calls, |p| Ask::Put(p.id), is_stored_for);
        let wanted: Vec<PayloadId> = self.fetches.iter().filter(|f| !f.failed && !f.is_whole()).map(|f| f.id).collect();
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
        self.keep_puts(|p| p.owner != owner || is_wanted(p.id));
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
            self.keep_puts(|p| !owners.contains(&p.owner));
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

#[cfg(test)]
mod tests {
    use pli_api::edge::{self, client_frame, reply};

    use super::*;
    use crate::core::conversation::Conversation;

    const NOW: UnixMillis = UnixMillis(1_000);
    const ID: ConversationId = ConversationId::from_bytes([1; 16]);

    /// A device on a session, with one conversation that waits for objects.
    fn online() -> Core {
        let (mut core, _) = Core::create("alice".parse().expect("a handle"), [1; 32], NOW);
        core.identity.registered = true;
        let conversation = Conversation { created: true, ..Conversation::default() };
        core.conversations.insert(ID, conversation);
        connect(&mut core);
        core
    }

    fn connect(core: &mut Core) {
        let hello = edge::ServerHello { nonce: vec![0; 32].into(), versions: vec![1], now_ms: NOW.0 };
        core.handshake(&hello, "localhost", (edge::Binding::TlsExporter, &[0; 32]), NOW).expect("answered");
        let ready = edge::Ready { now_ms: NOW.0, ..edge::Ready::default() };
        core.ready(&ready, NOW);
    }

    fn reference(bytes: &[u8]) -> common::PayloadRef {
        let id = Bytes::copy_from_slice(put_id(bytes).as_bytes());
        common::PayloadRef { id, size: bytes.len() as u64, sha256: Bytes::copy_from_slice(&Sha256::digest(bytes)) }
    }

    /// The calls that were made since the last look whose method ends so: their ids and bodies.
    fn calls(core: &mut Core, method: &str) -> Vec<(u64, Bytes)> {
        let frames = std::mem::take(&mut core.out.frames).into_iter();
        let calls = frames.filter_map(|frame| match frame.frame {
            Some(client_frame::Frame::Call(call)) if call.method.ends_with(method) => Some((call.id, call.body)),
            _ => None,
        });
        calls.collect()
    }

    /// Answers each fetch that was asked for with its page of one of these objects, until none is asked for any more.
    fn serve(core: &mut Core, objects: &[&[u8]]) {
        loop {
            let asked = calls(core, "/FetchPayload");
            if asked.is_empty() {
                return;
            }
            for (id, body) in asked {
                let request = api::FetchPayloadRequest::decode(body).expect("decodes");
                let object = objects.iter().find(|object| put_id(object).as_bytes() == request.id.as_ref());
                answer(core, id, page(object.expect("known"), request.offset));
            }
            core.move_on();
        }
    }

    fn page(object: &[u8], offset: u64) -> Vec<u8> {
        let from = usize::try_from(offset).expect("small");
        let bytes = object[from..object.len().min(from + PAGE_BYTES_MAX)].to_vec();
        api::FetchPayloadResponse { bytes: bytes.into(), size: object.len() as u64 }.encode_to_vec()
    }

    fn answer(core: &mut Core, id: u64, body: Vec<u8>) {
        core.reply(edge::Reply { id, result: Some(reply::Result::Body(body.into())) }, NOW);
    }

    impl Core {
        /// Something of the conversation waits for objects.
        fn wants_objects(&mut self) {
            let waits = api::GetGroupInfoResponse::default();
            self.conversations.get_mut(&ID).expect("there").comes_back = Some(waits);
        }

        fn move_on(&mut self) {
            self.wants_objects();
            self.move_objects(NOW);
        }
    }

    #[test]
    fn objects_are_had_when_all_of_them_are_here() {
        let mut core = online();
        let (one, two) = (vec![1; PAGE_BYTES_MAX + 1], vec![2; 10]);
        let wanted = [reference(&one), reference(&two)];
        assert_eq!(core.fetch(Some(ID), &wanted, NOW), None);
        serve(&mut core, &[&one, &two]);
        assert_eq!(core.fetch(Some(ID), &wanted, NOW), Some(Ok(vec![one.clone().into(), two.into()])));
        assert!(calls(&mut core, "/FetchPayload").is_empty(), "nothing is asked twice");
    }

    #[test]
    fn what_is_not_what_was_announced_is_told_once_and_fetched_anew() {
        let mut core = online();
        let whole = vec![1; 100];
        let wanted = [common::PayloadRef { sha256: vec![0; 32].into(), ..reference(&whole) }];
        for _ in 0..2 {
            assert_eq!(core.fetch(Some(ID), &wanted, NOW), None);
            serve(&mut core, &[&whole]);
            assert_eq!(core.fetch(Some(ID), &wanted, NOW), Some(Err(())));
        }
        let large = common::PayloadRef { size: OBJECT_BYTES_MAX + 1, ..reference(&whole) };
        let unnamed = common::PayloadRef { id: Bytes::new(), ..reference(&whole) };
        for never in [large, unnamed] {
            assert_eq!(core.fetch(Some(ID), &[never], NOW), Some(Err(())));
        }
        assert!(calls(&mut core, "/FetchPayload").is_empty());
    }

    #[test]
    fn an_answer_about_a_fetch_that_was_dropped_changes_none_that_was_begun_anew() {
        let mut core = online();
        let (one, two) = (vec![1; 2 * PAGE_BYTES_MAX], vec![2; 10]);
        assert_eq!(core.fetch(Some(ID), &[reference(&one)], NOW), None);
        let (late, _) = calls(&mut core, "/FetchPayload").pop().expect("asked");
        // The conversation wants something else, and then the same again.
        assert_eq!(core.fetch(Some(ID), &[reference(&two)], NOW), None);
        assert!(!core.calls.is_open(&Ask::Fetch(put_id(&one))), "a call that nobody waits for holds no place");
        assert_eq!(core.fetch(Some(ID), &[reference(&one)], NOW), None);
        answer(&mut core, late, page(&one, 0));
        assert!(core.fetches[0].bytes.is_empty());
        serve(&mut core, &[&one, &two]);
        assert_eq!(core.fetch(Some(ID), &[reference(&one)], NOW), Some(Ok(vec![one.into()])));
    }

    #[test]
    fn what_is_half_way_ends_with_its_connection() {
        let mut core = online();
        core.wants_objects();
        assert_eq!(core.fetch(Some(ID), &[reference(&[1; 10])], NOW), None);
        assert!(core.calls.is_open(&Ask::Fetch(put_id(&[1; 10]))));
        drop(core.disconnected(NOW));
        assert_eq!(core.conversations[&ID].comes_back, None, "how the group stands is asked anew");
        connect(&mut core);
        core.move_objects(NOW);
        assert!(core.fetches.is_empty() && calls(&mut core, "/FetchPayload").is_empty());
    }

    #[test]
    fn no_more_is_fetched_at_a_time_than_there_is_room_for() {
        let mut core = online();
        let wanted: Vec<_> = (0..=u8::try_from(OBJECTS_MAX).expect("small")).map(|n| reference(&[n; 10])).collect();
        assert_eq!(core.fetch(Some(ID), &wanted[..OBJECTS_MAX], NOW), None);
        assert_eq!(core.fetch(None, &wanted[OBJECTS_MAX..], NOW), None);
        assert_eq!((core.fetches.len(), calls(&mut core, "/FetchPayload").len()), (OBJECTS_MAX, OBJECTS_MAX));
    }

    #[test]
    fn small_objects_go_with_their_request_and_large_ones_are_stored_first() {
        let mut core = online();
        let (small, large) = (vec![1; 10], vec![2; PAGE_BYTES_MAX + 1]);
        core.conversations.get_mut(&ID).expect("there").created = false;
        assert_eq!(core.offer(ID, &[&small], NOW).map(|objects| objects.len()), Some(1));
        assert_eq!(core.offer(ID, &[&small, &large], NOW), None);
        let mut stored = Vec::new();
        while let Some((id, body)) = calls(&mut core, "/PutPayload").pop() {
            stored.extend(api::PutPayloadRequest::decode(body).expect("decodes").bytes);
            answer(&mut core, id, api::PutPayloadResponse {}.encode_to_vec());
            core.move_objects(NOW);
        }
        assert_eq!(stored, large);
        let offered = core.offer(ID, &[&small, &large], NOW).expect("all is stored");
        let named = Some(api::object::Object::Ref(reference(&large)));
        assert_eq!((offered.len(), &offered[1].object), (2, &named));
    }

    #[test]
    fn an_object_that_is_given_up_half_stored_is_stored_from_its_beginning() {
        let mut core = online();
        let (one, two) = (vec![1; 2 * PAGE_BYTES_MAX], vec![2; 2 * PAGE_BYTES_MAX]);
        assert_eq!(core.offer(ID, &[&one], NOW), None);
        let (late, _) = calls(&mut core, "/PutPayload").pop().expect("asked");
        assert_eq!(core.offer(ID, &[&two], NOW), None);
        assert_eq!(core.offer(ID, &[&one], NOW), None);
        answer(&mut core, late, api::PutPayloadResponse {}.encode_to_vec());
        assert_eq!(core.puts.iter().find(|put| put.id == put_id(&one)).map(|put| put.done), Some(0));
    }
}
