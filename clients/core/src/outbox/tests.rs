// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;
use pli_api::edge::{self, client_frame::Frame, send_result, settled};
use pli_api::{ErrorCode, refusal};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

fn send_id(n: u64) -> SendId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&n.to_be_bytes());
    SendId::from_bytes(id)
}
fn lane(n: u8) -> OutLane {
    OutLane { conversation: ConversationId::from_bytes([n; 16]), class: Class::Message }
}
fn rng() -> ChaCha8Rng {
    ChaCha8Rng::from_seed([7; 32])
}
fn seal(message: &OutMessage) -> Seal {
    Seal::Sealed(Sealed { epoch: 3, body: message.content.clone() })
}
fn with(count: u64) -> Outbox {
    filled(OutboxConfig::default(), count)
}
fn filled(config: OutboxConfig, count: u64) -> Outbox {
    let mut outbox = Outbox::new(config);
    for n in 0..count {
        outbox.push(send_id(n), lane(1), Bytes::from(vec![1; 100])).expect("room");
    }
    outbox
}
fn sends(frames: &[edge::ClientFrame]) -> Vec<edge::Send> {
    let each = frames.iter().filter_map(|f| match &f.frame {
        Some(Frame::Send(batch)) => Some(batch.sends.clone()),
        _ => None,
    });
    each.flatten().collect()
}
fn receipts(frames: &[edge::ClientFrame]) -> Vec<Vec<Bytes>> {
    let each = frames.iter().filter_map(|f| match &f.frame {
        Some(Frame::Pending(pending)) => Some(pending.receipts.clone()),
        _ => None,
    });
    each.collect()
}
fn accepted(n: u64, receipt: &str) -> edge::SendResult {
    let receipt = Bytes::copy_from_slice(receipt.as_bytes());
    let result = send_result::Result::Accepted(edge::Accepted { receipt, accepted_at_ms: 9 });
    edge::SendResult { send_id: Bytes::copy_from_slice(send_id(n).as_bytes()), result: Some(result) }
}
fn refused(n: u64, code: ErrorCode) -> edge::SendResult {
    let result = send_result::Result::Refused(refusal(code, "test"));
    edge::SendResult { send_id: Bytes::copy_from_slice(send_id(n).as_bytes()), result: Some(result) }
}
fn stored(receipt: &str) -> edge::Settled {
    let outcome = Some(settled::Outcome::Stored(edge::Stored {}));
    edge::Settled { receipt: Bytes::copy_from_slice(receipt.as_bytes()), outcome }
}
fn lost(receipt: &str) -> edge::Settled {
    let outcome = Some(settled::Outcome::Resend(edge::Resend {}));
    edge::Settled { receipt: Bytes::copy_from_slice(receipt.as_bytes()), outcome }
}
fn reload(outbox: &mut Outbox, table: &mut BTreeMap<u64, Vec<u8>>, lanes: &mut BTreeMap<OutLane, u64>) -> Outbox {
    for change in outbox.take_changes() {
        match change {
            OutboxChange::Message(at, Some(bytes)) => drop(table.insert(at, bytes)),
            OutboxChange::Message(at, None) => drop(table.remove(&at)),
            OutboxChange::Lane(lane, next) => drop(lanes.insert(lane, next)),
        }
    }
    Outbox::load(OutboxConfig::default(), table.clone(), lanes.clone()).expect("own records")
}

#[test]
fn a_message_stays_until_it_is_stored_and_keeps_id_and_expiry_over_a_resend() {
    let (mut outbox, mut rng) = (with(1), rng());
    outbox.connected(UnixMillis(1_000), UnixMillis(5_000), 8);
    let first = sends(&outbox.poll(UnixMillis(1_000), seal).frames);
    let life = OutboxConfig::default().life;
    assert_eq!(first[0].expires_at_ms, UnixMillis(5_000).after(life).0);
    assert!(matches!(
        outbox.on_result(&accepted(0, "r"), UnixMillis(1_001), &mut rng),
        Some(OutboxEvent::Accepted { .. })
    ));
    assert!(outbox.poll(UnixMillis(1_001), seal).frames.is_empty());
    let events = outbox.on_settled(&lost("r"), UnixMillis(1_002), &mut rng);
    assert!(matches!(events[..], [OutboxEvent::Resending { .. }]));
    let again = sends(&outbox.poll(UnixMillis(70_000), seal).frames);
    assert_eq!((&again[0].send_id, again[0].expires_at_ms), (&first[0].send_id, first[0].expires_at_ms));
    outbox.on_result(&accepted(0, "q"), UnixMillis(70_001), &mut rng);
    assert!(outbox.on_settled(&stored("r"), UnixMillis(70_002), &mut rng).is_empty());
    assert!(matches!(outbox.on_settled(&stored("q"), UnixMillis(70_002), &mut rng)[..], [OutboxEvent::Stored { .. }]));
    assert!(outbox.is_empty() && outbox.bytes() == 0);
}

