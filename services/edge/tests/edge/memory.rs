// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sessions over memory, with paused time.

use std::time::Duration;

use bytes::Bytes;
use pli_api::ErrorCode;
use pli_api::common::Error;
use pli_api::edge::{Ping, client_frame, send_result, server_frame::Frame, settled::Outcome};
use pli_domain::{Position, SessionId};
use pli_edge::{Config, LimitsConfig, Rate, SessionConfig};
use pli_ports::LogFate;
use pli_testkit::memory::{FaultPlan, LogFaults};

use crate::client::{Client, body};
use crate::rig::{Rig, conversation, device};

fn code<T>(result: Result<T, Error>) -> ErrorCode {
    result.err().map_or(ErrorCode::Unspecified, |error| error.code())
}

async fn rig() -> Rig {
    Rig::new(Config::default()).await
}

fn with_session(change: impl FnOnce(&mut SessionConfig)) -> Config {
    let mut config = Config::default();
    change(&mut config.session);
    config
}

#[tokio::test(start_paused = true)]
async fn a_message_reaches_every_other_device_and_is_settled() {
    let rig = rig().await;
    let (mut alice, mut bob, mut carol) = (rig.join(1).await, rig.join(2).await, rig.join(3).await);
    let sent = alice.message(1, b"hello");
    let receipt = alice.send_one(sent).await.unwrap();
    for other in [&mut bob, &mut carol] {
        let delivered = other.delivery().await;
        assert_eq!(body(&delivered), "hello");
        other.ack(delivered.position).await;
    }
    rig.until("both acks", |owners| owners.acks.len() == 2).await;
    rig.owners.settle().await;
    let settled = alice.settled().await;
    assert_eq!(settled.len(), 1);
    assert_eq!(settled[0].receipt, receipt);
    assert!(matches!(settled[0].outcome, Some(Outcome::Stored(_))));
    assert!(rig.owners.lock().queues.get(&device(1).device).is_none_or(|queue| queue.all.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_long_queue_is_drained_in_order_within_the_delivery_window() {
    let rig = Rig::new(with_session(|session| session.delivery_window = 50)).await;
    let mut alice = rig.join(1).await;
    for n in 0..700u32 {
        let mut send = alice.message(0, &n.to_be_bytes());
        send.send_id = [n.to_be_bytes(); 4].concat().into();
        alice.send_one(send).await.unwrap();
    }
    let mut bob = rig.join(2).await;
    assert!(bob.ready.as_ref().unwrap().mail_waiting);
    let mut last = 0;
    for n in 0..700u32 {
        let delivered = bob.delivery().await;
        assert_eq!(body(&delivered), n.to_be_bytes().as_slice());
        assert_eq!(delivered.previous, last);
        last = delivered.position;
        // Only every 50th is acknowledged: the window is full until then.
        if n % 50 == 49 {
            let more = tokio::time::timeout(Duration::from_secs(5), bob.maybe()).await;
            assert!(more.is_err() || n == 699, "{n}: sent above the window");
            bob.ack(last).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_is_drained_although_no_whole_page_comes_in_time() {
    let rig = rig().await;
    let mut alice = rig.join(1).await;
    for n in 0..40u32 {
        let mut send = alice.message(0, &n.to_be_bytes());
        send.send_id = [n.to_be_bytes(); 4].concat().into();
        alice.send_one(send).await.unwrap();
    }
    rig.owners.lock().rows_in_time = Some(3);
    let mut bob = rig.join(2).await;
    for n in 0..40u32 {
        let delivered = bob.delivery().await;
        assert_eq!(body(&delivered), n.to_be_bytes().as_slice());
        bob.ack(delivered.position).await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_read_begins_before_the_registration_is_confirmed() {
    let rig = rig().await;
    rig.owners.lock().not_ready = 5;
    let mut alice = rig.join(1).await;
    alice.wait(|frame| matches!(frame, Frame::CaughtUp(_))).await;
    let asked = rig.owners.lock().asked.clone();
    assert_eq!(asked, ["announce", "announce", "announce", "announce", "announce", "announce", "read"]);
}

#[tokio::test(start_paused = true)]
async fn a_session_is_ready_for_sending_while_its_shard_has_no_owner() {
    let rig = rig().await;
    rig.owners.lock().not_ready = usize::MAX;
    let mut alice = rig.join(1).await;
    let sent = alice.message(1, b"hello");
    assert!(alice.send_one(sent).await.is_ok());
    rig.owners.lock().not_ready = 0;
    let mut bob = rig.join(2).await;
    assert_eq!(body(&bob.delivery().await), "hello");
}

#[tokio::test(start_paused = true)]
async fn unknown_predecessors_and_lost_doorbells_are_made_good_by_reading() {
    let rig = rig().await;
    let (mut alice, mut bob) = (rig.join(1).await, rig.join(2).await);
    rig.owners.lock().unknown_previous = true;
    let first = alice.message(1, b"1");
    alice.send_one(first).await.unwrap();
    assert_eq!(body(&bob.delivery().await), "1");
    rig.owners.lock().silent = true;
    let second = alice.message(2, b"2");
    alice.send_one(second).await.unwrap();
    rig.world.interrupt_signals();
    assert_eq!(body(&bob.delivery().await), "2");
}

#[tokio::test(start_paused = true)]
async fn a_new_owner_hears_of_every_session_and_none_of_those_that_left() {
    let rig = rig().await;
    let (mut alice, mut bob, carol) = (rig.join(1).await, rig.join(2).await, rig.join(3).await);
    drop(carol);
    rig.until("carol's withdrawal", |owners| owners.withdrawn == 1).await;
    rig.owners.take_over().await;
    rig.until("two announcements", |owners| owners.registered == 5).await;
    let sent = alice.message(1, b"hello");
    alice.send_one(sent).await.unwrap();
    assert_eq!(body(&bob.delivery().await), "hello");
}

#[tokio::test(start_paused = true)]
async fn a_second_session_of_a_device_displaces_the_first() {
    let rig = rig().await;
    let mut first = rig.join(2).await;
    let mut second = rig.join(2).await;
    let close = first.closed().await.unwrap();
    assert_eq!((close.reason.unwrap().code(), close.reconnect), (ErrorCode::Displaced, false));
    let mut alice = rig.join(1).await;
    let sent = alice.message(1, b"hello");
    alice.send_one(sent).await.unwrap();
    assert_eq!(body(&second.delivery().await), "hello");
    // The owner's word does the same across edges, and says when a device was removed.
    let session = SessionId::try_from(second.ready.as_ref().unwrap().session.as_ref()).unwrap();
    rig.owners.displace(rig.edge.id(), session, true).await;
    assert_eq!(second.closed().await.unwrap().reason.unwrap().code(), ErrorCode::DeviceRemoved);
    assert_eq!(rig.edge.sessions(), 1);
}

#[tokio::test(start_paused = true)]
async fn pipelined_messages_of_a_lane_keep_their_order_in_few_entries() {
    let rig = rig().await;
    let (mut alice, mut bob) = (rig.join(1).await, rig.join(2).await);
    let sends: Vec<_> = (0..250u8).map(|n| alice.message(n, &[n])).collect();
    for batch in sends.chunks(10) {
        alice.send(batch.to_vec()).await;
    }
    let mut accepted = Vec::new();
    while accepted.len() < 250 {
        for result in alice.results().await {
            assert!(matches!(result.result, Some(send_result::Result::Accepted(_))));
            accepted.push(result.send_id[0]);
        }
    }
    assert!(accepted.is_sorted());
    for n in 0..250u8 {
        let delivered = bob.delivery().await;
        assert_eq!(body(&delivered), [n].as_slice());
        bob.ack(delivered.position).await;
    }
    assert!(rig.world.counts().appended < 250, "{} entries", rig.world.counts().appended);
}

#[tokio::test(start_paused = true)]
async fn a_full_log_refuses_with_a_time_and_accepts_again() {
    let rig = rig().await;
    let mut alice = rig.join(1).await;
    rig.world.set_log_full(true);
    let sent = alice.message(1, b"hello");
    let refused = alice.send_one(sent.clone()).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::NoSpace);
    assert!(refused.retry_after_ms > 0);
    rig.world.set_log_full(false);
    assert!(alice.send_one(sent).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_epoch_that_is_not_open_old_or_in_the_future_is_refused_with_what_to_do() {
    let rig = rig().await;
    let mut alice = rig.join(1).await;
    let at = |alice: &Client, epoch| pli_api::edge::Send { epoch, ..alice.message(1, b"x") };
    assert!(alice.send_one(at(&alice, 1)).await.is_ok());
    let asked = *rig.conversations.asked.lock().unwrap();
    assert!(alice.send_one(at(&alice, 1)).await.is_ok());
    assert_eq!(*rig.conversations.asked.lock().unwrap(), asked, "the roster was fetched twice");

    rig.conversations.groups.lock().unwrap().get_mut(&conversation(1)).unwrap().current = 2;
    let refused = alice.send_one(at(&alice, 2)).await.unwrap_err();
    assert_eq!((refused.code(), refused.retry_after_ms), (ErrorCode::EpochNotOpen, 40));
    let refused = alice.send_one(at(&alice, 3)).await.unwrap_err();
    assert_eq!((refused.code(), refused.current_epoch), (ErrorCode::WrongEpoch, 2));
    // Opens without this device: it was removed.
    {
        let mut groups = rig.conversations.groups.lock().unwrap();
        let group = groups.get_mut(&conversation(1)).unwrap();
        group.epochs.insert(2, vec![device(2)]);
    }
    let refused = alice.send_one(at(&alice, 1)).await.unwrap_err();
    assert_eq!((refused.code(), refused.current_epoch), (ErrorCode::UnknownConversation, 2));
    rig.conversations.groups.lock().unwrap().get_mut(&conversation(1)).unwrap().current = 4;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let refused = alice.send_one(at(&alice, 1)).await.unwrap_err();
    assert_eq!((refused.code(), refused.current_epoch), (ErrorCode::WrongEpoch, 4));
}

#[tokio::test(start_paused = true)]
async fn the_oldest_epoch_that_is_taken_is_asked_about_each_time() {
    let rig = rig().await;
    let mut alice = rig.join(1).await;
    let at = |alice: &Client, epoch| pli_api::edge::Send { epoch, ..alice.message(1, b"x") };
    let commit = |to: u64| {
        let mut groups = rig.conversations.groups.lock().unwrap();
        let group = groups.get_mut(&conversation(1)).unwrap();
        group.epochs.insert(to, group.epochs[&1].clone());
        group.current = to;
    };
    commit(2);
    commit(3);
    assert!(alice.send_one(at(&alice, 3)).await.is_ok());
    assert!(alice.send_one(at(&alice, 1)).await.is_ok());
    commit(4);
    // Believed still: a device that has seen one commit less than the edge may send.
    assert!(alice.send_one(at(&alice, 2)).await.is_ok());
    let refused = alice.send_one(at(&alice, 1)).await.unwrap_err();
    assert_eq!((refused.code(), refused.current_epoch), (ErrorCode::WrongEpoch, 4));
}

#[tokio::test(start_paused = true)]
async fn what_follows_a_refused_message_in_its_lane_is_refused_with_it() {
    let rig = rig().await;
    rig.group(2, &[1, 2]);
    let mut alice = rig.join(1).await;
    let late = pli_api::edge::Send { epoch: 9, ..alice.message(1, b"x") };
    let other = pli_api::edge::Send {
        conversation: Bytes::copy_from_slice(conversation(2).as_bytes()),
        ..alice.message(3, b"x")
    };
    let after = alice.message(2, b"x");
    alice.send(vec![late, after, other]).await;
    let mut results = Vec::new();
    while results.len() < 3 {
        results.extend(alice.results().await);
    }
    results.sort_by(|a, b| a.send_id.cmp(&b.send_id));
    let refused: Vec<bool> =
        results.iter().map(|result| matches!(result.result, Some(send_result::Result::Refused(_)))).collect();
    assert_eq!(refused, [true, true, false]);
}

#[tokio::test(start_paused = true)]
async fn presented_receipts_leave_room_for_sends() {
    let rig = Rig::new(Config { open_receipts_max: 8, ..Config::default() }).await;
    let mut alice = rig.join(1).await;
    let mut receipt = Bytes::new();
    for n in 1..=2 {
        let send = alice.message(n, b"open");
        receipt = alice.send_one(send).await.unwrap();
    }
    alice.present(vec![receipt.clone()]).await;
    let ended = alice.settled().await;
    let Some(Outcome::Refused(refused)) = &ended[0].outcome else {
        panic!("half of the room is taken, two parts each: {ended:?}")
    };
    assert_eq!(refused.code(), ErrorCode::NoSpace);
    let send = alice.message(3, b"still room");
    alice.send_one(send).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn receipts_presented_after_a_reconnect_end_as_stored_or_resend() {
    let rig = rig().await;
    let mut alice = rig.join(1).await;
    let (one, two) = (alice.message(1, b"1"), alice.message(2, b"2"));
    let settled = alice.send_one(one).await.unwrap();
    rig.owners.settle_quietly();
    let waiting = alice.send_one(two).await.unwrap();
    drop(alice);
    let mut alice = rig.join(1).await;
    let forged = pli_api::delivery::QueryReceipts {
        parts: vec![pli_api::delivery::ReceiptPart { shard: 0, seq: 999, entry: vec![9; 16].into(), log_epoch: 1 }],
    };
    let forged = Bytes::from(prost::Message::encode_to_vec(&forged));
    alice.present(vec![settled.clone(), waiting.clone(), forged.clone(), Bytes::from_static(b"junk")]).await;
    let mut ended = Vec::new();
    while ended.len() < 3 {
        ended.extend(alice.settled().await);
    }
    let outcome = |receipt: &Bytes| ended.iter().find(|s| s.receipt == receipt).and_then(|s| s.outcome.clone());
    assert!(matches!(outcome(&settled), Some(Outcome::Stored(_))));
    assert!(matches!(outcome(&forged), Some(Outcome::Resend(_))));
    let Some(Outcome::Refused(refused)) = outcome(&Bytes::from_static(b"junk")) else { panic!("junk was taken") };
    assert_eq!(refused.code(), ErrorCode::BadReceipt);
    // The last one waits for its checkpoint, and is asked for again although no notice comes.
    rig.owners.settle_quietly();
    let last = alice.settled().await;
    assert_eq!(last[0].receipt, waiting);
    assert!(matches!(last[0].outcome, Some(Outcome::Stored(_))));
}

#[tokio::test(start_paused = true)]
async fn a_missed_notice_is_made_good_by_asking() {
    let rig = rig().await;
    let mut alice = rig.join(1).await;
    let one = alice.message(1, b"1");
    alice.send_one(one).await.unwrap();
    rig.owners.settle().await;
    assert_eq!(alice.settled().await.len(), 1);
    let two = alice.message(2, b"2");
    alice.send_one(two).await.unwrap();
    rig.owners.settle_quietly();
    let three = alice.message(3, b"3");
    alice.send_one(three).await.unwrap();
    rig.owners.settle().await;
    let mut ended = 0;
    while ended < 2 {
        ended += alice.settled().await.len();
    }
}

#[tokio::test(start_paused = true)]
async fn a_floor_is_told_as_a_gap_before_anything_above_it() {
    let rig = rig().await;
    let mut alice = rig.join(1).await;
    for n in 0..4 {
        let sent = alice.message(n, &[n]);
        alice.send_one(sent).await.unwrap();
    }
    rig.until("four queued", |owners| owners.queues.get(&device(2).device).is_some_and(|q| q.all.len() == 4)).await;
    let floor = {
        let mut state = rig.owners.lock();
        let queue = state.queues.get_mut(&device(2).device).unwrap();
        queue.floor.0 = queue.all[1].0;
        queue.floor.0.get()
    };
    let mut bob = rig.join(2).await;
    let Frame::Gap(gap) = bob.next().await else { panic!("a gap comes first") };
    assert_eq!((gap.from, gap.to), (0, floor));
    let delivered = bob.delivery().await;
    assert_eq!((body(&delivered)[0], delivered.previous), (2, floor));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_is_not_read_from() {
    let rig = rig().await;
    let mut client = rig.connect(1, Position::ZERO, 4);
    client.ready().await;
    let mut taken = 0u64;
    loop {
        let ping = client.say(client_frame::Frame::Ping(Ping { id: taken }));
        if tokio::time::timeout(Duration::from_secs(5), ping).await.is_err() {
            break;
        }
        taken += 1;
        assert!(taken < 200, "the edge buffers without bound");
    }
    assert!(taken > 4);
    // As soon as it reads again, it is served again; nothing was dropped.
    for id in 0..taken {
        let pong = client.wait(|frame| matches!(frame, Frame::Pong(_))).await;
        assert_eq!(pong, Frame::Pong(pli_api::edge::Pong { id }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_session_is_pinged_and_then_closed_and_a_talking_one_is_kept() {
    let rig = Rig::new(with_session(|session| session.idle_ms = 10_000)).await;
    let (mut silent, mut talking) = (rig.join(1).await, rig.join(2).await);
    for n in 0..6 {
        tokio::time::sleep(Duration::from_secs(4)).await;
        talking.say(client_frame::Frame::Ping(Ping { id: n })).await;
    }
    silent.wait(|frame| matches!(frame, Frame::Ping(_))).await;
    let close = silent.closed().await.unwrap();
    assert_eq!((close.reason.unwrap().code(), close.reconnect), (ErrorCode::Temporary, true));
    for id in 0..6 {
        talking.wait(|frame| matches!(frame, Frame::Pong(pong) if pong.id == id)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_named_limit_refuses_with_its_name_and_the_time() {
    let slow = Rate { per_second: 1, burst: 2 };
    let limits = LimitsConfig { session_sends: slow, session_calls: slow, ..LimitsConfig::default() };
    let rig = Rig::new(Config { limits, ..Config::default() }).await;
    let mut alice = rig.join(1).await;
    let send = alice.message(1, b"x");
    assert!(alice.send_one(send.clone()).await.is_ok());
    assert!(alice.send_one(send.clone()).await.is_ok());
    let refused = alice.send_one(send.clone()).await.unwrap_err();
    assert_eq!((refused.code(), refused.limit.as_str()), (ErrorCode::RateLimited, "session_sends"));
    tokio::time::sleep(Duration::from_millis(refused.retry_after_ms.into())).await;
    assert!(alice.send_one(send).await.is_ok());
    let info = "/pli.edge.v1.Edge/Info";
    assert!(alice.call(1, info, Vec::new()).await.is_ok() && alice.call(2, info, Vec::new()).await.is_ok());
    assert_eq!(alice.call(3, info, Vec::new()).await, Err(ErrorCode::RateLimited));
}

#[tokio::test(start_paused = true)]
async fn a_message_counts_as_often_as_it_is_delivered() {
    let deliveries = Rate { per_second: 1, burst: 7 };
    let limits = LimitsConfig { session_deliveries: deliveries, ..LimitsConfig::default() };
    let rig = Rig::new(Config { limits, ..Config::default() }).await;
    let (mut alice, mut bob) = (rig.join(1).await, rig.join(2).await);
    let (from_alice, from_bob) = (alice.message(1, b"x"), bob.message(1, b"x"));
    for _ in 0..2 {
        assert!(alice.send_one(from_alice.clone()).await.is_ok());
    }
    let refused = alice.send_one(from_alice.clone()).await.unwrap_err();
    assert_eq!((refused.code(), refused.limit.as_str()), (ErrorCode::RateLimited, "session_deliveries"));
    assert!(bob.send_one(from_bob).await.is_ok(), "others are not held up");
    tokio::time::sleep(Duration::from_millis(refused.retry_after_ms.into())).await;
    assert!(alice.send_one(from_alice).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn calls_reach_their_service_with_the_caller_and_their_answers_come_back() {
    let rig = rig().await;
    let mut alice = rig.join(1).await;
    let request = pli_api::directory::LookupRequest { handle: "bob".into() };
    let body = prost::Message::encode_to_vec(&request);
    assert_eq!(alice.call(1, "/pli.directory.v1.Directory/Lookup", body).await, Err(ErrorCode::NotFound));
    assert_eq!(rig.directory.callers.lock().unwrap().last().unwrap().device, Some(device(1)));
    for (id, method) in [(2, "/pli.directory.v1.Directory/GetDeviceKey"), (3, "/x"), (4, "")] {
        assert_eq!(alice.call(id, method, Vec::new()).await, Err(ErrorCode::UnknownMethod), "{method}");
    }
    let hanging = alice.call(5, "/pli.conversations.v1.Conversations/PutPayload", Vec::new()).await;
    assert_eq!(hanging, Err(ErrorCode::Temporary));
    let oversized = alice.call(6, "/pli.conversations.v1.Conversations/FetchPayload", Vec::new()).await;
    assert_eq!(oversized, Err(ErrorCode::Internal));
}

#[tokio::test(start_paused = true)]
async fn a_drain_lets_sessions_finish_and_ends() {
    let rig = rig().await;
    let (mut alice, mut bob) = (rig.join(1).await, rig.join(2).await);
    let sent = alice.message(1, b"last");
    alice.send_one(sent).await.unwrap();
    let delivered = bob.delivery().await;
    bob.ack(delivered.position).await;
    // The ack is on its way through the edge when the drain begins.
    bob.say(client_frame::Frame::Ping(Ping { id: 7 })).await;
    bob.wait(|frame| matches!(frame, Frame::Pong(_))).await;
    rig.stop.cancel();
    for client in [&mut alice, &mut bob] {
        client.wait(|frame| matches!(frame, Frame::GoAway(_))).await;
        let close = client.closed().await.unwrap();
        assert_eq!((close.reason.unwrap().code(), close.reconnect), (ErrorCode::Draining, true));
    }
    rig.running.await.unwrap();
    let state = rig.owners.state.lock().unwrap();
    assert!(state.acks.contains(&(device(2).device, delivered.position)), "the ack was lost in the drain");
    assert_eq!(rig.edge.sessions(), 0);
}

#[tokio::test(start_paused = true)]
async fn nobody_else_in_the_conversation_is_no_error() {
    let rig = rig().await;
    rig.group(1, &[1]);
    let mut alice = rig.join(1).await;
    let sent = alice.message(1, b"to myself");
    assert!(alice.send_one(sent).await.is_ok());
    assert!(matches!(alice.settled().await[0].outcome, Some(Outcome::Stored(_))));
    rig.group(3, &[2]);
    let stranger = pli_api::edge::Send {
        conversation: Bytes::copy_from_slice(conversation(3).as_bytes()),
        ..alice.message(2, b"x")
    };
    assert_eq!(code(alice.send_one(stranger).await), ErrorCode::UnknownConversation);
}

#[tokio::test(start_paused = true)]
async fn appends_that_fail_and_are_repeated_do_not_overtake_within_a_lane() {
    let rig = rig().await;
    let log = LogFaults { lost: 150, answer_lost: 150, append_ms_max: 20, ..LogFaults::default() };
    rig.world.set_faults(FaultPlan { log, ..FaultPlan::default() });
    let mut alice = rig.join(1).await;
    for batch in 0..25u8 {
        let sends: Vec<_> = (0..10).map(|n| alice.message(batch * 10 + n, b"x")).collect();
        alice.send(sends).await;
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
    let mut accepted = Vec::new();
    let mut answered = 0;
    while answered < 250 {
        for result in alice.results().await {
            answered += 1;
            if matches!(result.result, Some(send_result::Result::Accepted(_))) {
                accepted.push(result.send_id[0]);
            }
        }
    }
    rig.world.set_faults(FaultPlan::default());
    assert!(accepted.len() > 200, "{} of 250 accepted", accepted.len());
    assert!(accepted.is_sorted());
    let queued = || -> Vec<u8> {
        let state = rig.owners.lock();
        let queue = state.queues.get(&device(2).device).unwrap();
        queue.all.iter().map(|(_, envelope)| send_id(envelope)).filter(|id| accepted.contains(id)).collect()
    };
    let last = *accepted.last().unwrap();
    let there = |owners: &crate::owner::State| {
        let queue = owners.queues.get(&device(2).device);
        let newest = queue.and_then(|queue| queue.all.last()).map(|(_, envelope)| send_id(envelope));
        newest.is_some_and(|newest| newest >= last)
    };
    rig.until("everything accepted is queued", there).await;
    assert_eq!(queued(), accepted);
}

fn send_id(envelope: &Bytes) -> u8 {
    let envelope: pli_api::log::Envelope = prost::Message::decode(envelope.clone()).unwrap();
    envelope.send_id[0]
}

#[tokio::test(start_paused = true)]
async fn the_first_receipts_name_the_log_epoch_of_shards_of_which_nothing_was_heard() {
    let rig = Rig::over(Config::default(), LogFate::OneTransaction).await;
    let mut alice = rig.join(1).await;
    // The owners are still starting when the message is durable.
    rig.owners.lock().not_ready = 8;
    let sent = alice.message(1, b"hello");
    let receipt = alice.send_one(sent).await.unwrap();
    let parts = <pli_api::delivery::QueryReceipts as prost::Message>::decode(receipt).unwrap().parts;
    assert!(!parts.is_empty() && parts.iter().all(|part| part.log_epoch == 1), "{parts:?}");
}

#[tokio::test(start_paused = true)]
async fn without_an_owner_a_send_is_accepted_all_the_same() {
    let rig = Rig::over(Config::default(), LogFate::OneTransaction).await;
    let mut alice = rig.join(1).await;
    rig.owners.lock().not_ready = usize::MAX;
    let sent = alice.message(1, b"hello");
    alice.send_one(sent).await.unwrap();
}
