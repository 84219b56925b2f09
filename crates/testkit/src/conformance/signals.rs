// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every [`Signals`] does while nothing is lost on the way.

use std::time::Duration;

use bytes::Bytes;
use pli_domain::limits::SUBSCRIPTION_SIGNALS_MAX as BUFFER;
use pli_domain::{EdgeId, ShardId};
use pli_ports::{RequestError, Signal, SignalEvent, Signals, Subject, Subscription};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Harness, Outcome, QUIET, SOON, Stop, id_bytes, rivals};

type Bus = dyn Signals;

cases! { Bus:
    a_subscriber_receives_what_is_sent_after_it_subscribed,
    what_was_sent_before_is_not_received,
    a_message_to_nobody_is_accepted,
    every_subscriber_receives_a_message,
    subjects_are_apart,
    one_senders_messages_on_one_subject_keep_their_order,
    payloads_up_to_their_bound_come_whole,
    a_larger_payload_is_refused,
    a_cancelled_wait_loses_nothing,
    a_dropped_subscription_receives_no_more,
    a_buffer_holds_8192_messages,
    a_slow_subscriber_is_told_and_then_whole_again,
    a_request_is_answered,
    a_request_to_nobody_says_so_at_once,
    a_request_that_is_dropped_times_out,
    the_first_of_several_answers_counts,
    an_answer_after_the_deadline_does_no_harm,
    concurrent_requests_get_their_own_answers,
}

fn subject(number: u16) -> Subject {
    Subject::owner(ShardId::new(number))
}

fn payload(number: usize) -> Bytes {
    Bytes::from(format!("message {number}"))
}

async fn next(subscription: &mut dyn Subscription) -> Result<SignalEvent, Stop> {
    let event = timeout(SOON, subscription.next()).await;
    let event = event.map_err(|_| Stop::failed("nothing arrives although something was sent"))?;
    event.ok_or_else(|| Stop::failed("the subscription ended"))
}

async fn signal(subscription: &mut dyn Subscription) -> Result<Signal, Stop> {
    match next(subscription).await? {
        SignalEvent::Signal(signal) => Ok(signal),
        SignalEvent::Interrupted => Err(Stop::failed("an interruption although nothing was lost")),
    }
}

async fn silent(subscription: &mut dyn Subscription) -> Outcome {
    match timeout(QUIET, subscription.next()).await {
        Err(_) => Ok(()),
        Ok(event) => Err(Stop::failed(format!("nothing was sent, yet {event:?} arrives"))),
    }
}

async fn a_subscriber_receives_what_is_sent_after_it_subscribed(h: &mut dyn Harness<Bus>) -> Outcome {
    let bus = h.fresh().await;
    for of in [subject(1), Subject::edge(EdgeId::from_bytes(id_bytes(5, 1))), Subject::edges()] {
        let mut subscription = bus.subscribe(&of).await?;
        bus.publish(&of, payload(1)).await?;
        let found = signal(subscription.as_mut()).await?;
        check_eq!((&found.subject, &found.payload), (&of, &payload(1)), "the message");
        check!(found.respond.is_none(), "a published message waits for an answer");
        silent(subscription.as_mut()).await?;
    }
    Ok(())
}

async fn what_was_sent_before_is_not_received(h: &mut dyn Harness<Bus>) -> Outcome {
    let bus = h.fresh().await;
    bus.publish(&subject(1), payload(1)).await?;
    // What is sent may still be on its way; a subscriber from then on must not see it.
    tokio::time::sleep(QUIET).await;
    let mut subscription = bus.subscribe(&subject(1)).await?;
    silent(subscription.as_mut()).await
}

async fn a_message_to_nobody_is_accepted(h: &mut dyn Harness<Bus>) -> Outcome {
    let bus = h.fresh().await;
    bus.publish(&subject(1), payload(1)).await?;
    bus.publish(&Subject::edges(), Bytes::new()).await?;
    Ok(())
}

async fn every_subscriber_receives_a_message(h: &mut dyn Harness<Bus>) -> Outcome {
    let bus = h.fresh().await;
    let mut subscriptions = Vec::new();
    for _ in 0..5 {
        subscriptions.push(bus.subscribe(&subject(1)).await?);
    }
    bus.publish(&subject(1), payload(1)).await?;
    for subscription in &mut subscriptions {
        check_eq!(signal(subscription.as_mut()).await?.payload, payload(1), "the message");
        silent(subscription.as_mut()).await?;
    }
    Ok(())
}

async fn subjects_are_apart(h: &mut dyn Harness<Bus>) -> Outcome {
    let bus = h.fresh().await;
    // One subject is the beginning of the other.
    let (mut short, mut long) = (bus.subscribe(&subject(1)).await?, bus.subscribe(&subject(11)).await?);
    bus.publish(&subject(11), payload(1)).await?;
    check_eq!(signal(long.as_mut()).await?.payload, payload(1), "the message");
    silent(short.as_mut()).await?;
    bus.publish(&Subject::edges(), payload(2)).await?;
    bus.publish(&subject(2), payload(3)).await?;
    silent(short.as_mut()).await?;
    silent(long.as_mut()).await
}

