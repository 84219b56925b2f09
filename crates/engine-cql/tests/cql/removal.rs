// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the conformance suites cannot see: what holds once the database has forgotten its tombstones, and what dead
//! creations leave.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pli_domain::UnixMillis;
use pli_domain::{AccountId, ConversationId, DeviceAddress, DeviceId, LogEpoch, MlsEpoch, Position, Seq, ShardId};
use pli_engine_cql::{CqlEngine, CqlOptions};
use pli_ports::{Clock, CommitIntent, CommitOutcome, CreateAccountError, DeviceListRecord, DeviceRegister, NewAccount};
use pli_ports::{NewConversation, PageQuery, QueueRow, Settle, UsageBound};
use pli_testkit::time::{ManualClock, START};
use sha2::{Digest, Sha256};

use crate::support::server;

const LATER: UnixMillis = UnixMillis(START.0 + 3_600_000);

/// As a replica sees it that has purged the deletion: only the mark of the removal is left.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_removed_device_stay_hidden_when_the_tombstone_is_gone() {
    let name = "rows_of_a_removed_device_stay_hidden_when_the_tombstone_is_gone";
    let Some(server) = server(name).await else { return };
    let queues = server.engine().await.device_queues();
    let device = DeviceId::from_bytes([210; 16]);
    queues.remove_device(device).await.unwrap();
    let raw = server.raw().await;
    let keyspace = &server.options.keyspace;
    // A write stamped after the deletion stands for one that meets no tombstone.
    let row = format!(
        "INSERT INTO {keyspace}.device_queue (device_id, pos, expires_at, size, envelope) VALUES (?, 5, ?, 1, 0x01)"
    );
    raw.query_unpaged(row, (&device.as_bytes()[..], LATER.0 as i64)).await.unwrap();
    let cursor = format!("UPDATE {keyspace}.device_cursor SET acked_pos = 4 WHERE device_id = ?");
    raw.query_unpaged(cursor, (&device.as_bytes()[..],)).await.unwrap();
    let query =
        PageQuery { device, after: Position::ZERO, through: Position::MAX, now: START, rows_max: 10, bytes_max: 1_000 };
    assert!(queues.read_page(query).await.unwrap().rows.is_empty(), "a row of a removed device is read");
    let bound = UsageBound { rows_max: 10, bytes_max: 1_000 };
    assert_eq!(queues.usage(device, Position::ZERO, bound, START).await.unwrap().rows, 0);
    assert_eq!(queues.device_states(&[device]).await.unwrap()[0].cursor, Position::ZERO);
}

/// The write timestamp of a row is its position's, whoever writes it (Q6).
#[tokio::test(flavor = "multi_thread")]
async fn rows_and_registers_carry_their_position_as_write_timestamp() {
    let Some(server) = server("rows_and_registers_carry_their_position_as_write_timestamp").await else { return };
    let queues = server.engine().await.device_queues();
    let device = DeviceId::from_bytes([211; 16]);
    let position = Position::new(LogEpoch::new(3).unwrap(), Seq::new(1 << 20).unwrap(), 9);
    let rows = vec![QueueRow { device, position, expires_at: LATER, envelope: Bytes::from_static(b"x") }];
    let registers = vec![DeviceRegister { device, cursor: Some(position), floor: None }];
    queues.settle(ShardId::new(1), Settle { rows, registers, ..Settle::default() }).await.unwrap();
    let raw = server.raw().await;
    for (table, column) in [("device_queue", "envelope"), ("device_cursor", "acked_pos")] {
        let cql = format!("SELECT WRITETIME({column}) FROM {}.{table} WHERE device_id = ?", server.options.keyspace);
        let answer = raw.query_unpaged(cql, (&device.as_bytes()[..],)).await.unwrap().into_rows_result().unwrap();
        let (stamp,) = answer.first_row::<(i64,)>().unwrap();
        assert_eq!(stamp, (position.get() >> 13) as i64, "{table}");
    }
}

