// SPDX-License-Identifier: MIT OR Apache-2.0
//! Entries that cannot be decoded.

use std::time::Duration;

use bytes::Bytes;
use pli_api::log::{Entry, Item};
use pli_ports::DeviceQueues;
use prost::Message;
use tokio::time::sleep;

use crate::harness::{SHARD, SPILLS, Shard, body, device};

fn broken_for(n: u8) -> Bytes {
    let item = |envelope| Item {
        devices: vec![Bytes::copy_from_slice(device(n).as_bytes())],
        expires_at_ms: 4_000_000_000_000,
        class: 3,
        envelope,
    };
    Entry { items: vec![item(Bytes::new()), item(body(9))], origin: Bytes::new() }.encode_to_vec().into()
}

#[tokio::test(start_paused = true)]
async fn a_device_that_a_broken_entry_names_is_told_a_gap_in_its_place() {
    for spill in SPILLS {
        let shard = Shard::new(spill);
        let _owner = shard.owner();
        for n in 0..3 {
            shard.append(&[(&[1], n)]).await;
        }
        shard.append_bytes(broken_for(1)).await;
        shard.append_bytes(Bytes::from_static(b"\xff\xff\xff\xff")).await;
        for n in 3..6 {
            shard.append(&[(&[1], n)]).await;
        }
        shard.until("read", |c| c.entries == 8).await;
        let edge = shard.edge(1).await;
        let check = |drained: crate::harness::Drained| {
            assert_eq!(drained.bodies(), (0..6).map(body).collect::<Vec<_>>());
            assert_eq!(drained.gaps.len(), 2);
            let (before, after) = (drained.shown[2].0.get(), drained.shown[3].0.get());
            assert!(drained.gaps.iter().all(|(from, to)| *from >= before && *to < after), "{drained:?}");
        };
        check(edge.drain(1, 0).await);
        shard.until("settled", |c| c.settles > 0 && c.rows_written == 8).await;
        sleep(Duration::from_secs(1)).await;
        check(edge.drain(1, 0).await);
        let counts = shard.counts();
        assert_eq!((counts.aside, counts.aside_gaps), (2, 2));
        assert_eq!(shard.world.queues().shard_state(SHARD).await.expect("readable").aside, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn above_the_bound_of_entries_kept_aside_the_owner_stops_following() {
    let mut shard = Shard::new(300);
    shard.config.aside_entries_max = 3;
    let _owner = shard.owner();
    for _ in 0..4 {
        shard.append_bytes(broken_for(1)).await;
    }
    shard.append(&[(&[1], 1)]).await;
    shard.until("following stopped", |c| c.follow_stopped == 1).await;
    sleep(Duration::from_secs(2)).await;
    let counts = shard.counts();
    assert_eq!((counts.aside, counts.entries), (3, 3));
    assert!(shard.edge(1).await.drain(1, 0).await.shown.is_empty(), "what follows waits, it is not skipped");
}
