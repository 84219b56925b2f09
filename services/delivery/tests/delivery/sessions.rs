// SPDX-License-Identifier: MIT OR Apache-2.0
//! Announcements, hellos and acknowledgements that lie, displacement, removal.

use std::time::Duration;

use bytes::Bytes;
use pli_api::delivery::{RemoveDevice, Withdraw, edge_signal, owner_reply, owner_request};
use pli_domain::{LogEpoch, Position, Seq};
use pli_ports::{DeviceQueues, UsageBound};
use tokio::time::sleep;

use crate::harness::{SPILLS, Shard, body, device, session};

fn position(epoch: u64, seq: u64) -> u64 {
    Position::new(LogEpoch::new(epoch).expect("fits"), Seq::new(seq).expect("fits"), 0).get()
}

#[tokio::test(start_paused = true)]
async fn a_hello_above_the_head_or_in_an_unknown_epoch_is_ignored_and_counted() {
    let shard = Shard::new(300);
    let _owner = shard.owner();
    shard.append(&[(&[1], 0)]).await;
    shard.until("read", |c| c.entries == 1).await;
    let edge = shard.edge(1).await;
    for (n, lie) in [position(1, 2), position(2, 1), position(1, 1 << 39)].into_iter().enumerate() {
        let registered = edge.announce(1, n as u8, lie, true).await;
        assert!(registered.position_ignored, "{lie:x}");
        assert_eq!(registered.from, 0);
    }
    assert_eq!(shard.counts().positions_ignored, 3);
    assert_eq!(edge.drain(1, 0).await.bodies(), [body(0)]);
}

#[tokio::test(start_paused = true)]
async fn a_hello_that_lies_does_not_hide_the_stored_cursor() {
    let shard = Shard::new(0);
    let owner = shard.owner();
    shard.append(&[(&[1], 0), (&[1], 1)]).await;
    shard.until("rows", |c| c.rows_written == 2).await;
    let edge = shard.edge(1).await;
    edge.announce(1, 1, 0, true).await;
    edge.ack(1, position(1, 1)).await;
    shard.until("the cursor is stored", |c| c.registers_written > 0).await;
    owner.crash().await;
    let _owner = shard.owner();
    shard.until("started again", |c| c.epochs_begun == 2).await;
    let registered = edge.announce(1, 2, position(2, 1 << 39), true).await;
    assert!(registered.position_ignored);
    assert_eq!(registered.from, position(1, 1));
}

