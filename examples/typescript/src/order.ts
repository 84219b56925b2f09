// SPDX-License-Identifier: MIT OR Apache-2.0
// How far what is sealed may run ahead of what a server has taken (docs/protocol.md, "Keys and order"). Each body takes the
// next key of this device in the group, and receivers keep only so many of those that they skipped.

/** Below the 128 generations that receivers keep. */
const SPREAD = 112;

/** Whether receivers certainly have the key of the `nth` body of a conversation, when so many are sealed. */
export const isNear = (sealed: number, nth: number): boolean => sealed - nth < SPREAD;

/** Whether one more may be sealed while these wait for their answer. */
export const mayFollow = (sealed: number, onWire: number[]): boolean => onWire.every((nth) => isNear(sealed + 1, nth));
