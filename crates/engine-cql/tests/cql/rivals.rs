// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rivals at a rendezvous that do not share a process, so that only the database decides between them.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use pli_domain::limits::RENDEZVOUS_BLOBS_MAX;
use pli_domain::{
    AccountId, DeviceAddress, DeviceId, NoPlace, NotAdmitted, Party, RendezvousId, SecretHash, UnixMillis,
};
use pli_ports::{Access, JoinRendezvousError, Links, NewRendezvous, OpenRendezvousError, PutBlobError};
use pli_testkit::time::START;

use crate::support::server;

const ROUNDS: u8 = 10;
const APPROVER: SecretHash = SecretHash::from_bytes([9; 32]);
const END: UnixMillis = UnixMillis(START.0 + 600_000);

/// Two openings of the engine.
type Two = [Arc<dyn Links>; 2];

fn device(n: usize) -> DeviceAddress {
    let bytes = [n as u8; 16];
    DeviceAddress { account: AccountId::from_bytes(bytes), device: DeviceId::from_bytes(bytes) }
}

/// Which of two won; the other must have been refused as expected.
fn winner<T: Debug, E: Debug>(answers: (Result<T, E>, Result<T, E>), refused: impl Fn(&E) -> bool) -> usize {
    match &answers {
        (Ok(_), Err(error)) if refused(error) => 0,
        (Err(error), Ok(_)) if refused(error) => 1,
        _ => panic!("not one winner: {answers:?}"),
    }
}

/// Opens a rendezvous with another secret at each; answers the secret that won.
async fn open(two: &Two, id: RendezvousId) -> SecretHash {
    let secret = |n: usize| SecretHash::from_bytes([n as u8 + 1; 32]);
    let open = |n: usize| {
        let new = NewRendezvous { id, opener: secret(n), approver: APPROVER, expires_at: END };
        two[n].open_rendezvous(new, START)
    };
    let opened = tokio::join!(open(0), open(1));
    secret(winner(opened, |error| matches!(error, OpenRendezvousError::IdTaken)))
}

/// Another device joins at each; answers the one that did.
async fn join(two: &Two, id: RendezvousId) -> DeviceAddress {
    let join = |n: usize| two[n].join_rendezvous(id, (APPROVER, device(n)), START);
    let taken = |error: &_| matches!(error, JoinRendezvousError::NotAdmitted(NotAdmitted::Taken));
    device(winner(tokio::join!(join(0), join(1)), taken))
}

/// Puts the first blob at each, with other bytes, then all up to the eighth, for which the two sides race.
async fn put(two: &Two, opener: Access, approver: Access) {
    let text = |n: usize| Bytes::from(format!("blob of rival {n}"));
    let first = tokio::join!(two[0].put_blob(opener, 1, text(0)), two[1].put_blob(opener, 1, text(1)));
    let first = text(winner(first, |error| matches!(error, PutBlobError::Conflict)));
    for links in two {
        assert_eq!(links.blob(approver, 1).await.unwrap(), Some(first.clone()), "both see the winner's");
    }
    for number in 2..RENDEZVOUS_BLOBS_MAX {
        two[usize::from(number % 2)].put_blob(opener, number, text(0)).await.unwrap();
    }
    let last =
        tokio::join!(two[0].put_blob(opener, RENDEZVOUS_BLOBS_MAX, text(0)), two[1].put_blob(approver, 1, text(1)));
    winner(last, |error| matches!(error, PutBlobError::NoPlace(NoPlace::Full)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_alone_decides_between_two_processes() {
    let Some(server) = server("the_database_alone_decides_between_two_processes").await else { return };
    let two: Two = [server.engine().await.links(), server.engine().await.links()];
    for round in 0..ROUNDS {
        let id = RendezvousId::from_bytes([0xE0 | round; 16]);
        let opener = Party::Opener(open(&two, id).await);
        let approver = Party::Approver(APPROVER, join(&two, id).await);
        put(&two, Access { id, party: opener, now: START }, Access { id, party: approver, now: START }).await;
    }
}
