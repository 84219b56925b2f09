// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rivals at a rendezvous that do not share a process, so that only the database decides between them.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use pli_domain::limits::RENDEZVOUS_BLOBS_MAX;
use pli_domain::{
    AccountId, DeviceAddress, DeviceId, NoPlace, NotAdmitted, Party, RendezvousId, SecretHash, UnixMillis,
};
use pli_ports::{Access, JoinRendezvousError, Links, NewRendezvous, OpenRendezvousError, PutBlobError};
use pli_testkit::time::START;

use crate::support::server;

const ROUNDS: u8 = 6;
/// Openings of the engine, each with its own connection, clock and turns.
const OPENINGS: usize = 6;
const APPROVER: SecretHash = SecretHash::from_bytes([9; 32]);
const END: UnixMillis = UnixMillis(START.0 + 600_000);

type Openings = [Arc<dyn Links>];

fn device(n: usize) -> DeviceAddress {
    let bytes = [n as u8; 16];
    DeviceAddress { account: AccountId::from_bytes(bytes), device: DeviceId::from_bytes(bytes) }
}

/// Which of all won; the others must have been refused as expected.
fn winner<T: Debug, E: Debug>(answers: &[Result<T, E>], refused: impl Fn(&E) -> bool) -> usize {
    let others = answers.iter().filter(|answer| answer.as_ref().is_err_and(&refused)).count();
    let won = answers.iter().position(Result::is_ok);
    assert_eq!(others + 1, answers.len(), "not one winner: {answers:?}");
    won.unwrap()
}

/// Opens a rendezvous with another secret at each; answers the secret that won.
async fn open(openings: &Openings, id: RendezvousId) -> SecretHash {
    let secret = |n: usize| SecretHash::from_bytes([n as u8 + 1; 32]);
    let opened = openings.iter().enumerate().map(|(n, links)| {
        let new = NewRendezvous { id, opener: secret(n), approver: APPROVER, expires_at: END };
        links.open_rendezvous(new, START)
    });
    secret(winner(&join_all(opened).await, |error| matches!(error, OpenRendezvousError::IdTaken)))
}

/// Another device joins at each; answers the one that did.
async fn join(openings: &Openings, id: RendezvousId) -> DeviceAddress {
    let all = openings.iter().enumerate();
    let joined = all.map(|(n, links)| links.join_rendezvous(id, (APPROVER, device(n)), START));
    let taken = |error: &_| matches!(error, JoinRendezvousError::NotAdmitted(NotAdmitted::Taken));
    device(winner(&join_all(joined).await, taken))
}

/// Puts the first blob at each, with other bytes, then all up to the eighth, for which the two sides race.
async fn put(openings: &Openings, opener: Access, approver: Access) {
    let text = |n: usize| Bytes::from(format!("blob of rival {n}"));
    let all = openings.iter().enumerate();
    let first = join_all(all.map(|(n, links)| links.put_blob(opener, 1, text(n)))).await;
    let first = text(winner(&first, |error| matches!(error, PutBlobError::Conflict)));
    for links in openings {
        assert_eq!(links.blob(approver, 1).await.unwrap(), Some(first.clone()), "all see the winner's");
    }
    for number in 2..RENDEZVOUS_BLOBS_MAX {
        openings[usize::from(number) % OPENINGS].put_blob(opener, number, text(0)).await.unwrap();
    }
    let sides = [(opener, RENDEZVOUS_BLOBS_MAX), (approver, 1)];
    let last = sides.iter().zip(openings).map(|((side, number), links)| links.put_blob(*side, *number, text(0)));
    winner(&join_all(last).await, |error| matches!(error, PutBlobError::NoPlace(NoPlace::Full)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_alone_decides_between_processes() {
    let Some(server) = server("the_database_alone_decides_between_processes").await else { return };
    let engines = join_all((0..OPENINGS).map(|_| server.engine())).await;
    let openings: Vec<Arc<dyn Links>> = engines.iter().map(pli_engine_cql::CqlEngine::links).collect();
    for round in 0..ROUNDS {
        let id = RendezvousId::from_bytes([0xE0 | round; 16]);
        let opener = Party::Opener(open(&openings, id).await);
        let approver = Party::Approver(APPROVER, join(&openings, id).await);
        put(&openings, Access { id, party: opener, now: START }, Access { id, party: approver, now: START }).await;
    }
}
