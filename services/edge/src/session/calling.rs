// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls of a session.

use bytes::Bytes;
use pli_api::common::Error;
use pli_api::edge::{Call, Reply, reply, server_frame::Frame};
use pli_api::{Caller, ErrorCode};
use pli_runtime::trail::{Span, SpanKind, within};
use prost::Message;

use super::Session;
use super::inbox::End;
use super::wire::Wire;
use crate::config::ms;
use crate::method::{self, Service};

impl Session {
    /// Passes a call on; its reply comes by the inbox. Bound: `call_window` calls are open, then nothing is read from
    /// the client. A call that was begun goes on when the session ends, within its deadline.
    pub(super) fn on_call(&mut self, call: Call, wire: &mut Wire) {
        let caller = Caller { device: self.who.device, address: self.who.address };
        let allowed = self.limits.call().and_then(|()| method::find(&call.method, &caller));
        let method = match allowed {
            Ok(method) => method,
            Err(error) => {
                self.shared.metrics.call_refused(&error);
                return wire.push(reply(call.id, Err(error)));
            }
        };
        let channel = match method.service {
            Service::Edge => {
                let info = self.shared.info().encode_to_vec().into();
                return wire.push(reply(call.id, Ok(info)));
            }
            Service::Directory => self.shared.ports.directory.clone(),
            Service::Conversations => self.shared.ports.conversations.clone(),
            Service::Links => self.shared.ports.links.clone(),
            Service::Media => self.shared.ports.media.clone(),
        };
        self.calls_open += 1;
        self.shared.metrics.calls.add(1, &[]);
        let (inbox, deadline) = (self.inbox.clone(), ms(self.shared.config.call_ms));
        let (metrics, mut span) =
            (self.shared.metrics.clone(), self.shared.metrics.notes.begin("call", SpanKind::Server));
        if let Some(span) = &mut span {
            span.say("rpc.method", method.path);
        }
        tokio::spawn(async move {
            let pass = method::pass(channel, method.path, call.body, caller, deadline);
            let answer = within(span.as_ref().map(Span::context), pass).await;
            metrics.notes.end(span, answer.as_ref().err());
            // The service knows it first where the word to edges was lost.
            let removed = answer.as_ref().is_err_and(|error| error.code() == ErrorCode::DeviceRemoved);
            if let Frame::Reply(reply) = reply(call.id, answer) {
                inbox.leave(|mail| {
                    mail.replies.push(reply);
                    mail.end = mail.end.or(removed.then_some(End::Removed));
                });
            }
        });
    }
}

fn reply(id: u64, answer: Result<Bytes, Error>) -> Frame {
    let result = match answer {
        Ok(body) => reply::Result::Body(body),
        Err(error) => reply::Result::Error(error),
    };
    Frame::Reply(Reply { id, result: Some(result) })
}
