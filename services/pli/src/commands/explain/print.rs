// SPDX-License-Identifier: MIT OR Apache-2.0
//! The story for people and for scripts.

use pli_api::ErrorCode;
use pli_runtime::trail::{Hop, HopKind};
use serde_json::{Value, json};

use super::gaps::Gap;
use super::story::{Place, Step, Story, Teller};
use super::word;

/// For people.
pub fn text(story: &Story) -> String {
    let begin = story.begin_ms();
    let from = if begin > 0 { format!(", from {}", moment(begin)) } else { String::new() };
    let mut lines = vec![format!("send {}{from}", story.send)];
    lines.extend(story.sender.iter().map(|step| line(story, step, begin)));
    for place in &story.places {
        let (seq, index) = (place.position.seq().get(), place.position.index());
        lines.push(format!("shard {}, entry {seq}, envelope {index}{}", place.shard, epoch(place)));
        lines.extend(place.steps.iter().map(|step| line(story, step, begin)));
    }
    lines.extend(story.gaps().iter().map(missing));
    if story.left_out > 0 {
        lines.push(format!("not looked at: {} further places in logs", story.left_out));
    }
    let answered = |teller: &Teller| match teller.size {
        0 => teller.process.clone(),
        _ => format!("{} (runs since {})", teller.process, moment(teller.started_ms)),
    };
    lines.push(format!("answered: {}", story.tellers.iter().map(answered).collect::<Vec<_>>().join(", ")));
    lines.extend(story.silent.iter().map(|silent| format!("no answer: {}: {}", silent.process, silent.why)));
    lines.join("\n") + "\n"
}

fn epoch(place: &Place) -> String {
    match place.position.epoch().get() {
        0 => String::new(),
        epoch => format!(", log epoch {epoch}"),
    }
}

fn line(story: &Story, step: &Step, begin: u64) -> String {
    let after = step.hop.at_ms.saturating_sub(begin);
    format!("  {after:>7} ms  {:<22}{}", step.process, sentence(story, &step.hop))
}

fn missing(gap: &Gap) -> String {
    let at = gap.shard.map_or_else(String::new, |shard| format!(" (shard {shard})"));
    let of = gap.of.map_or_else(String::new, |(n, all)| format!(" ({n} of {all})"));
    format!("missing{at}: {}{of}: {}", gap.missing, gap.reasons.join("; "))
}

fn sentence(story: &Story, hop: &Hop) -> String {
    let session = format!("session {:016x}", hop.second);
    match hop.kind {
        HopKind::Admitted => "edge: checked and admitted".into(),
        HopKind::Refused => format!("edge: refused, {}", code(hop.second)),
        HopKind::Accepted => format!("edge: accepted; durable in the log as entry {:016x}", hop.second),
        HopKind::Read => format!("owner: read into the tail, entry {:016x}", hop.second),
        HopKind::Rung => format!("owner: rang {session} at {}", edge(story, hop.first)),
        HopKind::PagedTail => format!("owner: {session} fetched it from the tail"),
        HopKind::PagedRows => format!("owner: {session} fetched it from rows"),
        HopKind::Bell => format!("edge: doorbell for {session}"),
        HopKind::Told => format!("edge: sent to the device, {session}"),
        HopKind::Acked => format!("edge: the device acknowledged, {session}"),
        HopKind::Passed => format!("owner: heard the acknowledgement, {session}"),
        HopKind::Spilled => "owner: nobody had acknowledged it; written as a row".into(),
        HopKind::Expired => "owner: expired".into(),
        HopKind::Gone => "owner: the queue was too long; told as a gap".into(),
        HopKind::Floor => {
            "owner: a queue of this shard was too long; if this stood in its rows, it is gone and told as a gap".into()
        }
        HopKind::Settled => "owner: settled; the checkpoint is above it".into(),
        HopKind::Stored => "edge: told the sender that it is stored".into(),
        HopKind::Resend => "edge: told the sender to send it again".into(),
    }
}

fn edge(story: &Story, id: u64) -> String {
    match story.process_of(id) {
        Some(process) => format!("the edge {process}"),
        None => format!("edge {id:016x}, which is none of those that answered"),
    }
}

fn code(number: u64) -> &'static str {
    let code = i32::try_from(number).ok().and_then(|number| ErrorCode::try_from(number).ok());
    code.unwrap_or(ErrorCode::Unspecified).as_str_name()
}

/// The moment in the local time zone.
pub fn moment(at_ms: u64) -> String {
    let at = i64::try_from(at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let zoned = at.map(|at| at.to_zoned(jiff::tz::TimeZone::system()));
    zoned.map_or_else(|| format!("{at_ms} ms"), |at| at.strftime("%Y-%m-%d %H:%M:%S%.3f").to_string())
}

/// For scripts. Names and fields are stable.
pub fn json(story: &Story) -> Value {
    let step = |step: &Step| of_step(story, step);
    let place = |place: &Place| {
        let position = place.position;
        let epoch = Some(position.epoch().get()).filter(|epoch| *epoch > 0);
        let steps: Vec<Value> = place.steps.iter().map(step).collect();
        json!({
            "shard": place.shard, "seq": position.seq().get(), "index": position.index(), "log_epoch": epoch,
            "hops": steps,
        })
    };
    let gap = |gap: &Gap| {
        let (count, of) = gap.of.unzip();
        json!({ "shard": gap.shard, "missing": gap.missing, "count": count, "of": of, "reasons": gap.reasons })
    };
    let tellers = story.tellers.iter().map(|teller| {
        json!({
            "process": teller.process, "roles": teller.roles, "hops_max": teller.size, "since_ms": teller.since_ms,
            "started_ms": Some(teller.started_ms).filter(|at| *at > 0),
        })
    });
    let silent = story.silent.iter().map(|silent| json!({ "process": silent.process, "why": silent.why }));
    json!({
        "send_id": story.send.to_string(),
        "sender": story.sender.iter().map(step).collect::<Vec<_>>(),
        "places": story.places.iter().map(place).collect::<Vec<_>>(),
        "places_left_out": story.left_out,
        "missing": story.gaps().iter().map(gap).collect::<Vec<_>>(),
        "answered": tellers.collect::<Vec<_>>(),
        "no_answer": silent.collect::<Vec<_>>(),
    })
}

fn of_step(story: &Story, step: &Step) -> Value {
    let hop = &step.hop;
    let mut line = json!({ "at_ms": hop.at_ms, "process": step.process, "hop": word(hop.kind) });
    match hop.kind {
        HopKind::Refused => line["code"] = code(hop.second).into(),
        HopKind::Accepted | HopKind::Read => line["entry"] = format!("{:016x}", hop.second).into(),
        HopKind::Rung => {
            line["edge"] = format!("{:016x}", hop.first).into();
            line["edge_process"] = story.process_of(hop.first).into();
        }
        _ => {}
    }
    if hop.kind.names_session() {
        line["session"] = format!("{:016x}", hop.second).into();
    }
    line
}
