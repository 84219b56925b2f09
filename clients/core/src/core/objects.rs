// SPDX-License-Identifier: MIT OR Apache-2.0
//! MLS objects too large for one frame: fetched and stored in pages of at most 48 KiB.

use bytes::Bytes;
use pli_api::{common, conversations as api};
use pli_domain::limits::PAGE_BYTES_MAX;
use pli_domain::{PayloadId, UnixMillis};
use prost::Message as _;
use sha2::{Digest, Sha256};

use super::Core;
use super::calls::Ask;

/// Largest object that is fetched or stored.
const OBJECT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Objects kept in memory at a time; the one fetched first goes first.
const OBJECTS_MAX: usize = 8;

/// An object on its way here.
#[derive(Debug)]
pub(super) struct Fetch {
    id: PayloadId,
    size: u64,
    sha256: Bytes,
    bytes: Vec<u8>,
    /// Gone on the server, or not what it was said to be.
    failed: bool,
}

/// An object on its way to the server.
#[derive(Debug)]
pub(super) struct Put {
    id: PayloadId,
    bytes: Bytes,
    done: usize,
}

impl Core {
    /// The object that a reference names: its bytes, an error if it cannot be had, nothing while it is fetched.
    pub(super) fn fetch(&mut self, reference: &common::PayloadRef, now: UnixMillis) -> Option<Result<Bytes, ()>> {
        let Ok(id) = PayloadId::try_from(reference.id.as_ref()) else { return Some(Err(())) };
        if reference.size > OBJECT_BYTES_MAX {
            return Some(Err(()));
        }
        let Some(fetch) = self.fetches.iter().find(|f| f.id == id) else {
            if self.fetches.len() >= OBJECTS_MAX {
                self.fetches.remove(0);
            }
            let (size, sha256) = (reference.size, Bytes::copy_from_slice(&reference.sha256));
            self.fetches.push(Fetch { id, size, sha256, bytes: Vec::new(), failed: false });
            self.ask_fetch(id, now);
            return None;
        };
        if fetch.failed {
            // Told once: whoever needs it again fetches it again.
            self.fetches.retain(|f| f.id != id);
            return Some(Err(()));
        }
        let complete = fetch.bytes.len() as u64 == fetch.size;
        complete.then(|| Ok(Bytes::copy_from_slice(&fetch.bytes)))
    }

    /// The bytes of an object at hand, or as [`Core::fetch`].
    pub(super) fn object(&mut self, object: Option<&api::Object>, now: UnixMillis) -> Option<Result<Bytes, ()>> {
        match object.and_then(|o| o.object.as_ref()) {
            Some(api::object::Object::Inline(bytes)) => Some(Ok(bytes.clone())),
            Some(api::object::Object::Ref(reference)) => self.fetch(&reference.clone(), now),
            None => Some(Err(())),
        }
    }

    /// Goes on with what is half-way.
    pub(super) fn move_objects(&mut self, now: UnixMillis) {
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

    /// An object for a request: inline if it is small, else stored first; nothing while it is.
    pub(super) fn offer(&mut self, bytes: &[u8], now: UnixMillis) -> Option<api::Object> {
        if bytes.len() <= PAGE_BYTES_MAX / 3 {
            let inline = api::object::Object::Inline(Bytes::copy_from_slice(bytes));
            return Some(api::Object { object: Some(inline) });
        }
        let digest = Sha256::digest(bytes);
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        let id = PayloadId::from_bytes(id);
        let Some(put) = self.puts.iter().find(|p| p.id == id) else {
            if self.puts.len() >= OBJECTS_MAX {
                self.puts.remove(0);
            }
            self.puts.push(Put { id, bytes: Bytes::copy_from_slice(bytes), done: 0 });
            self.ask(Ask::Put(id), |core| core.put_page(id), now);
            return None;
        };
        let reference = common::PayloadRef {
            id: Bytes::copy_from_slice(id.as_bytes()),
            size: bytes.len() as u64,
            sha256: Bytes::copy_from_slice(&digest),
        };
        let object = api::object::Object::Ref(reference);
        (put.done >= put.bytes.len()).then_some(api::Object { object: Some(object) })
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
            self.puts.retain(|p| p.id != id);
            return;
        }
        if let Some(put) = self.puts.iter_mut().find(|p| p.id == id) {
            put.done = (put.done + PAGE_BYTES_MAX).min(put.bytes.len());
        }
    }
}
