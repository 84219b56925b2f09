// SPDX-License-Identifier: MIT OR Apache-2.0
//! Notices and receipts.

use std::time::Duration;

use bytes::Bytes;
use pli_api::delivery::{Verdict, edge_signal};
use pli_domain::{EntryId, EntryRef, Seq};
use tokio::time::sleep;

use crate::harness::{SHARD, Shard};

const STORED: i32 = Verdict::Stored as i32;
const RESEND: i32 = Verdict::Resend as i32;
const WAIT: i32 = Verdict::Wait as i32;

fn other(entry: EntryRef) -> EntryRef {
    EntryRef { id: EntryId::from_bytes([0xFF; 16]), ..entry }
}
fn at(entry: EntryRef, seq: u64) -> EntryRef {
    EntryRef { seq: Seq::new(seq).expect("fits"), ..entry }
}

#[tokio::test(start_paused = true)]
async fn a_notice_names_the_edges_own_entries_in_a_chain_of_ranges() {
    let shard = Shard::new(300);
    let mut mine = shard.edge(0xE).await;
    let _owner = shard.owner();
    let mut previous = None;
    for n in 0..3 {
        let entry = shard.append(&[(&[1], n)]).await;
        let notice = mine.notice().await;
        assert_eq!(notice.settled, [Bytes::copy_from_slice(entry.id.as_bytes())]);
        assert!(notice.checkpoint > notice.previous);
        assert!(previous.is_none_or(|p| p == notice.previous), "the chain has no hole");
        previous = Some(notice.checkpoint);
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_notice_is_repeated_while_nothing_happens() {
    let mut shard = Shard::new(300);
    shard.config.notice_repeat_ms = 5_000;
    let mut mine = shard.edge(0xE).await;
    let _owner = shard.owner();
    shard.append(&[(&[1], 1)]).await;
    let first = mine.notice().await;
    let again = mine.notice().await;
    assert_eq!(first, again);
}

#[tokio::test(start_paused = true)]
async fn a_log_of_its_own_judges_receipts_by_retained_entries() {
    let shard = Shard::new(60_000);
    let _owner = shard.owner();
    let settled = shard.append(&[(&[], 1)]).await;
    shard.until("settled", |c| c.settles > 0).await;
    let open = shard.append(&[(&[1], 2)]).await;
    shard.until("read", |c| c.entries == 2).await;
    let edge = shard.edge(1).await;
    let parts = [(settled, 0), (open, 0), (other(settled), 0), (at(settled, 99), 0)];
    assert_eq!(edge.verdicts(&parts).await, [STORED, WAIT, RESEND, RESEND]);
}

#[tokio::test(start_paused = true)]
async fn a_receipt_is_not_called_stored_when_the_log_lost_the_checkpoints_entry() {
    let shard = Shard::new(60_000);
    let _owner = shard.owner();
    let kept = shard.append(&[(&[], 1)]).await;
    let lost = shard.append(&[(&[], 2)]).await;
    shard.until("settled", |c| c.settles > 0 && c.entries == 2).await;
    sleep(Duration::from_secs(1)).await;
    let edge = shard.edge(1).await;
    assert_eq!(edge.verdicts(&[(kept, 0), (lost, 0)]).await, [STORED, STORED]);
    shard.world.cut_log_end(SHARD, 1);
    let verdicts = edge.verdicts(&[(kept, 0), (lost, 0)]).await;
    assert_eq!(verdicts, [WAIT, RESEND], "what the lost entry vouched for is not called stored");
    // In the new log epoch everything that is left is settled again.
    shard.append(&[(&[], 3)]).await;
    shard.until("a new log epoch", |c| c.epochs_begun == 2).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(edge.verdicts(&[(kept, 0), (lost, 0)]).await, [STORED, RESEND]);
}

#[tokio::test(start_paused = true)]
async fn the_embedded_log_judges_receipts_by_log_epoch() {
    let shard = Shard::embedded(60_000);
    let _owner = shard.owner();
    let settled = shard.append(&[(&[], 1)]).await;
    shard.until("settled", |c| c.settles > 0).await;
    let open = shard.append(&[(&[1], 2)]).await;
    shard.until("read", |c| c.entries == 2).await;
    let edge = shard.edge(1).await;
    // The last one lies above the head: nobody was ever given it, and nothing would end its waiting.
    let parts = [(settled, 1), (open, 1), (settled, 0), (settled, 2), (at(open, 1 << 39), 1)];
    assert_eq!(edge.verdicts(&parts).await, [STORED, WAIT, RESEND, RESEND, RESEND]);
}

#[tokio::test(start_paused = true)]
async fn a_new_owner_asks_for_announcements() {
    let shard = Shard::new(300);
    let signals = shard.world.signals();
    let mut all = pli_ports::Signals::subscribe(&signals, &pli_ports::Subject::edges()).await.expect("subscribes");
    let _owner = shard.owner();
    let Some(pli_ports::SignalEvent::Signal(signal)) = all.next().await else { panic!("no signal") };
    let signal = <pli_api::delivery::EdgeSignal as prost::Message>::decode(signal.payload).expect("an edge signal");
    assert_eq!(signal.shard, 3);
    assert!(matches!(signal.signal, Some(edge_signal::Signal::RepeatAnnouncements(_))));
}
