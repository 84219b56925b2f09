// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames of clients that are valid: those that were recorded, and of every kind and method that they lack.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use pli_api::conversations::{
    CommitRequest, CreateRequest, FetchPayloadRequest, GetCommitsRequest, GetGroupInfoRequest, ListRequest, Object,
    ProposeRequest, PutPayloadRequest, ReportFailureRequest, object,
};
use pli_api::delivery;
use pli_api::directory::{
    ClaimKeyPackagesRequest, GetDeviceListsRequest, LookupRequest, PublishKeyPackagesRequest, PutDeviceListRequest,
    RegisterRequest,
};
use pli_api::edge::client_frame::Frame;
use pli_api::edge::{Ack, Call, ClientFrame, ClientHello, EphemeralSignal, Pending, Ping, Pong, Send, SendBatch};
use pli_api::links::{JoinRendezvousRequest, OpenRendezvousRequest, PutBlobRequest, Side, WaitBlobRequest};
use pli_api::log::Class;
use pli_api::media::{
    BeginUploadRequest, DeleteUploadRequest, FinishUploadRequest, GetPartRequest, GetUploadRequest, PutPartRequest,
};
use pli_testkit::time::START;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::tape::{ALICE, MALLORY, Tape, identity, tape};

const HOUR: Duration = Duration::from_secs(3_600);
/// An upload of one part, named by one's own account: Alice has one of this name too.
pub const UPLOAD: [u8; 16] = [11; 16];
/// Single-use key packages that a recorded publication keeps: each costs two signature checks in every run.
const PACKAGES_KEPT: usize = 2;

/// See the module.
pub struct Templates {
    frames: Vec<Bytes>,
    setup: Vec<(usize, ClientFrame)>,
}

/// Made once.
pub fn templates() -> &'static Templates {
    static TEMPLATES: OnceLock<Templates> = OnceLock::new();
    TEMPLATES.get_or_init(|| {
        let tape = tape();
        let mut frames = made(tape);
        frames.extend(tape.attack.iter().cloned());
        let setup = tape.setup.iter().map(|(n, frame)| (*n, trimmed(frame.clone()))).collect();
        Templates { frames, setup }
    })
}

impl Templates {
    /// The frame of this number, counted round.
    pub fn frame(&self, n: u16) -> &Bytes {
        &self.frames[usize::from(n) % self.frames.len()]
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.frames.len()
    }
    /// The recorded calls that set everything up.
    pub fn setup(&self) -> &[(usize, ClientFrame)] {
        &self.setup
    }
}

fn trimmed(mut frame: ClientFrame) -> ClientFrame {
    if let Some(Frame::Call(call)) = &mut frame.frame
        && call.method.ends_with("/PublishKeyPackages")
    {
        let mut request = PublishKeyPackagesRequest::decode(call.body.clone()).expect("as it was sent");
        request.key_packages.truncate(PACKAGES_KEPT);
        call.body = request.encode_to_vec().into();
    }
    frame
}

/// Frames of every kind, and calls of every method.
fn made(tape: &Tape) -> Vec<Bytes> {
    let group = Bytes::copy_from_slice(tape.group.0.as_bytes());
    let chat = Bytes::copy_from_slice(tape.chat.0.as_bytes());
    let send = |conversation: &Bytes, epoch: u64, id: u8| Send {
        send_id: vec![id; 16].into(),
        conversation: conversation.clone(),
        epoch,
        class: Class::Message.into(),
        expires_at_ms: START.after(HOUR).0,
        body: vec![id; 64].into(),
    };
    let part = delivery::ReceiptPart { shard: 0, seq: 1, entry: vec![1; 16].into(), log_epoch: 0 };
    let receipt = delivery::QueryReceipts { parts: vec![part] }.encode_to_vec();
    let mut frames = vec![
        Frame::Send(SendBatch { sends: vec![send(&group, tape.group.1, 200)] }),
        Frame::Send(SendBatch { sends: vec![send(&chat, tape.chat.1, 201), send(&group, tape.group.1, 202)] }),
        Frame::Pending(Pending { receipts: vec![receipt.into()] }),
        Frame::Ack(Ack { position: 1 << 20 }),
        Frame::Signal(EphemeralSignal { conversation: group.clone(), body: vec![1].into() }),
        Frame::Ping(Ping { id: 7 }),
        Frame::Pong(Pong { id: 7 }),
        Frame::Hello(ClientHello { version: 1, ..ClientHello::default() }),
    ];
    let conversation_calls = [conversation_calls(tape, &group), conversation_calls(tape, &chat)].concat();
    let calls = [directory_calls(tape), conversation_calls, link_calls(), media_calls()].concat();
    let call =
        |(method, body): (&str, Vec<u8>)| Frame::Call(Call { id: 1_000, method: method.into(), body: body.into() });
    frames.extend(calls.into_iter().map(call));
    frames.into_iter().map(|frame| ClientFrame { frame: Some(frame) }.encode_to_vec().into()).collect()
}