#[test]
fn what_was_not_answered_is_sent_again_and_receipts_are_presented_after_a_reconnect() {
    let config = OutboxConfig { spread_max: 1_000, ..OutboxConfig::default() };
    let (mut outbox, mut rng) = (filled(config, 600), rng());
    outbox.connected(UnixMillis(0), UnixMillis(0), 1_000);
    assert_eq!(sends(&outbox.poll(UnixMillis(0), seal).frames).len(), 600);
    for n in 0..590 {
        outbox.on_result(&accepted(n, &format!("r{n}")), UnixMillis(1), &mut rng);
    }
    outbox.disconnected();
    assert!(outbox.poll(UnixMillis(2), seal).frames.is_empty());
    outbox.connected(UnixMillis(3), UnixMillis(3), 1_000);
    let frames = outbox.poll(UnixMillis(3), seal).frames;
    assert_eq!(receipts(&frames).iter().map(Vec::len).collect::<Vec<_>>(), [256, 256, 78]);
    let ids: Vec<Bytes> = sends(&frames).into_iter().map(|s| s.send_id).collect();
    assert_eq!(ids, (590..600).map(|n| Bytes::copy_from_slice(send_id(n).as_bytes())).collect::<Vec<_>>());
}

#[test]
fn what_left_without_an_answer_may_be_at_the_server_and_what_waited_cannot() {
    let mut outbox = with(4);
    let first = |outbox: &Outbox| (outbox.first_queued_lane_no(&lane(1)), outbox.first_untried_lane_no(&lane(1)));
    assert_eq!(first(&outbox), (1, 1));
    outbox.connected(UnixMillis(0), UnixMillis(0), 2);
    assert_eq!(sends(&outbox.poll(UnixMillis(0), seal).frames).len(), 2);
    assert_eq!(first(&outbox), (3, 3));
    outbox.disconnected();
    assert_eq!(first(&outbox), (1, 3), "both wait again");
    let (mut table, mut lanes) = (BTreeMap::new(), BTreeMap::new());
    let mut outbox = reload(&mut outbox, &mut table, &mut lanes);
    assert_eq!(first(&outbox), (1, 3), "also after a start");
    outbox.connected(UnixMillis(1), UnixMillis(1), 4);
    outbox.poll(UnixMillis(1), seal);
    for n in 0..4 {
        outbox.on_result(&accepted(n, &format!("r{n}")), UnixMillis(2), &mut rng());
    }
    assert_eq!(first(&outbox), (5, 5));
}

#[test]
fn the_window_bounds_what_is_in_flight() {
    let (mut outbox, mut rng) = (with(10), rng());
    outbox.connected(UnixMillis(0), UnixMillis(0), 4);
    assert_eq!(sends(&outbox.poll(UnixMillis(0), seal).frames).len(), 4);
    assert!(sends(&outbox.poll(UnixMillis(0), seal).frames).is_empty());
    outbox.on_result(&accepted(0, "r"), UnixMillis(0), &mut rng);
    assert_eq!(sends(&outbox.poll(UnixMillis(0), seal).frames).len(), 1);
}

#[test]
fn a_temporary_refusal_holds_the_rest_of_its_lane_and_no_other() {
    let (mut outbox, mut rng) = (with(1), rng());
    outbox.connected(UnixMillis(0), UnixMillis(0), 8);
    outbox.poll(UnixMillis(0), seal);
    outbox.push(send_id(1), lane(1), Bytes::from_static(b"x")).expect("room");
    outbox.push(send_id(2), lane(2), Bytes::from_static(b"y")).expect("room");
    let mut asked = refused(0, ErrorCode::Temporary);
    if let Some(send_result::Result::Refused(why)) = &mut asked.result {
        why.retry_after_ms = 500;
    }
    outbox.on_result(&asked, UnixMillis(0), &mut rng);
    let now = sends(&outbox.poll(UnixMillis(1), seal).frames);
    assert_eq!(now.len(), 1);
    assert_eq!(now[0].send_id.as_ref(), send_id(2).as_bytes());
    let deadline = outbox.next_deadline().expect("a retry is due");
    assert!((500..=750).contains(&deadline.0), "{deadline:?}");
    assert_eq!(sends(&outbox.poll(deadline, seal).frames).len(), 2);
}