async fn one_senders_messages_on_one_subject_keep_their_order(h: &mut dyn Harness<Bus>) -> Outcome {
    let bus = h.fresh().await;
    let mut subscription = bus.subscribe(&subject(1)).await?;
    for number in 0..500 {
        bus.publish(&subject(1), payload(number)).await?;
    }
    for number in 0..500 {
        check_eq!(signal(subscription.as_mut()).await?.payload, payload(number), "message {number}");
    }
    Ok(())
}

async fn payloads_up_to_their_bound_come_whole(h: &mut dyn Harness<Bus>) -> Outcome {
    let bus = h.fresh().await;
    let mut subscription = bus.subscribe(&subject(1)).await?;
    for size in [0, 1, 1023 * 1024] {
        let sent: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        bus.publish(&subject(1), Bytes::from(sent.clone())).await?;
        check!(signal(subscription.as_mut()).await?.payload == sent, "a payload of {size} bytes is another one");
    }
    Ok(())
}

async fn a_larger_payload_is_refused(h: &mut dyn Harness<Bus>) -> Outcome {
    let bus = h.fresh().await;
    let mut subscription = bus.subscribe(&subject(1)).await?;
    let large = Bytes::from(vec![0; 1023 * 1024 + 1]);
    check!(bus.publish(&subject(1), large.clone()).await.is_err(), "a payload of 1,023 KiB and a byte is accepted");
    let answer = bus.request(&subject(1), large, Duration::from_millis(200)).await;
    check!(matches!(answer, Err(RequestError::Store(_))), "a request of 1,023 KiB and a byte: {answer:?}");
    bus.publish(&subject(1), payload(1)).await?;
    check_eq!(signal(subscription.as_mut()).await?.payload, payload(1), "the message after it");
    Ok(())
}

async fn a_cancelled_wait_loses_nothing(h: &mut dyn Harness<Bus>) -> Outcome {
    let bus = h.fresh().await;
    let mut subscription = bus.subscribe(&subject(1)).await?;
    let sender = bus.clone();
    let sending = tokio::spawn(async move {
        for number in 0..100 {
            sender.publish(&subject(1), payload(number)).await?;
            tokio::task::yield_now().await;
        }
        Ok::<_, Stop>(())
    });
    let mut seen = 0;
    for step in 0u64.. {
        if seen == 100 {
            break;
        }
        check!(step < 100_000, "only {seen} of 100 messages after {step} waits");
        let patience = Duration::from_micros((step % 7) * 200);
        match timeout(patience, subscription.next()).await {
            Ok(Some(SignalEvent::Signal(found))) => {
                check_eq!(found.payload, payload(seen), "message {seen}");
                seen += 1;
            }
            Ok(other) => return Err(Stop::failed(format!("{other:?} among the messages"))),
            Err(_) => {}
        }
    }
    sending.await?
}

async fn a_dropped_subscription_receives_no_more(h: &mut dyn Harness<Bus>) -> Outcome {
    let bus = h.fresh().await;
    let subscription = bus.subscribe(&subject(1)).await?;
    let mut other = bus.subscribe(&subject(1)).await?;
    drop(subscription);
    bus.publish(&subject(1), payload(1)).await?;
    check_eq!(signal(other.as_mut()).await?.payload, payload(1), "the message at the subscription that stays");
    drop(other);
    // An unsubscription may travel.
    let mut answer = Ok(Bytes::new());
    for _ in 0..50 {
        answer = bus.request(&subject(1), payload(2), Duration::from_millis(50)).await;
        if matches!(answer, Err(RequestError::NoResponder(_))) {
            return Ok(());
        }
    }
    Err(Stop::failed(format!("a request after the last subscription was dropped: {answer:?}")))
}

async fn a_buffer_holds_8192_messages(h: &mut dyn Harness<Bus>) -> Outcome {
    let bus = h.fresh().await;
    let mut subscription = bus.subscribe(&subject(1)).await?;
    for number in 0..BUFFER {
        bus.publish(&subject(1), payload(number)).await?;
    }
    for number in 0..BUFFER {
        check_eq!(signal(subscription.as_mut()).await?.payload, payload(number), "message {number}");
    }
    silent(subscription.as_mut()).await
}

async fn a_slow_subscriber_is_told_and_then_whole_again(h: &mut dyn Harness<Bus>) -> Outcome {
    let bus = h.fresh().await;
    let mut subscription = bus.subscribe(&subject(1)).await?;
    for number in 0..BUFFER * 2 {
        bus.publish(&subject(1), payload(number)).await?;
    }
    let (mut received, mut told) = (0, 0);
    while let Ok(event) = timeout(QUIET, subscription.next()).await {
        match event {
            Some(SignalEvent::Signal(_)) => received += 1,
            Some(SignalEvent::Interrupted) => told += 1,
            None => return Err(Stop::failed("the subscription ended")),
        }
    }
    check!(told >= 1 || received == BUFFER * 2, "{received} of {} messages, and no interruption told", BUFFER * 2);
    // Across a network messages still arrive while the buffer is emptied.
    let whole = received <= BUFFER + 1 || told == 0 || h.is_networked();
    check!(whole, "{received} messages from a buffer of {BUFFER}");
    for number in 0..100 {
        bus.publish(&subject(1), payload(number)).await?;
        check_eq!(signal(subscription.as_mut()).await?.payload, payload(number), "after the interruption");
    }
    Ok(())
}

