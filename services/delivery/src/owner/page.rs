// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading a device's queue: from the rows up to the checkpoint, from the tail above it, never both.

use pli_api::delivery::{Delivery, GapRange, Page, ReadPage, owner_reply};
use pli_domain::mutant::{Mutant, broken};
use pli_domain::{DeviceId, Position, SessionId};
use pli_ports::{DeviceState, Page as RowPage, PageQuery};
use pli_runtime::trail::{HopKind, tag};
use std::error::Error;

use super::live::{Done, Live};
use super::refetch::{Want, refetch};
use super::sessions::Responder;
use super::tail::Body;

/// A page of rows that came back from the database.
pub(super) struct RowsRead {
    asked: Asked,
    through: Position,
    respond: Responder,
    /// Rows, and the device's registers read after them: a floor that another owner raised meanwhile is seen.
    read: Option<(RowPage, DeviceState)>,
}

/// A request for a page.
#[derive(Debug, Clone, Copy)]
struct Asked {
    device: DeviceId,
    /// What the session has.
    after: Position,
    /// Where the read begins: above what is settled for the device.
    from: Position,
    rows_max: usize,
    bytes_max: usize,
    /// Of the asking session, for the notes.
    session: u64,
}

impl Live {
    /// Answers a page, or lets a job answer it.
    pub async fn read_page(&mut self, read: &ReadPage, respond: Responder) {
        let parsed = (DeviceId::try_from(read.device.as_ref()), Position::from_u64(read.after));
        let (Ok(device), Ok(after)) = parsed else {
            self.context.counters.malformed(1);
            return;
        };
        if after.epoch() > self.epoch.epoch {
            self.check_epoch();
            return self.context.answer(respond, Self::not_ready()).await;
        }
        if SessionId::try_from(read.session.as_ref()).is_ok_and(|session| !self.heard_of(device, session)) {
            self.ask_for_announcements().await;
        }
        let config = &self.context.config;
        let limit = |asked: u32, most: usize| if asked == 0 { most } else { most.min(asked as usize) };
        let asked = Asked {
            device,
            after,
            from: after.max(self.devices.get(device).map_or(Position::ZERO, |device| device.settled_to())),
            rows_max: limit(read.rows_max, config.page_rows_max),
            bytes_max: limit(read.bytes_max, config.page_bytes_max),
            session: tag(&read.session),
        };
        // Nothing was addressed to the device above what the session has: no need to ask the database.
        let known = self.devices.get(device).and_then(|device| device.last_addressed);
        let complete = known.is_some_and(|last| last <= asked.from);
        if asked.from < self.checkpoint.position && !complete {
            self.read_rows(asked, respond).await;
        } else {
            self.read_tail(asked, respond).await;
        }
    }

    async fn read_rows(&mut self, asked: Asked, respond: Responder) {
        if self.asked >= self.context.config.jobs_max {
            return self.context.answer(respond, Self::not_ready()).await;
        }
        self.asked += 1;
        self.context.counters.row_pages(1);
        let (context, checkpoint) = (self.context.clone(), self.checkpoint.position);
        let through = if broken(Mutant::RowsAboveCheckpointRead) { Position::MAX } else { checkpoint };
        let query = PageQuery {
            device: asked.device,
            after: asked.from,
            through,
            now: context.ports.clock.now(),
            rows_max: asked.rows_max,
            bytes_max: asked.bytes_max,
        };
        self.spawn(async move {
            let read = read_rows(&context, query).await;
            Done::RowsRead(Box::new(RowsRead { asked, through: checkpoint, respond, read }))
        });
    }