fn account(number: u8, handle: &str) -> NewAccount {
    let devices = vec![DeviceId::from_bytes([number; 16])];
    NewAccount {
        account: AccountId::from_bytes([number; 16]),
        handle: handle.parse().unwrap(),
        identity_key: [number; 32],
        devices: DeviceListRecord { version: 1, signed: Bytes::from_static(b"list"), devices },
        created_at: START,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_creation_claimed_is_free_after_a_minute() {
    let Some(server) = server("what_a_dead_creation_claimed_is_free_after_a_minute").await else { return };
    let clock = ManualClock::default();
    let options = CqlOptions { clock: Arc::new(clock.clone()), ..server.options.clone() };
    let accounts = CqlEngine::open(&options).await.unwrap().accounts();
    let (raw, keyspace) = (server.raw().await, &server.options.keyspace);
    let dead = account(220, "heron");
    // What a process leaves that dies between its claims and the end.
    for cql in [
        format!(
            "INSERT INTO {keyspace}.account (account_id, handle, identity_key, created_at, reserved_at, attempt, live, list_version, list_signed, list_devices, list_gone) VALUES (?, 'heron', 0x{}, 0, {}, 0x0a, false, 1, 0x, 0x, 0x) IF NOT EXISTS",
            "dc".repeat(32),
            clock.now().0
        ),
        format!("INSERT INTO {keyspace}.handle (handle, account_id, attempt) VALUES ('heron', ?, 0x0a) IF NOT EXISTS"),
    ] {
        raw.query_unpaged(cql, (&dead.account.as_bytes()[..],)).await.unwrap();
    }
    assert_eq!(accounts.account(dead.account).await.unwrap(), None, "an account that was not completed");
    assert_eq!(accounts.by_handle(&dead.handle).await.unwrap(), None, "its handle");
    let next = account(221, "heron");
    let taken = accounts.create(next.clone()).await;
    assert!(matches!(taken, Err(CreateAccountError::HandleTaken)), "a creation under way: {taken:?}");
    clock.advance(Duration::from_secs(61));
    accounts.create(next.clone()).await.unwrap();
    let holder = accounts.by_handle(&next.handle).await.unwrap().map(|found| found.account);
    assert_eq!(holder, Some(next.account), "the handle of a dead creation");
    let late = accounts.create(dead).await;
    assert!(matches!(late, Err(CreateAccountError::HandleTaken)), "the dead creation, continued: {late:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_forgets_what_was_never_decided_and_goes_on_from_there() {
    let Some(server) = server("a_sweep_forgets_what_was_never_decided_and_goes_on_from_there").await else { return };
    let (raw, keyspace) = (server.raw().await, &server.options.keyspace);
    crate::support::truncate(&raw, &server.options, &["unfinished_commit"]).await;
    let clock = ManualClock::default();
    let options = CqlOptions { clock: Arc::new(clock.clone()), ..server.options.clone() };
    let store = CqlEngine::open(&options).await.unwrap().conversations();
    let conversation = ConversationId::from_bytes([31; 16]);
    let member = DeviceAddress { account: AccountId::from_bytes([230; 16]), device: DeviceId::from_bytes([230; 16]) };
    let state = Bytes::from_static(b"state");
    let created = NewConversation {
        conversation,
        epoch: MlsEpoch(0),
        roster: vec![member],
        state: state.clone(),
        created_at: START,
    };
    store.create(created).await.unwrap();
    // What a committer leaves that dies before it decides.
    let note = format!(
        "INSERT INTO {keyspace}.unfinished_commit (bucket, noted_at, conversation_id, epoch, attempt, decided_at) VALUES (31, {}, ?, 1, 0x0b, 0)",
        clock.now().0
    );
    raw.query_unpaged(note, (&conversation.as_bytes()[..],)).await.unwrap();
    let far = UnixMillis(u64::MAX >> 1);
    assert_eq!(store.unfinished(far, 10).await.unwrap(), [], "a commit that was not decided");
    clock.advance(Duration::from_secs(1_000));
    let payload = Bytes::from_static(b"commit");
    let intent = CommitIntent {
        conversation,
        from: MlsEpoch(0),
        roster: vec![member],
        state,
        committer: member,
        payload,
        decided_at: clock.now(),
    };
    assert_eq!(store.commit(intent).await.unwrap(), CommitOutcome::Won);
    let expected = [(conversation, MlsEpoch(0))];
    assert_eq!(store.unfinished(far, 10).await.unwrap(), expected, "a commit that is not finished");
    let left = format!("SELECT attempt, below FROM {keyspace}.unfinished_commit WHERE bucket = 31");
    let answer = raw.query_unpaged(left, ()).await.unwrap().into_rows_result().unwrap();
    let rows: Vec<(Vec<u8>, Option<i64>)> = answer.rows().unwrap().collect::<Result<_, _>>().unwrap();
    assert!(rows.len() == 1 && rows[0].0 != [0x0b], "notes that are left: {rows:?}");
    assert!(rows[0].1.is_some_and(|below| below > START.0 as i64), "the register of the sweep: {rows:?}");
    store.finish(conversation, MlsEpoch(0)).await.unwrap();
    assert_eq!(store.unfinished(far, 10).await.unwrap(), [], "once it is finished");
}

/// A device is claimed before the list that adds it is decided: nobody is told then that it was removed.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_claimed_and_in_no_list_is_no_device_of_the_account() {
    let Some(server) = server("a_device_that_is_claimed_and_in_no_list_is_no_device_of_the_account").await else {
        return;
    };
    let accounts = server.engine().await.accounts();
    let new = account(224, "egret");
    accounts.create(new.clone()).await.unwrap();
    let (raw, keyspace) = (server.raw().await, &server.options.keyspace);
    let read = format!("SELECT attempt FROM {keyspace}.account WHERE account_id = ?");
    let answer = raw.query_unpaged(read, (&new.account.as_bytes()[..],)).await.unwrap().into_rows_result().unwrap();
    let (attempt,) = answer.first_row::<(Vec<u8>,)>().unwrap();
    let claimed = DeviceId::from_bytes([225; 16]);
    let claim = format!(
        "INSERT INTO {keyspace}.device_account (device_id, account_id, attempt) VALUES (?, ?, ?) IF NOT EXISTS"
    );
    let row = (&claimed.as_bytes()[..], &new.account.as_bytes()[..], attempt);
    raw.query_unpaged(claim, row).await.unwrap();
    assert_eq!(accounts.device_account(claimed).await.unwrap(), None, "while it is being added");
    let previous = <[u8; 32]>::from(Sha256::digest(&new.devices.signed));
    let devices = vec![new.devices.devices[0], claimed];
    let list = DeviceListRecord { version: 2, signed: Bytes::from_static(b"second"), devices };
    accounts.put_device_list(new.account, previous, list).await.unwrap();
    assert_eq!(accounts.device_account(claimed).await.unwrap(), Some(new.account), "once it is listed");
}

/// What a directory leaves that dies before it decides, or whose list loses its version, is no removal.
#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_was_noted_counts_once_its_list_is_decided() {
    let Some(server) = server("a_removal_that_was_noted_counts_once_its_list_is_decided").await else { return };
    let (raw, keyspace) = (server.raw().await, &server.options.keyspace);
    crate::support::truncate(&raw, &server.options, &["device_removal"]).await;
    let accounts = server.engine().await.accounts();
    let new = account(226, "stork");
    accounts.create(new.clone()).await.unwrap();
    let note =
        format!("INSERT INTO {keyspace}.device_removal (bucket, account_id, version, device_id) VALUES (2, ?, 2, ?)");
    let row = (&new.account.as_bytes()[..], &new.devices.devices[0].as_bytes()[..]);
    raw.query_unpaged(note, row).await.unwrap();
    assert_eq!(accounts.removals(None, 9).await.unwrap(), [], "of a list that is not decided");
    let previous = <[u8; 32]>::from(Sha256::digest(&new.devices.signed));
    let devices = vec![new.devices.devices[0], DeviceId::from_bytes([227; 16])];
    let list = DeviceListRecord { version: 2, signed: Bytes::from_static(b"second"), devices };
    accounts.put_device_list(new.account, previous, list).await.unwrap();
    assert_eq!(accounts.removals(None, 9).await.unwrap(), [], "of a list that lost its version");
    let left = format!("SELECT version FROM {keyspace}.device_removal WHERE bucket = 2");
    let answer = raw.query_unpaged(left, ()).await.unwrap().into_rows_result().unwrap();
    assert_eq!(answer.rows_num(), 0, "the note is forgotten");
}
