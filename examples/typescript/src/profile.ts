// SPDX-License-Identifier: MIT OR Apache-2.0
// Who a device is: ids and keys that are drawn once and kept (docs/protocol.md, "Registration and devices").

import { ed25519 } from "@noble/curves/ed25519.js";

import { newId, type Bytes } from "./bytes.js";

/** An Ed25519 key; `secret` is the 32-byte seed. */
export interface Key {
  readonly secret: Bytes;
  readonly public: Bytes;
}

export interface Profile {
  readonly handle: string;
  readonly account: Bytes;
  readonly device: Bytes;
  /** Signs device lists and nothing else. */
  readonly identity: Key;
  /** Authenticates sessions and signs MLS leaves. */
  readonly deviceKey: Key;
  /** MLS suite of the key packages and of the groups that this device makes. */
  readonly suite: Suite;
}

export type Suite = 1 | 3;

export function keyOf(secret: Bytes): Key {
  return { secret, public: ed25519.getPublicKey(secret) };
}

export function newProfile(handle: string, suite: Suite): Profile {
  const key = () => keyOf(ed25519.utils.randomSecretKey());
  return { handle, account: newId(), device: newId(), identity: key(), deviceKey: key(), suite };
}

export const sign = (key: Key, message: Bytes): Bytes => ed25519.sign(message, key.secret);

/** Strict: no signature that only some libraries take, no key of small order (RFC 8032 section 5.1.7). */
export function verify(publicKey: Bytes, message: Bytes, signature: Bytes): boolean {
  try {
    return ed25519.verify(signature, message, publicKey, { zip215: false });
  } catch {
    return false;
  }
}
