// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which methods a session may call, and how a call becomes a request: the bytes pass through untouched.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use pli_api::common::Error;
use pli_api::{Caller, Channel, ErrorCode, error_of_status, refusal};
use pli_domain::limits::FRAME_BYTES_MAX;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status};

/// Largest reply that fits a frame with its header.
pub(crate) const REPLY_BYTES_MAX: usize = FRAME_BYTES_MAX - 64;

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Every session, an anonymous one too.
    Anonymous,
    /// Authenticated devices.
    Device,
}

/// Where a method is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Edge,
    Directory,
    Conversations,
    Links,
    Media,
}

/// A method that sessions may call. What is not in [`METHODS`] does not exist for them; `GetDeviceKey` and `GetRoster`
/// are for edges only and stay out.
pub(crate) struct Method {
    pub(crate) path: &'static str,
    pub(crate) service: Service,
    pub(crate) audience: Audience,
}

const fn method(path: &'static str, service: Service, audience: Audience) -> Method {
    Method { path, service, audience }
}

/// Server info on a session; the request is empty, the reply a `pli.edge.v1.ServerInfo`.
pub(crate) const INFO: &str = "/pli.edge.v1.Edge/Info";

pub(crate) const METHODS: &[Method] = &[
    method(INFO, Service::Edge, Audience::Anonymous),
    method("/pli.directory.v1.Directory/Register", Service::Directory, Audience::Anonymous),
    method("/pli.directory.v1.Directory/Lookup", Service::Directory, Audience::Device),
    method("/pli.directory.v1.Directory/GetDeviceLists", Service::Directory, Audience::Device),
    method("/pli.directory.v1.Directory/PutDeviceList", Service::Directory, Audience::Device),
    method("/pli.directory.v1.Directory/PublishKeyPackages", Service::Directory, Audience::Device),
    method("/pli.directory.v1.Directory/ClaimKeyPackages", Service::Directory, Audience::Device),
    method("/pli.conversations.v1.Conversations/Create", Service::Conversations, Audience::Device),
    method("/pli.conversations.v1.Conversations/Commit", Service::Conversations, Audience::Device),
    method("/pli.conversations.v1.Conversations/Propose", Service::Conversations, Audience::Device),
    method("/pli.conversations.v1.Conversations/GetCommits", Service::Conversations, Audience::Device),
    method("/pli.conversations.v1.Conversations/GetGroupInfo", Service::Conversations, Audience::Device),
    method("/pli.conversations.v1.Conversations/List", Service::Conversations, Audience::Device),
    method("/pli.conversations.v1.Conversations/ReportFailure", Service::Conversations, Audience::Device),
    method("/pli.conversations.v1.Conversations/FetchPayload", Service::Conversations, Audience::Device),
    method("/pli.conversations.v1.Conversations/PutPayload", Service::Conversations, Audience::Device),
    method("/pli.links.v1.Links/OpenRendezvous", Service::Links, Audience::Anonymous),
    method("/pli.links.v1.Links/JoinRendezvous", Service::Links, Audience::Device),
    // The service asks the approver's side for a device.
    method("/pli.links.v1.Links/PutBlob", Service::Links, Audience::Anonymous),
    method("/pli.links.v1.Links/WaitBlob", Service::Links, Audience::Anonymous),
    method("/pli.media.v1.Media/BeginUpload", Service::Media, Audience::Device),
    method("/pli.media.v1.Media/GetUpload", Service::Media, Audience::Device),
    method("/pli.media.v1.Media/PutPart", Service::Media, Audience::Device),
    method("/pli.media.v1.Media/FinishUpload", Service::Media, Audience::Device),
    method("/pli.media.v1.Media/GetPart", Service::Media, Audience::Device),
    method("/pli.media.v1.Media/DeleteUpload", Service::Media, Audience::Device),
];

/// The method of this path, if the caller may call it.
pub(crate) fn find(path: &str, caller: &Caller) -> Result<&'static Method, Error> {
    let found = METHODS.iter().find(|method| method.path == path);
    let method = found.ok_or_else(|| refusal(ErrorCode::UnknownMethod, "no method of that name can be called"))?;
    if method.audience == Audience::Device {
        caller.authenticated()?;
    }
    Ok(method)
}

/// Passes the bytes to the service and its answer back. The service decodes and judges both.
pub(crate) async fn pass(
    channel: Channel,
    path: &'static str,
    body: Bytes,
    caller: Caller,
    deadline: Duration,
) -> Result<Bytes, Error> {
    let mut request = Request::new(body);
    caller.put(request.metadata_mut());
    let call = async {
        let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(REPLY_BYTES_MAX);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        grpc.unary(request, PathAndQuery::from_static(path), Untouched).await
    };
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(refused(&status)),
        Err(_) => Err(refusal(ErrorCode::Temporary, "the service took too long").retry_after(500)),
    }
}

/// What a service's status is to the client. Bytes that are no request are the client's fault, though tonic calls that
/// internal; the reply is not decoded here, so the sentence can only be about the request.
fn refused(status: &Status) -> Error {
    if status.code() == Code::Internal && status.message().starts_with("failed to decode Protobuf message") {
        let why = status.message();
        return refusal(
            ErrorCode::BadRequest,
            format!("body is not the request of this method: {why}; encode it anew"),
        );
    }
    error_of_status(status)
}

/// A codec that neither encodes nor decodes.
#[derive(Clone, Copy)]
struct Untouched;

impl Codec for Untouched {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Untouched {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.put(item);
        Ok(())
    }
}

impl Decoder for Untouched {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(src.copy_to_bytes(src.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use pli_domain::{AccountId, DeviceAddress, DeviceId};

    use super::*;

    #[test]
    fn the_page_names_every_method_and_who_may_call_it() {
        let page = include_str!("../../../docs/protocol.md");
        let rows = page.lines().filter(|line| line.starts_with("| `/pli."));
        let shown: Vec<(&str, bool)> = rows
            .filter_map(|row| {
                let mut cells = row.split('|').map(str::trim).skip(1);
                Some((cells.next()?.trim_matches('`'), cells.next()? == "everybody"))
            })
            .collect();
        let known: Vec<_> = METHODS.iter().map(|m| (m.path, m.audience == Audience::Anonymous)).collect();
        assert_eq!(shown, known);
    }

    #[test]
    fn internal_methods_do_not_exist_for_sessions() {
        let device = DeviceAddress { account: AccountId::from_bytes([1; 16]), device: DeviceId::from_bytes([2; 16]) };
        let caller = Caller { device: Some(device), address: None };
        for path in
            ["/pli.directory.v1.Directory/GetDeviceKey", "/pli.conversations.v1.Conversations/GetRoster", "", "/"]
        {
            let refused = find(path, &caller).err().map(|error| error.code());
            assert_eq!(refused, Some(ErrorCode::UnknownMethod), "{path}");
        }
    }

    #[test]
    fn an_anonymous_session_may_register_read_server_info_and_be_linked_only() {
        let allowed: Vec<_> =
            METHODS.iter().filter(|m| find(m.path, &Caller::default()).is_ok()).map(|m| m.path).collect();
        let expected = [
            INFO,
            "/pli.directory.v1.Directory/Register",
            "/pli.links.v1.Links/OpenRendezvous",
            "/pli.links.v1.Links/PutBlob",
            "/pli.links.v1.Links/WaitBlob",
        ];
        assert_eq!(allowed, expected);
    }
}
