// SPDX-License-Identifier: MIT OR Apache-2.0
// Order: a lane is one device's messages of one class in one conversation, numbered from 1. What arrives ahead of its
// turn is held; a hole is held at most ten seconds, then marked, and what comes later is shown as late.

export const HOLE_HELD_MS = 10_000;

export interface Held<Item> {
  readonly no: number;
  readonly item: Item;
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

export const newLane = <Item>(first: number): Lane<Item> => ({ next: first, held: [], heldSince: 0, lost: [] });

/** Takes in what has the number `no`; a number below `first` of a lane that nothing is known of was not for this device. */
export function receive<Item>(
  known: Lane<Item> | undefined,
  first: number,
  no: number,
  item: Item,
  now: number,
): Step<Item> {
  const lane = known ?? newLane<Item>(first);
  if (known === undefined && no < first) return { lane, shown: [] };
  if (no < lane.next) return { lane: { ...lane, lost: without(lane.lost, no) }, shown: [{ no, item, late: true }] };
  if (lane.held.some((other) => other.no === no)) return { lane, shown: [{ no, item, late: true }] };
  const held = [...lane.held, { no, item }].sort((a, b) => a.no - b.no);
  return drain({ ...lane, held, heldSince: lane.held.length === 0 ? now : lane.heldSince });
}

/** Gives up the hole in front of what is held, where its time is over. */
export function giveUp<Item>(lane: Lane<Item>, now: number): Step<Item> | undefined {
  const first = lane.held[0];
  if (first === undefined || now - lane.heldSince < HOLE_HELD_MS) return undefined;
  const hole: [number, number] = [lane.next, first.no - 1];
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
    if (held.no !== next) break;
    shown.push({ ...held, late: false });
    next += 1;
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