/// Methods, each with the encoded request.
pub type Calls = Vec<(&'static str, Vec<u8>)>;

fn directory_calls(tape: &Tape) -> Calls {
    let (mallory, alice) = (identity(&tape.rows[MALLORY]), identity(&tape.rows[ALICE]));
    let accounts = [&mallory, &alice].map(|one| Bytes::copy_from_slice(one.address().account.as_bytes()));
    let devices = mallory.device_list();
    let register = RegisterRequest { handle: "mallory2".into(), devices: devices.clone(), invite: String::new() };
    let known = GetDeviceListsRequest { accounts: accounts.to_vec(), known: vec![1, 0] };
    let claim = ClaimKeyPackagesRequest { devices: vec![alice.address().into(), mallory.address().into()] };
    let packages = PublishKeyPackagesRequest { key_packages: vec![vec![1; 100].into()], last_resort: Bytes::new() };
    vec![
        ("/pli.edge.v1.Edge/Info", Vec::new()),
        ("/pli.directory.v1.Directory/Register", register.encode_to_vec()),
        ("/pli.directory.v1.Directory/Lookup", LookupRequest { handle: "alice".into() }.encode_to_vec()),
        ("/pli.directory.v1.Directory/GetDeviceLists", known.encode_to_vec()),
        ("/pli.directory.v1.Directory/PutDeviceList", PutDeviceListRequest { devices }.encode_to_vec()),
        ("/pli.directory.v1.Directory/PublishKeyPackages", packages.encode_to_vec()),
        ("/pli.directory.v1.Directory/ClaimKeyPackages", claim.encode_to_vec()),
    ]
}

fn conversation_calls(tape: &Tape, conversation: &Bytes) -> Calls {
    let conversation = conversation.clone();
    let commits = GetCommitsRequest { conversation: conversation.clone(), from: 0 };
    let (reason, renew) = ("tree_hash".into(), vec![identity(&tape.rows[ALICE]).address().into()]);
    let failure = ReportFailureRequest { conversation: conversation.clone(), epoch: 1, reason, renew };
    let put = PutPayloadRequest { id: vec![3; 16].into(), bytes: vec![3; 90].into(), offset: 0, size: 90 };
    let object = |bytes: u8| Some(Object { object: Some(object::Object::Inline(vec![bytes; 80].into())) });
    let create = CreateRequest { group_info: object(1) };
    let commit = CommitRequest { conversation: conversation.clone(), commit: object(2), ..CommitRequest::default() };
    let propose = ProposeRequest { conversation: conversation.clone(), ..ProposeRequest::default() };
    vec![
        ("/pli.conversations.v1.Conversations/GetGroupInfo", GetGroupInfoRequest { conversation }.encode_to_vec()),
        ("/pli.conversations.v1.Conversations/GetCommits", commits.encode_to_vec()),
        ("/pli.conversations.v1.Conversations/List", ListRequest::default().encode_to_vec()),
        ("/pli.conversations.v1.Conversations/ReportFailure", failure.encode_to_vec()),
        ("/pli.conversations.v1.Conversations/PutPayload", put.encode_to_vec()),
        (
            "/pli.conversations.v1.Conversations/FetchPayload",
            FetchPayloadRequest { id: vec![3; 16].into(), offset: 0 }.encode_to_vec(),
        ),
        ("/pli.conversations.v1.Conversations/Create", create.encode_to_vec()),
        ("/pli.conversations.v1.Conversations/Commit", commit.encode_to_vec()),
        ("/pli.conversations.v1.Conversations/Propose", propose.encode_to_vec()),
    ]
}

/// A rendezvous of which Mallory has both secrets.
fn link_calls() -> Calls {
    let (rendezvous, secret) = (Bytes::from(vec![4; 16]), Bytes::from(vec![8; 32]));
    let hash = Bytes::from(Sha256::digest(&secret).to_vec());
    let open = OpenRendezvousRequest {
        rendezvous: rendezvous.clone(),
        opener_secret_sha256: hash.clone(),
        approver_secret_sha256: hash,
    };
    let join = JoinRendezvousRequest { rendezvous: rendezvous.clone(), secret: secret.clone() };
    let put = PutBlobRequest {
        rendezvous: rendezvous.clone(),
        side: Side::Opener.into(),
        secret: secret.clone(),
        number: 1,
        blob: vec![6; 50].into(),
    };
    let wait = WaitBlobRequest { rendezvous, side: Side::Approver.into(), secret, number: 1, wait_ms: 100 };
    vec![
        ("/pli.links.v1.Links/OpenRendezvous", open.encode_to_vec()),
        ("/pli.links.v1.Links/JoinRendezvous", join.encode_to_vec()),
        ("/pli.links.v1.Links/PutBlob", put.encode_to_vec()),
        ("/pli.links.v1.Links/WaitBlob", wait.encode_to_vec()),
    ]
}

/// Those that put an upload of one part, finish it and read it, and those that begin another one of two parts and delete
/// it: in their order all of them are answered.
pub fn media_calls() -> Calls {
    let (upload, deleted) = (Bytes::from(UPLOAD.to_vec()), Bytes::from(vec![12; 16]));
    let delete = DeleteUploadRequest { upload: deleted.clone() };
    let two = BeginUploadRequest { upload: deleted, bytes: pli_domain::limits::MEDIA_PART_BYTES + 7 };
    let mut calls = upload_calls(&[13; 90]);
    calls.extend([
        ("/pli.media.v1.Media/GetUpload", GetUploadRequest { upload: upload.clone() }.encode_to_vec()),
        ("/pli.media.v1.Media/GetPart", GetPartRequest { upload, number: 1 }.encode_to_vec()),
        ("/pli.media.v1.Media/BeginUpload", two.encode_to_vec()),
        ("/pli.media.v1.Media/DeleteUpload", delete.encode_to_vec()),
    ]);
    calls
}

/// The calls that put [`UPLOAD`] with this part and finish it.
pub fn upload_calls(part: &[u8]) -> Calls {
    let upload = Bytes::from(UPLOAD.to_vec());
    let begin = BeginUploadRequest { upload: upload.clone(), bytes: part.len() as u64 };
    let sha256 = Sha256::digest(part).to_vec().into();
    let put = PutPartRequest { upload: upload.clone(), number: 1, part: Bytes::copy_from_slice(part), sha256 };
    vec![
        ("/pli.media.v1.Media/BeginUpload", begin.encode_to_vec()),
        ("/pli.media.v1.Media/PutPart", put.encode_to_vec()),
        ("/pli.media.v1.Media/FinishUpload", FinishUploadRequest { upload }.encode_to_vec()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For edges only.
    const INSIDE: [&str; 2] =
        ["/pli.directory.v1.Directory/GetDeviceKey", "/pli.conversations.v1.Conversations/GetRoster"];

    #[test]
    fn every_method_and_every_kind_of_frame_has_a_template() {
        let pool = prost_reflect::DescriptorPool::decode(pli_api::DESCRIPTORS).expect("the contracts");
        let methods = pool.services().flat_map(|service| {
            let name = service.full_name().to_owned();
            service.methods().map(move |method| format!("/{name}/{}", method.name())).collect::<Vec<_>>()
        });
        let frames = templates().frames.iter().map(|bytes| ClientFrame::decode(bytes.clone()).expect("valid"));
        let frames: Vec<Frame> = frames.filter_map(|frame| frame.frame).collect();
        for method in methods.filter(|method| !INSIDE.contains(&method.as_str())) {
            assert!(frames.iter().any(|f| matches!(f, Frame::Call(call) if call.method == method)), "{method}");
        }
        let kinds = pool.get_message_by_name("pli.edge.v1.ClientFrame").expect("a message").fields().len();
        let first: std::collections::BTreeSet<u8> = templates().frames.iter().map(|bytes| bytes[0]).collect();
        assert_eq!(first.len(), kinds, "each kind has a tag of its own");
    }
}