#[tokio::test(start_paused = true)]
async fn acks_above_the_head_are_ignored_and_lower_ones_change_nothing() {
    let shard = Shard::new(10_000);
    let _owner = shard.owner();
    for n in 0..3 {
        shard.append(&[(&[1], n)]).await;
    }
    shard.until("read", |c| c.entries == 3).await;
    let edge = shard.edge(1).await;
    edge.announce(1, 1, 0, true).await;
    for lie in [position(1, 4), position(3, 1), u64::MAX] {
        edge.ack(1, lie).await;
    }
    shard.until("ignored", |c| c.acks_ignored == 2 && c.malformed == 1).await;
    assert_eq!(edge.drain(1, 0).await.shown.len(), 3);
    edge.ack(1, position(1, 2)).await;
    edge.ack(1, position(1, 1)).await;
    shard.until("acknowledged", |c| c.acked == 2).await;
    let registered = edge.announce(1, 1, position(1, 1), false).await;
    assert_eq!(registered.from, position(1, 2), "a cursor never goes back");
    assert_eq!(edge.drain(1, 0).await.bodies(), [body(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_hello_counts_as_an_acknowledgement() {
    for spill in SPILLS {
        let shard = Shard::new(spill);
        let owner = shard.owner();
        for n in 0..4 {
            shard.append(&[(&[1], n)]).await;
        }
        shard.until("read", |c| c.entries == 4).await;
        sleep(Duration::from_secs(1)).await;
        let edge = shard.edge(1).await;
        let registered = edge.announce(1, 1, position(1, 3), true).await;
        assert_eq!(registered.from, position(1, 3));
        assert_eq!(edge.drain(1, registered.from).await.bodies(), [body(3)]);
        owner.release().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_session_displaces_the_first_and_both_are_rung_until_it_withdraws() {
    let shard = Shard::new(10_000);
    let _owner = shard.owner();
    let (mut old, mut new) = (shard.edge(1).await, shard.edge(2).await);
    old.announce(1, 1, 0, true).await;
    new.announce(1, 2, 0, true).await;
    let displaced = old
        .signal(|signal| match signal {
            edge_signal::Signal::Displace(displace) => Some(displace),
            _ => None,
        })
        .await;
    assert_eq!(displaced.session.as_ref(), session(1).as_bytes());
    assert!(!displaced.removed);
    shard.append(&[(&[1], 1)]).await;
    assert_eq!(old.bell().await.position, new.bell().await.position);
    let withdraw = Withdraw {
        session: Bytes::copy_from_slice(session(1).as_bytes()),
        device: Bytes::copy_from_slice(device(1).as_bytes()),
    };
    old.send(owner_request::Request::Withdraw(withdraw)).await;
    // Requests on one subject are taken in order, so the withdrawal is done when this is answered.
    new.announce(1, 2, 0, false).await;
    shard.append(&[(&[1], 2)]).await;
    new.bell().await;
    assert_eq!(shard.counts().doorbells, 3);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_a_new_owner_learns_of_late_is_told_to_read() {
    let shard = Shard::new(10_000);
    let owner = shard.owner();
    let mut edge = shard.edge(1).await;
    edge.announce(1, 1, 0, true).await;
    owner.crash().await;
    shard.append(&[(&[1], 1)]).await;
    let _owner = shard.owner();
    shard.until("read", |c| c.entries == 1).await;
    assert!(edge.announce(1, 1, 0, false).await.mail_waiting);
    let bell = edge.bell().await;
    assert_eq!((bell.prev, bell.envelope.len()), (None, 0));
    assert_eq!(shard.counts().unknown_prev_sent, 1);
}

#[tokio::test(start_paused = true)]
async fn a_removed_device_loses_its_queue_and_its_sessions() {
    for spill in SPILLS {
        let shard = Shard::new(spill);
        let _owner = shard.owner();
        let mut edge = shard.edge(1).await;
        edge.announce(1, 1, 0, true).await;
        shard.append(&[(&[1], 1)]).await;
        shard.until("read", |c| c.entries == 1).await;
        sleep(Duration::from_secs(1)).await;
        let remove = RemoveDevice { device: Bytes::copy_from_slice(device(1).as_bytes()) };
        let removed = edge.ask(owner_request::Request::RemoveDevice(remove)).await;
        assert!(matches!(removed, owner_reply::Reply::Removed(_)));
        let told = edge
            .signal(|signal| match signal {
                edge_signal::Signal::Displace(displace) => Some(displace.removed),
                _ => None,
            })
            .await;
        assert!(told);
        shard.append(&[(&[1], 2)]).await;
        shard.until("settled", |c| c.entries == 2 && c.settles > 0).await;
        sleep(Duration::from_secs(12)).await;
        let queues = shard.world.queues();
        let bound = UsageBound { rows_max: 10, bytes_max: 1_000 };
        let usage = queues.usage(device(1), Position::ZERO, bound, shard.clock_now_after(Duration::ZERO)).await;
        assert_eq!(usage.expect("readable").rows, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn nonsense_on_the_subject_is_counted_and_harmless() {
    let shard = Shard::new(300);
    let _owner = shard.owner();
    let edge = shard.edge(1).await;
    edge.announce(1, 1, 0, true).await;
    let signals = shard.world.signals();
    let subject = pli_ports::Subject::owner(crate::harness::SHARD);
    for junk in [&b""[..], b"\x08\x03", b"\xff\xff", b"\x08\x07\x22\x00", b"\x08\x03\x2a\x00"] {
        pli_ports::Signals::publish(&signals, &subject, Bytes::from_static(junk)).await.expect("published");
    }
    shard.until("counted", |c| c.malformed == 5).await;
    edge.announce(1, 1, 0, false).await;
}