#[test]
fn a_wrong_epoch_waits_for_the_catch_up_and_seals_again_under_the_same_id() {
    let (mut outbox, mut rng) = (with(1), rng());
    outbox.connected(UnixMillis(0), UnixMillis(0), 8);
    outbox.poll(UnixMillis(0), seal);
    let event = outbox.on_result(&refused(0, ErrorCode::WrongEpoch), UnixMillis(0), &mut rng);
    assert!(matches!(event, Some(OutboxEvent::WrongEpoch { .. })));
    assert!(outbox.poll(UnixMillis(1), seal).frames.is_empty());
    outbox.epoch_ready(lane(1).conversation);
    let newer = |_: &OutMessage| Seal::Sealed(Sealed { epoch: 4, body: Bytes::from_static(b"again") });
    let again = sends(&outbox.poll(UnixMillis(2), newer).frames);
    assert_eq!((again[0].epoch, again[0].send_id.as_ref()), (4, send_id(0).as_bytes().as_slice()));
}

#[test]
fn a_final_refusal_and_an_expiry_are_reported_and_drop_the_message() {
    let (mut outbox, mut rng) = (with(2), rng());
    outbox.connected(UnixMillis(0), UnixMillis(0), 1);
    outbox.poll(UnixMillis(0), seal);
    let event = outbox.on_result(&refused(0, ErrorCode::UnknownConversation), UnixMillis(0), &mut rng);
    assert!(matches!(event, Some(OutboxEvent::Refused { .. })));
    outbox.poll(UnixMillis(0), seal);
    let later = UnixMillis(0).after(EXPIRY_MAX);
    outbox.connected(later, later, 1);
    let poll = outbox.poll(later, seal);
    assert!(poll.frames.is_empty());
    assert!(matches!(&poll.events[..], [OutboxEvent::Refused { why, .. }] if why.code() == ErrorCode::EnvelopeExpired));
    assert!(outbox.is_empty());
}

#[test]
fn a_full_outbox_says_why_it_waits() {
    let mut outbox = Outbox::new(OutboxConfig { messages_max: 2, bytes_max: 10, ..OutboxConfig::default() });
    outbox.push(send_id(0), lane(1), Bytes::from_static(b"123456")).expect("room");
    let bytes = outbox.push(send_id(1), lane(1), Bytes::from_static(b"12345"));
    assert_eq!(bytes, Err(OutboxFull::Bytes { bytes: 6 }));
    outbox.push(send_id(1), lane(1), Bytes::from_static(b"1")).expect("room");
    let messages = outbox.push(send_id(2), lane(1), Bytes::new());
    assert_eq!(messages, Err(OutboxFull::Messages { waiting: 2, unsent: 2 }));
}

#[test]
fn a_lane_that_cannot_be_sealed_yet_waits_without_a_deadline() {
    let mut outbox = with(1);
    outbox.connected(UnixMillis(0), UnixMillis(0), 8);
    assert!(outbox.poll(UnixMillis(0), |_| Seal::Wait).frames.is_empty());
    assert_eq!(outbox.next_deadline(), None);
    assert_eq!(sends(&outbox.poll(UnixMillis(0), seal).frames).len(), 1);
}

#[test]
fn one_receipt_may_stand_for_several_messages() {
    let (mut outbox, mut rng) = (with(2), rng());
    outbox.connected(UnixMillis(0), UnixMillis(0), 8);
    outbox.poll(UnixMillis(0), seal);
    outbox.on_result(&accepted(0, "same"), UnixMillis(0), &mut rng);
    outbox.on_result(&accepted(1, "same"), UnixMillis(0), &mut rng);
    assert_eq!(outbox.on_settled(&stored("same"), UnixMillis(0), &mut rng).len(), 2);
    assert!(outbox.is_empty());
}

