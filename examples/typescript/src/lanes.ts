// SPDX-License-Identifier: MIT OR Apache-2.0
// Order: a lane is one device's messages of one class in one conversation, numbered from 1. What arrives ahead of its
// turn is held; a hole is held at most ten seconds, then marked, and what comes later is shown as late.

export const HOLE_HELD_MS = 10_000;

export interface Held<Item> {
  readonly no: number;
  readonly item: Item;
  /** Numbers from this one up to the one before `no` stand for nothing. */
  readonly unsentFrom?: number;
}

export interface Lane<Item> {
  /** The number that is shown next. */
  readonly next: number;
  /** What came ahead of it, by number. */
  readonly held: Held<Item>[];
  /** Since when something is held. */
  readonly heldSince: number;
  /** Numbers below `next` that were never shown, as rising ranges. */
  readonly lost: [number, number][];
  /** This device came into the group again: the next message says with which number the lane goes on. */
  readonly anew?: true;
  /** The watermarks of each time that this device, or the sender, was put out, the last one last. */
  readonly stays?: number[];
}

export interface Shown<Item> extends Held<Item> {
  readonly late: boolean;
}

export interface Step<Item> {
  readonly lane: Lane<Item>;
  readonly shown: Shown<Item>[];
  /** The hole that was given up. */
  readonly hole?: [number, number];
}

const RANGES_MAX = 64;
const STAYS_MAX = 4;

export const newLane = <Item>(first: number): Lane<Item> => ({ next: first, held: [], heldSince: 0, lost: [] });

/** What was shown up to here is told by itself from now on: this device, or the sender, was put out. */
export function noteStay<Item>(lane: Lane<Item>): Lane<Item> {
  const { stays = [] } = lane;
  const now = watermark(lane);
  return now > (stays.at(-1) ?? 0) ? { ...lane, stays: [...stays, now].slice(-STAYS_MAX) } : lane;
}

/** What is kept of a lane when this device comes into the group again. */
export const beginAgain = <Item>(lane: Lane<Item>): Lane<Item> => ({ ...noteStay(lane), anew: true });

/** Takes in what has the number `no`; a lane that nothing is known of, or that begins again, goes on at `first`. */
export function receive<Item>(
  known: Lane<Item> | undefined,
  first: number,
  no: number,
  item: Item,
  now: number,
  unsentFrom = 0,
): Step<Item> {
  const before = known ?? newLane<Item>(Math.min(first, no));
  if (no < before.next) {
    return { lane: { ...before, lost: without(before.lost, no) }, shown: [{ no, item, late: true }] };
  }
  const { lane, shown } = goOn(before, Math.min(first, no));
  if (lane.held.some((other) => other.no === no)) return { lane, shown: [...shown, { no, item, late: true }] };
  const fresh = { no, item, ...(unsentFrom > 0 && { unsentFrom }) };
  const held = [...lane.held, fresh].sort((a, b) => a.no - b.no);
  const step = drain({ ...lane, held, heldSince: lane.held.length === 0 ? now : lane.heldSince });
  return { ...step, shown: [...shown, ...step.shown] };
}

/** Where the lane begins again, at `first`: what was held below is shown, with what is missing between. */
function goOn<Item>({ anew, ...lane }: Lane<Item>, first: number): Step<Item> {
  if (anew === undefined || first <= lane.next) return { lane, shown: [] };
  let [next, lost] = [lane.next, lane.lost];
  const below = lane.held.filter(({ no }) => no < first);
  for (const held of below) {
    const hole = holeBefore(held, next);
    if (hole !== undefined) lost = [...lost, hole].slice(-RANGES_MAX);
    next = held.no + 1;
  }
  const shown = below.map(({ no, item }) => ({ no, item, late: false }));
  return { lane: { ...lane, next: first, held: lane.held.slice(below.length), lost }, shown };
}

/** What is missing where `next` is expected, before what is held. */
function holeBefore<Item>({ no, unsentFrom }: Held<Item>, next: number): [number, number] | undefined {
  const end = Math.min(unsentFrom ?? no, no);
  return next < end ? [next, end - 1] : undefined;
}

/** Gives up the hole in front of what is held, where its time is over. */
export function giveUp<Item>(lane: Lane<Item>, now: number): Step<Item> | undefined {
  const first = lane.held[0];
  if (first === undefined || now - lane.heldSince < HOLE_HELD_MS) return undefined;
  const hole = holeBefore(first, lane.next)!;
  const lost = [...lane.lost, hole].slice(-RANGES_MAX);
  const step = drain({ ...lane, next: first.no, heldSince: now, lost });
  return { ...step, hole };
}

/** The highest number up to which everything was shown, but for what is lost. */
export const watermark = (lane: Lane<unknown>): number => lane.next - 1;

function drain<Item>(lane: Lane<Item>): Step<Item> {
  const shown: Shown<Item>[] = [];
  let { next } = lane;
  for (const held of lane.held) {
    if (holeBefore(held, next) !== undefined) break;
    shown.push({ no: held.no, item: held.item, late: false });
    next = held.no + 1;
  }
  return { lane: { ...lane, next, held: lane.held.slice(shown.length) }, shown };
}

function without(ranges: [number, number][], no: number): [number, number][] {
  return ranges.flatMap(([first, last]): [number, number][] => {
    if (no < first || no > last) return [[first, last]];
    const parts: [number, number][] = [
      [first, no - 1],
      [no + 1, last],
    ];
    return parts.filter(([low, high]) => low <= high);
  });
}