    /// Turns rows into the answer.
    pub async fn rows_read(&mut self, read: RowsRead) {
        self.asked -= 1;
        let RowsRead { asked, through, respond, read } = read;
        let Some((rows, state)) = read else { return self.context.answer(respond, Self::not_ready()).await };
        self.merge(asked.device, state).await;
        self.learn_from(asked, &rows);
        let settled = self.devices.get(asked.device).map_or(Position::ZERO, |device| device.settled_to());
        let mut page = PageBuilder::new(asked.after, self.floor_of(asked.device));
        let mut complete = rows.next;
        if broken(Mutant::RowsAboveCheckpointRead) && complete == Position::MAX {
            complete = rows.rows.last().map_or(through, |row| row.position.max(through));
        }
        for row in rows.rows {
            // What was settled while the page was read is not sent any more.
            if row.position <= settled {
                continue;
            }
            let body = if row.envelope.is_empty() { Body::Gap } else { Body::Held(row.envelope) };
            if !page.push(row.position, body) {
                break;
            }
        }
        let (device, complete) = (asked.device, complete.max(settled));
        let mut reply = page.complete_to(complete);
        let next = Position::from_u64(reply.next).unwrap_or(Position::ZERO);
        if next >= through && self.checkpoint.position == through && self.tail_is_empty_above(device, through) {
            reply.next = next.max(self.head).get();
            reply.at_head = true;
            self.devices.entry(device).last_addressed.get_or_insert(self.head);
        }
        self.note_page(HopKind::PagedRows, &reply, asked.session);
        self.context.answer(respond, owner_reply::Reply::Page(reply)).await;
        self.devices.release(device, self.context.config.idle_devices_max);
    }

    /// What a page tells about the device's rows.
    fn learn_from(&mut self, asked: Asked, rows: &RowPage) {
        let device = self.devices.entry(asked.device);
        if let Some(last) = rows.rows.last() {
            device.suppose_rows(last.position);
            return;
        }
        let Some(known) = &mut device.rows else { return };
        // Rows under a floor, which another owner may have raised, are a gap that the device is still to be told.
        let untold = device.floor > device.cursor;
        if !untold && asked.from <= device.cursor && rows.next >= known.high && known.high > device.cursor {
            // Nothing is left of rows that this owner knew: they expired. The cursor crosses them once.
            self.context.counters.expired(std::mem::take(&mut known.count));
            known.bytes = 0;
            let high = known.high;
            self.raise_cursor(asked.device, high);
        }
    }

    fn floor_of(&self, device: DeviceId) -> Position {
        self.devices.get(device).map_or(Position::ZERO, |device| device.floor)
    }

    fn tail_is_empty_above(&self, device: DeviceId, above: Position) -> bool {
        let slots = self.devices.get(device).map(|device| &device.slots);
        slots.and_then(|slots| slots.back()).is_none_or(|slot| slot.position <= above)
    }

    async fn read_tail(&mut self, asked: Asked, respond: Responder) {
        self.context.counters.tail_pages(1);
        let now = self.context.ports.clock.now();
        let mut page = PageBuilder::new(asked.after, self.floor_of(asked.device));
        let (mut whole, mut bytes) = (true, 0);
        let empty = std::collections::VecDeque::new();
        let slots = self.devices.get(asked.device).map_or(&empty, |device| &device.slots);
        let first = slots.partition_point(|slot| slot.position <= asked.from);
        for slot in slots.range(first..).filter(|slot| slot.expires_at > now) {
            if page.len() >= asked.rows_max || bytes >= asked.bytes_max || !page.push(slot.position, slot.body.clone())
            {
                whole = false;
                break;
            }
            bytes += Self::size_of(slot);
        }
        let complete = if whole { self.head.max(asked.from) } else { page.last() };
        let wants = page.wants(asked.device, |position| self.entry_of(asked.device, position));
        let mut reply = page.complete_to(complete);
        reply.at_head = whole;
        if let Some(device) = self.devices.get_mut(asked.device).filter(|_| whole) {
            // Everything addressed to it so far lies at or below the head, and the session has it.
            device.last_addressed.get_or_insert(self.head);
        }
        self.note_page(HopKind::PagedTail, &reply, asked.session);
        if wants.is_empty() {
            return self.context.answer(respond, owner_reply::Reply::Page(reply)).await;
        }
        self.read_again(wants, reply, respond).await;
    }