/// Answers every request with what it asked and the name.
async fn answer_all(mut subscription: Box<dyn Subscription>, name: &'static str) {
    while let Some(event) = subscription.next().await {
        if let SignalEvent::Signal(Signal { payload, respond: Some(respond), .. }) = event {
            respond.respond(Bytes::from([name.as_bytes(), &payload].concat())).await;
        }
    }
}

async fn a_request_is_answered(h: &mut dyn Harness<Bus>) -> Outcome {
    let bus = h.fresh().await;
    let answering = tokio::spawn(answer_all(bus.subscribe(&subject(1)).await?, "owner: "));
    for number in 0..20 {
        let answer = bus.request(&subject(1), payload(number), SOON).await?;
        check_eq!(answer, Bytes::from(format!("owner: message {number}")), "the answer");
    }
    answering.abort();
    Ok(())
}

async fn a_request_to_nobody_says_so_at_once(h: &mut dyn Harness<Bus>) -> Outcome {
    let bus = h.fresh().await;
    let asked = timeout(SOON, bus.request(&subject(1), payload(1), Duration::from_secs(3_600))).await;
    let answer = asked.map_err(|_| Stop::failed("a request to nobody waits for its deadline"))?;
    let named = matches!(&answer, Err(RequestError::NoResponder(of)) if *of == subject(1));
    check!(named, "a request to nobody: {answer:?}");
    Ok(())
}

async fn a_request_that_is_dropped_times_out(h: &mut dyn Harness<Bus>) -> Outcome {
    let bus = h.fresh().await;
    let mut subscription = bus.subscribe(&subject(1)).await?;
    let asker = bus.clone();
    let deadline = Duration::from_millis(500);
    let asking = tokio::spawn(async move { asker.request(&subject(1), payload(1), deadline).await });
    let asked = signal(subscription.as_mut()).await?;
    check!(asked.respond.is_some(), "a request does not wait for an answer");
    drop(asked);
    let answer = timeout(SOON, asking).await.map_err(|_| Stop::failed("a request outlives its deadline"))??;
    let named = matches!(&answer, Err(RequestError::Timeout(of)) if *of == subject(1));
    check!(named, "a request that was dropped: {answer:?}");
    Ok(())
}

async fn the_first_of_several_answers_counts(h: &mut dyn Harness<Bus>) -> Outcome {
    let bus = h.fresh().await;
    let mut silent_one = bus.subscribe(&subject(1)).await?;
    let answering = tokio::spawn(answer_all(bus.subscribe(&subject(1)).await?, "one: "));
    let also = tokio::spawn(answer_all(bus.subscribe(&subject(1)).await?, "one: "));
    for number in 0..10 {
        let answer = bus.request(&subject(1), payload(number), SOON).await?;
        check_eq!(answer, Bytes::from(format!("one: message {number}")), "the answer");
        check_eq!(signal(silent_one.as_mut()).await?.payload, payload(number), "every subscriber is asked");
    }
    answering.abort();
    also.abort();
    Ok(())
}

async fn an_answer_after_the_deadline_does_no_harm(h: &mut dyn Harness<Bus>) -> Outcome {
    let bus = h.fresh().await;
    let mut subscription = bus.subscribe(&subject(1)).await?;
    let late = bus.request(&subject(1), payload(1), Duration::from_millis(100)).await;
    check!(matches!(late, Err(RequestError::Timeout(_))), "a request that nobody answers: {late:?}");
    let asked = signal(subscription.as_mut()).await?;
    let respond = asked.respond.ok_or_else(|| Stop::failed("a request does not wait for an answer"))?;
    respond.respond(payload(7)).await;
    tokio::spawn(answer_all(subscription, "then: "));
    let answer = bus.request(&subject(1), payload(2), SOON).await?;
    check_eq!(answer, Bytes::from_static(b"then: message 2"), "the answer to the next request");
    Ok(())
}

async fn concurrent_requests_get_their_own_answers(h: &mut dyn Harness<Bus>) -> Outcome {
    let bus = h.fresh().await;
    let answering = tokio::spawn(answer_all(bus.subscribe(&subject(1)).await?, "to "));
    let mut asking = JoinSet::new();
    for number in 0..rivals(h) {
        let bus = bus.clone();
        asking.spawn(async move { (number, bus.request(&subject(1), payload(number), SOON).await) });
    }
    while let Some(done) = asking.join_next().await {
        let (number, answer) = done?;
        check_eq!(answer?, Bytes::from(format!("to message {number}")), "the answer to request {number}");
    }
    answering.abort();
    Ok(())
}
