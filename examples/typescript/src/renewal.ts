// SPDX-License-Identifier: MIT OR Apache-2.0
// When a device renews its keys in a conversation (docs/protocol.md, "Renew"): at a time drawn at random, so that the
// devices of a group do not meet, in a span that grows with the group.

import { hex, same, type Bytes } from "./bytes.js";
import type { Member } from "./mls.js";

const MINUTE_MS = 60_000;
const SPAN_MIN_MS = 7 * 24 * 60 * MINUTE_MS;
const PER_DEVICE_MS = 30 * MINUTE_MS;
/** Within so long keys are renewed that somebody may have. */
export const OWN_REMOVED_MS = 10 * MINUTE_MS;
/** Somebody waits for them. */
export const ASKED_FOR_MS = MINUTE_MS / 2;
/** Nobody is heeded more often, whoever asks. */
export const ASKED_EVERY_MS = 10 * MINUTE_MS;
const MESSAGES = 1_000;
const MESSAGES_PART = 24;

/** How many messages this device has said and heard in a conversation. */
export interface Spoken {
  readonly said: number;
  readonly heard: number;
}

/** In server time; `due` is `ASLEEP` where the date went by while nothing was said. `at` is what had been said until `since`. */
export interface Renewal {
  readonly due: number;
  readonly since: number;
  readonly at: Spoken;
}

const ASLEEP = 0;
/** Nobody has said so little. */
const NOT_QUIET: Spoken = { said: -1, heard: -1 };

export const span = (devices: number): number => Math.max(SPAN_MIN_MS, devices * PER_DEVICE_MS);

/** This device came in: anywhere in a span. */
export const firstRenewal = (devices: number, now: number, at: Spoken): Renewal => ({
  due: now + Math.random() * span(devices),
  since: now,
  at,
});

/** Its keys are new: about a span later. */
export const nextRenewal = (devices: number, now: number, at: Spoken): Renewal => ({
  due: now + (0.75 + Math.random() / 2) * span(devices),
  since: now,
  at,
});

const within = (span: number, now: number): Renewal => ({ due: now + Math.random() * span, since: now, at: NOT_QUIET });

/** This device came in by its key package of last resort: within minutes, whether or not anything is said. */
export const soonRenewal = (now: number): Renewal => within(OWN_REMOVED_MS, now);

/** A member that cannot follow the group any more comes back by the group info of this device's next commit. */
export const askedRenewal = (now: number): Renewal => within(ASKED_FOR_MS, now);

/** `true` where keys are to be renewed now, else the renewal as it goes on. */
export function look(renewal: Renewal, devices: number, now: number, spoken: Spoken): true | Renewal {
  const { due, since, at } = renewal;
  const saidMuch = spoken.said - at.said >= MESSAGES && now >= since + span(devices) / MESSAGES_PART;
  if (due > now && !saidMuch) return renewal;
  const isQuiet = spoken.said === at.said && spoken.heard === at.heard;
  if (isQuiet) return due === ASLEEP ? renewal : { ...renewal, due: ASLEEP };
  // Many devices may find out at once.
  return due === ASLEEP ? { ...renewal, due: now + Math.random() * devices * PER_DEVICE_MS } : true;
}

/**
 * Somebody else's commit has removed devices: sooner. A date that is as soon stays: of many draws the earliest would count.
 * Where one was of one's own account, which may have been stolen, within minutes, whether or not anything is said.
 */
export function hastened(renewal: Renewal, before: Member[], after: Member[], own: Bytes, now: number): Renewal {
  const stayed = new Set(after.map(({ device }) => hex(device)));
  const gone = before.filter(({ device }) => !stayed.has(hex(device)));
  if (gone.length === 0) return renewal;
  const isOwn = gone.some(({ account }) => same(account, own));
  const within = isOwn ? OWN_REMOVED_MS : after.length * PER_DEVICE_MS;
  const isSoon = renewal.due <= now + within && !(isOwn && renewal.due === ASLEEP);
  const due = isSoon ? renewal.due : now + Math.random() * within;
  if (isOwn) return { ...renewal, due, at: NOT_QUIET };
  return isSoon ? renewal : { ...renewal, due };
}
