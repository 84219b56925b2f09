// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls that are not the core's: passed on as they are, lost with their connection.

use std::collections::BTreeMap;

use bytes::Bytes;
use pli_api::edge::{Call, ClientFrame, Reply, client_frame, reply};
use tokio::sync::oneshot;

use crate::client::CallError;

/// The core counts its calls from 1 and never comes here.
const FIRST_ID: u64 = 1 << 63;
/// Calls that wait at a time; a server reads on only while few are open.
const OPEN_MAX: usize = 4;

type Answer = oneshot::Sender<Result<Bytes, CallError>>;

/// What waits for its answer.
#[derive(Default)]
pub(super) struct Passing {
    made: u64,
    open: BTreeMap<u64, Answer>,
}

impl Passing {
    /// The frame of a call; none where too many wait, whose answer is given.
    pub fn call(&mut self, method: &str, body: Vec<u8>, answer: Answer) -> Option<ClientFrame> {
        // Callers that have gone hold no place.
        self.open.retain(|_, open| !open.is_closed());
        if self.open.len() >= OPEN_MAX {
            let _ = answer.send(Err(CallError::Lost));
            return None;
        }
        let id = FIRST_ID + self.made;
        self.made += 1;
        self.open.insert(id, answer);
        let call = Call { id, method: method.into(), body: body.into() };
        Some(ClientFrame { frame: Some(client_frame::Frame::Call(call)) })
    }

    /// Whether the reply is to one of these calls.
    pub const fn is_for(answer: &Reply) -> bool {
        answer.id >= FIRST_ID
    }

    /// Gives the answer to who called.
    pub fn answered(&mut self, answer: Reply) {
        let Some(waiting) = self.open.remove(&answer.id) else { return };
        let _ = waiting.send(match answer.result {
            Some(reply::Result::Body(body)) => Ok(Bytes::copy_from_slice(&body)),
            Some(reply::Result::Error(why)) => Err(CallError::Refused(Box::new(why))),
            None => Err(CallError::Lost),
        });
    }

    /// The connection is gone.
    pub fn lose(&mut self) {
        for (_, waiting) in std::mem::take(&mut self.open) {
            let _ = waiting.send(Err(CallError::Lost));
        }
    }
}