proptest! {
    /// Random verdicts, reconnects and restarts: a message leaves only by `stored` or a final refusal, first tries
    /// keep lane order, and every message ends stored when the server is well again.
    #[test]
    fn nothing_leaves_the_outbox_unsettled(steps in prop::collection::vec((0u8..7, any::<u8>()), 1..150)) {
        let (mut outbox, mut rng) = (Outbox::new(OutboxConfig::default()), rng());
        let (mut table, mut lanes) = (BTreeMap::new(), BTreeMap::new());
        let (mut pushed, mut done, mut now, mut receipt) = (0u64, 0usize, UnixMillis(0), 0u64);
        let mut flying: Vec<u64> = Vec::new();
        let mut open: Vec<String> = Vec::new();
        let number = |s: &edge::Send| u64::from_be_bytes(s.send_id[..8].try_into().expect("eight"));
        for (step, pick) in steps.into_iter().chain(std::iter::repeat_n((6, 0), 60)) {
            now = UnixMillis(now.0 + 1 + u64::from(pick) * 10);
            match step {
                0 => { outbox.push(send_id(pushed), lane(pick % 2), Bytes::from_static(b"m")).expect("room"); pushed += 1; }
                1 => { outbox.connected(now, now, 3); flying.clear(); }
                2 => { outbox = reload(&mut outbox, &mut table, &mut lanes); flying.clear(); }
                3 if !flying.is_empty() => {
                    let n = flying.remove(usize::from(pick) % flying.len());
                    outbox.on_result(&refused(n, ErrorCode::Temporary), now, &mut rng);
                }
                4 if !flying.is_empty() => {
                    let n = flying.remove(usize::from(pick) % flying.len());
                    receipt += 1;
                    open.push(format!("{receipt}"));
                    outbox.on_result(&accepted(n, &format!("{receipt}")), now, &mut rng);
                }
                5 if !open.is_empty() => {
                    let which = open.remove(usize::from(pick) % open.len());
                    if pick % 2 == 0 { done += outbox.on_settled(&stored(&which), now, &mut rng).len() }
                    else { outbox.on_settled(&lost(&which), now, &mut rng); }
                }
                6 => {
                    now = UnixMillis(now.0 + 100_000);
                    outbox.connected(now, now, 3);
                    flying.clear();
                    for which in open.drain(..) { done += outbox.on_settled(&stored(&which), now, &mut rng).len(); }
                    for send in sends(&outbox.poll(now, seal).frames) {
                        receipt += 1;
                        outbox.on_result(&accepted(number(&send), &format!("{receipt}")), now, &mut rng);
                        done += outbox.on_settled(&stored(&format!("{receipt}")), now, &mut rng).len();
                    }
                }
                _ => {}
            }
            let sent = sends(&outbox.poll(now, seal).frames);
            flying.extend(sent.iter().map(number));
            prop_assert!(flying.len() <= 3);
            prop_assert_eq!(outbox.len() + done, pushed as usize);
        }
        prop_assert!(outbox.is_empty(), "{} left", outbox.len());
        let loaded = reload(&mut outbox, &mut table, &mut lanes);
        prop_assert!(loaded.is_empty());
    }
}

fn tick_lane() -> OutLane {
    OutLane { conversation: lane(1).conversation, class: Class::Tick }
}

/// Pushes ticks one by one, each accepted before the next, until none leaves; answers how many left.
fn ticks(outbox: &mut Outbox, first: u64, most: u64) -> u64 {
    for n in first..first + most {
        outbox.push(send_id(n), tick_lane(), Bytes::from_static(b"tick")).expect("room");
        let left = sends(&outbox.poll(UnixMillis(10), seal).frames);
        if !left.iter().any(|send| send.send_id.as_ref() == send_id(n).as_bytes()) {
            return n - first;
        }
        outbox.on_result(&accepted(n, &format!("tick {n}")), UnixMillis(10), &mut rng());
        outbox.on_settled(&stored(&format!("tick {n}")), UnixMillis(10), &mut rng());
    }
    most
}

/// What of the window would be sealed by this closure: counts how often it is asked.
fn sealed_anew(outbox: &mut Outbox, now: u64) -> (usize, usize) {
    let mut asked = 0;
    let poll = outbox.poll(UnixMillis(now), |message| {
        asked += 1;
        seal(message)
    });
    (sends(&poll.frames).len(), asked)
}

#[test]
fn what_is_refused_goes_as_it_was_sealed_until_its_key_may_be_gone() {
    let mut outbox = with(64);
    outbox.connected(UnixMillis(0), UnixMillis(0), 64);
    assert_eq!(sealed_anew(&mut outbox, 0), (64, 64));
    let refuse = |outbox: &mut Outbox| {
        for n in 0..64 {
            outbox.on_result(&refused(n, ErrorCode::Temporary), UnixMillis(10), &mut rng());
        }
    };
    for round in 1..400 {
        refuse(&mut outbox);
        assert_eq!(sealed_anew(&mut outbox, round * 200_000), (64, 0), "an outage uses up no keys");
    }
    refuse(&mut outbox);
    assert_eq!(ticks(&mut outbox, 1_000, 49), 49);
    // The first is 112 behind now, and each that is sealed again puts the next one there.
    assert_eq!(sealed_anew(&mut outbox, 900_000_000), (64, 64));
}

#[test]
fn nothing_is_sealed_far_ahead_of_what_is_on_the_wire() {
    let mut outbox = with(1);
    outbox.connected(UnixMillis(0), UnixMillis(0), 64);
    assert_eq!(sealed_anew(&mut outbox, 0), (1, 1));
    assert_eq!(ticks(&mut outbox, 1_000, 200), 111);
    // Another message has found the epoch over: the first is on the wire all the same.
    outbox.epoch_ready(lane(1).conversation);
    assert_eq!(sealed_anew(&mut outbox, 10), (0, 0));
    // Another conversation has a ratchet of its own.
    outbox.push(send_id(5_000), lane(2), Bytes::from_static(b"x")).expect("room");
    assert_eq!(sealed_anew(&mut outbox, 10), (1, 1));
    outbox.on_result(&accepted(0, "slow"), UnixMillis(10), &mut rng());
    assert_eq!(sealed_anew(&mut outbox, 10), (1, 1), "the tick that waited");
}
