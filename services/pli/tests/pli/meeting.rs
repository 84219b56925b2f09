// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bare sessions over WebSocket, and two devices that meet through them at a rendezvous.

use std::time::{Duration, Instant};

use bytes::Bytes;
use pli_api::common::Error;
use pli_api::directory::{RegisterRequest, RegisterResponse};
use pli_api::edge::{Binding, Call, ClientFrame, ClientHello, client_frame, reply, server_frame};
use pli_api::links::{
    JoinRendezvousRequest, JoinRendezvousResponse, OpenRendezvousRequest, OpenRendezvousResponse, PutBlobRequest,
    PutBlobResponse, Side, WaitBlobRequest, WaitBlobResponse,
};
use pli_client::{Connector, FrameSink, FrameStream, ServerAddress, Transport};
use pli_client_core::identity::Identity;
use prost::Message;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// The longest wait that is asked for; the server's own bound is shorter.
const WAIT_MS: u32 = 20_000;

/// Where an edge is, and what it shows.
#[derive(Debug, Clone)]
pub struct Place {
    pub address: String,
    pub fingerprint: String,
}

/// An open session.
pub struct Session {
    sink: FrameSink,
    stream: FrameStream,
    calls: u64,
}

fn frame(frame: client_frame::Frame) -> ClientFrame {
    ClientFrame { frame: Some(frame) }
}

impl Session {
    /// Anonymous without an identity.
    async fn open(place: &Place, identity: Option<&Identity>) -> Self {
        Self::try_open(place, identity).await.expect("ready")
    }

    /// The session, or why the edge closed it after the hello.
    async fn try_open(place: &Place, identity: Option<&Identity>) -> Result<Self, Error> {
        let address: ServerAddress = place.address.parse().expect("an address");
        let pin = place.fingerprint.parse().expect("a fingerprint");
        let connection = Connector::new(Some(pin), Transport::WebSocket).open(&address).await.expect("connected");
        let exporter = connection.exporter;
        let (mut sink, mut stream) = connection.split();
        let greeted = stream.next().await.expect("a hello").frame;
        let Some(server_frame::Frame::Hello(server)) = greeted else { panic!("no hello but {greeted:?}") };
        let mut hello = ClientHello { version: 1, user_agent: "pli-tests/0.1.0".into(), ..ClientHello::default() };
        if let Some(identity) = identity {
            let device = identity.address();
            hello.account = Bytes::copy_from_slice(device.account.as_bytes());
            hello.device = Bytes::copy_from_slice(device.device.as_bytes());
            hello.host = address.authority();
            hello.signature = Bytes::copy_from_slice(&identity.authenticate(&hello.host, &server.nonce, &exporter));
            hello.set_binding(Binding::TlsExporter);
        }
        sink.send(&[frame(client_frame::Frame::Hello(hello))]).await.expect("sent");
        match stream.next().await.expect("an answer to the hello").frame {
            Some(server_frame::Frame::Ready(_)) => Ok(Self { sink, stream, calls: 0 }),
            Some(server_frame::Frame::Close(close)) => Err(close.reason.expect("a reason")),
            other => panic!("not ready but {other:?}"),
        }
    }

    pub async fn anonymous(place: &Place) -> Self {
        Self::open(place, None).await
    }

    /// Of a new account.
    pub async fn registered(place: &Place, handle: &str) -> (Self, Identity) {
        let handle = handle.parse().expect("a handle");
        let identity = Identity::create(handle, &mut ChaCha8Rng::from_seed(rand::rng().random()));
        let devices = identity.device_list();
        let request = RegisterRequest { handle: identity.handle().to_string(), devices, invite: String::new() };
        let mut stranger = Self::anonymous(place).await;
        let registered = stranger.call::<RegisterResponse>("/pli.directory.v1.Directory/Register", &request).await;
        registered.expect("registered");
        (Self::of(place, &identity).await, identity)
    }

    pub async fn of(place: &Place, identity: &Identity) -> Self {
        Self::open(place, Some(identity)).await
    }

    /// Why a device may not open a session.
    pub async fn refused(place: &Place, identity: &Identity) -> Error {
        Self::try_open(place, Some(identity)).await.err().expect("is refused")
    }

    /// Why the edge ended the session; waits until it does.
    pub async fn closed(mut self) -> Error {
        loop {
            if let Some(server_frame::Frame::Close(close)) = self.stream.next().await.expect("a frame").frame {
                return close.reason.expect("a reason");
            }
        }
    }

