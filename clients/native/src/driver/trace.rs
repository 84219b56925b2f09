// SPDX-License-Identifier: MIT OR Apache-2.0
//! What passes, for logs: kinds of frames, refusals in words, never content.

use pli_api::edge::{ClientFrame, ServerFrame, client_frame, reply, send_result, server_frame};

use super::sentence;

/// A frame of the server.
pub(super) fn received(frame: &ServerFrame) {
    use server_frame::Frame;
    match &frame.frame {
        Some(Frame::Reply(answer)) => match &answer.result {
            Some(reply::Result::Error(why)) => tracing::debug!(why = sentence(why), "the server refused a call"),
            _ => tracing::trace!(id = answer.id, "reply"),
        },
        Some(Frame::SendResults(results)) => {
            for result in &results.results {
                if let Some(send_result::Result::Refused(why)) = &result.result {
                    tracing::debug!(why = sentence(why), "the server refused a message");
                }
            }
            tracing::trace!(count = results.results.len(), "send results");
        }
        Some(Frame::Close(close)) => {
            let why = close.reason.as_ref().map(sentence);
            tracing::debug!(why, reconnect = close.reconnect, "the server closes the session");
        }
        Some(Frame::Deliver(deliver)) => tracing::trace!(position = deliver.position, "deliver"),
        Some(Frame::Settled(batch)) => tracing::trace!(count = batch.settled.len(), "settled"),
        Some(Frame::CaughtUp(_)) => tracing::trace!("caught up"),
        Some(Frame::Gap(_)) => tracing::debug!("gap"),
        Some(_) => tracing::trace!("another frame"),
        None => tracing::debug!("a frame of an unknown kind"),
    }
}

/// Frames on their way out.
pub(super) fn sent(frames: &[ClientFrame]) {
    use client_frame::Frame;
    for frame in frames {
        match &frame.frame {
            Some(Frame::Call(call)) => tracing::trace!(id = call.id, method = call.method, "call"),
            Some(Frame::Send(batch)) => tracing::trace!(count = batch.sends.len(), "send"),
            Some(Frame::Pending(pending)) => tracing::trace!(count = pending.receipts.len(), "pending"),
            Some(Frame::Ack(ack)) => tracing::trace!(position = ack.position, "ack"),
            _ => tracing::trace!("another frame out"),
        }
    }
}