    /// The page has bodies that only the log still has.
    async fn read_again(&mut self, mut wants: Vec<Want>, mut reply: Page, respond: Responder) {
        if self.asked >= self.context.config.jobs_max {
            return self.context.answer(respond, Self::not_ready()).await;
        }
        self.asked += 1;
        let context = self.context.clone();
        self.spawn(async move {
            match refetch(&context, &mut wants).await {
                Ok(true) => {
                    for want in wants {
                        let at = reply.deliveries.iter_mut().find(|d| d.position == want.position.get());
                        if let (Some(delivery), Some(body)) = (at, want.body) {
                            delivery.envelope = body;
                        }
                    }
                    context.answer(respond, owner_reply::Reply::Page(reply)).await;
                }
                Ok(false) => context.answer(respond, Live::not_ready()).await,
                Err(error) => {
                    tracing::info!(error = &error as &dyn Error, "reading bodies again failed");
                    context.answer(respond, Live::not_ready()).await;
                }
            }
            Done::Answered
        });
    }
}

async fn read_rows(context: &super::Context, query: PageQuery) -> Option<(RowPage, DeviceState)> {
    let rows = context.ports.queues.read_page(query).await;
    let rows = rows.inspect_err(|error| tracing::info!(error = error as &dyn Error, "reading rows failed")).ok()?;
    context.counters.register_reads(1);
    let state = context.ports.queues.device_states(&[query.device]).await;
    let state =
        state.inspect_err(|error| tracing::info!(error = error as &dyn Error, "reading registers failed")).ok()?;
    Some((rows, state.first().copied()?))
}

/// Builds a page in order of position. Gaps stand before deliveries on the wire, so a gap ends a page that has
/// deliveries already.
struct PageBuilder {
    page: Page,
    dropped: Vec<Position>,
    last: Position,
}

impl PageBuilder {
    /// What lies above `after` and at or below `floor` is told as a gap before anything else.
    fn new(after: Position, floor: Position) -> Self {
        let gaps = if floor > after { vec![GapRange { from: after.get(), to: floor.get() }] } else { Vec::new() };
        let page = Page { gaps, ..Page::default() };
        Self { page, dropped: Vec::new(), last: after.max(floor) }
    }
    fn len(&self) -> usize {
        self.page.deliveries.len() + self.page.gaps.len()
    }
    fn last(&self) -> Position {
        self.last
    }
    /// False when the page is to end before this position.
    fn push(&mut self, position: Position, body: Body) -> bool {
        debug_assert!(position > self.last, "positions of a page rise above what was asked");
        let envelope = match body {
            Body::Gap if !self.page.deliveries.is_empty() => {
                self.page.next = self.last.get();
                return false;
            }
            Body::Gap => {
                self.page.gaps.push(GapRange { from: position.prev().get(), to: position.get() });
                self.last = position;
                return true;
            }
            Body::Held(envelope) => envelope,
            Body::Dropped { .. } => {
                self.dropped.push(position);
                bytes::Bytes::new()
            }
        };
        self.page.deliveries.push(Delivery { position: position.get(), envelope });
        self.last = position;
        true
    }
    fn wants(&self, device: DeviceId, entry: impl Fn(Position) -> Option<pli_domain::EntryRef>) -> Vec<Want> {
        let found = self.dropped.iter().filter_map(|position| Some((*position, entry(*position)?)));
        found.map(|(position, entry)| Want { device, position, entry, body: None }).collect()
    }
    /// The page is complete up to `complete`, unless it was cut at a gap.
    fn complete_to(mut self, complete: Position) -> Page {
        if self.page.next == 0 {
            self.page.next = complete.max(self.last).get();
        }
        self.page
    }
}