    /// Calls a method and waits for its answer; other frames are passed over.
    pub async fn call<A: Message + Default>(&mut self, method: &str, request: &impl Message) -> Result<A, Error> {
        self.calls += 1;
        let call = Call { id: self.calls, method: method.into(), body: request.encode_to_vec().into() };
        self.sink.send(&[frame(client_frame::Frame::Call(call))]).await.expect("sent");
        loop {
            if let Some(server_frame::Frame::Reply(answer)) = self.stream.next().await.expect("a frame").frame {
                return match answer.result.expect("a result") {
                    reply::Result::Body(body) => Ok(A::decode(body).expect("an answer")),
                    reply::Result::Error(error) => Err(error),
                };
            }
        }
    }
}

/// What the code of a new device says, and what the new device keeps to itself.
#[derive(Clone)]
pub struct Code {
    pub rendezvous: Bytes,
    pub secret: Bytes,
    pub opener_secret: Bytes,
}

fn random<const N: usize>() -> Bytes {
    Bytes::copy_from_slice(&rand::random::<[u8; N]>())
}

fn sha256(secret: &Bytes) -> Bytes {
    Sha256::digest(secret).to_vec().into()
}

impl Code {
    pub fn draw() -> Self {
        Self { rendezvous: random::<16>(), secret: random::<32>(), opener_secret: random::<32>() }
    }
}

/// One side of a rendezvous.
pub struct End {
    pub session: Session,
    code: Code,
    side: Side,
}

impl End {
    /// The new device, which opens it.
    pub async fn open(mut session: Session, code: &Code) -> Self {
        let request = OpenRendezvousRequest {
            rendezvous: code.rendezvous.clone(),
            opener_secret_sha256: sha256(&code.opener_secret),
            approver_secret_sha256: sha256(&code.secret),
        };
        let opened: Result<OpenRendezvousResponse, _> =
            session.call("/pli.links.v1.Links/OpenRendezvous", &request).await;
        assert!((1..=60_000).contains(&opened.expect("opened").left_ms));
        Self::again(session, code, Side::Opener)
    }

    /// Who is in already, on another session.
    pub fn again(session: Session, code: &Code, side: Side) -> Self {
        Self { session, code: code.clone(), side }
    }

    /// A device that has read the code.
    pub async fn join(mut session: Session, code: &Code) -> Result<Self, (Error, Session)> {
        let request = JoinRendezvousRequest { rendezvous: code.rendezvous.clone(), secret: code.secret.clone() };
        match session.call::<JoinRendezvousResponse>("/pli.links.v1.Links/JoinRendezvous", &request).await {
            Ok(_) => Ok(Self::again(session, code, Side::Approver)),
            Err(error) => Err((error, session)),
        }
    }

    fn secret(&self) -> Bytes {
        if self.side == Side::Opener { self.code.opener_secret.clone() } else { self.code.secret.clone() }
    }

    pub async fn put(&mut self, number: u32, blob: &[u8]) -> Result<(), Error> {
        let (rendezvous, side, secret) = (self.code.rendezvous.clone(), self.side.into(), self.secret());
        let request = PutBlobRequest { rendezvous, side, secret, number, blob: Bytes::copy_from_slice(blob) };
        self.session.call::<PutBlobResponse>("/pli.links.v1.Links/PutBlob", &request).await.map(|_| ())
    }

    pub async fn wait(&mut self, number: u32, wait_ms: u32) -> Result<Bytes, Error> {
        let (rendezvous, side, secret) = (self.code.rendezvous.clone(), self.side.into(), self.secret());
        let request = WaitBlobRequest { rendezvous, side, secret, number, wait_ms };
        let answer = self.session.call::<WaitBlobResponse>("/pli.links.v1.Links/WaitBlob", &request).await;
        answer.map(|answer| answer.blob)
    }
}

/// The five steps of linking, each waited for from before it is taken; blobs are as large as they may be.
pub async fn exchange(new_one: &mut End, first: &mut End) {
    let steps = [(true, 1), (false, 1), (true, 2), (false, 2), (true, 3)];
    for (step, (of_new_one, number)) in steps.into_iter().enumerate() {
        let blob = vec![step as u8; 16 * 1024 - step];
        let (putting, waiting) = if of_new_one { (&mut *new_one, &mut *first) } else { (&mut *first, &mut *new_one) };
        let begun = Instant::now();
        let put = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            putting.put(number, &blob).await
        };
        let (put, found) = tokio::join!(put, waiting.wait(number, WAIT_MS));
        put.expect("put");
        assert_eq!(found.expect("an answer"), blob, "step {step}");
        assert!(begun.elapsed() < Duration::from_secs(8), "step {step} took {:?}", begun.elapsed());
    }
}
