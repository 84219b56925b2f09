// SPDX-License-Identifier: MIT OR Apache-2.0
// Accounts and their signed device lists (docs/protocol.md, "Registration and devices").

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { sha512 } from "@noble/hashes/sha2.js";

import { concat, hex, prefixed, same, utf8, type Bytes } from "./bytes.js";
import {
  DeviceListSchema,
  Directory as Methods,
  SignedDeviceListSchema,
  type SignedDeviceList,
} from "./gen/pli/directory/v1/directory_pb.js";
import type { Link } from "./link.js";
import { sign, verify, type Profile } from "./profile.js";
import type { Store, Table } from "./store.js";

export interface DeviceEntry {
  readonly device: Bytes;
  readonly key: Bytes;
}

/** What is believed of an account: its newest list that verified. */
export interface Account {
  readonly account: Bytes;
  readonly handle: string;
  readonly version: number;
  readonly identityKey: Bytes;
  readonly devices: DeviceEntry[];
}

/** What a user is shown of other people's keys. */
export type KeyNotice = "first_contact" | "new_identity_key" | "new_device" | "handle_moved";

export class BadList extends Error {
  override name = "BadList";
}

export function signedList(profile: Profile, name = "typescript"): SignedDeviceList {
  const devices = [{ device: profile.device, key: profile.deviceKey.public, name }];
  const list = { account: profile.account, version: 1n, devices, identityKey: profile.identity.public };
  return signList(profile, toBinary(DeviceListSchema, create(DeviceListSchema, list)));
}

export function signList(profile: Pick<Profile, "identity">, list: Bytes): SignedDeviceList {
  return create(SignedDeviceListSchema, { list, signature: sign(profile.identity, listTranscript(list)) });
}

export const listTranscript = (list: Bytes): Bytes => prefixed(utf8("pli-devices-1"), list);

/** Reads a list and verifies what it says by itself; `BadList` says what is wrong. */
export function readList(account: Bytes, handle: string, signed: SignedDeviceList | undefined): Account {
  if (signed === undefined) throw new BadList(`${handle} has no device list`);
  const list = fromBinary(DeviceListSchema, signed.list);
  const devices = list.devices.map(({ device, key }) => ({ device, key }));
  if (!same(list.account, account)) throw new BadList(`the device list of ${handle} is of another account`);
  if (!verify(list.identityKey, listTranscript(signed.list), signed.signature))
    throw new BadList(`the device list of ${handle} is not signed by its identity key`);
  if (new Set(devices.map(({ device }) => hex(device))).size !== devices.length)
    throw new BadList(`the device list of ${handle} names a device twice`);
  return { account, handle, version: Number(list.version), identityKey: list.identityKey, devices };
}

/** What two people compare to know that nobody stands between them. */
export function safetyNumber(
  one: Pick<Account, "account" | "identityKey">,
  other: Pick<Account, "account" | "identityKey">,
): string {
  return [half(one), half(other)].sort().join("");
}

function half({ account, identityKey }: Pick<Account, "account" | "identityKey">): string {
  let hash = concat(utf8("pli-safety-1"), account, identityKey);
  for (let round = 0; round < 5200; round += 1) hash = sha512(concat(hash, identityKey));
  const groups = Array.from({ length: 6 }, (_, i) => hash.subarray(5 * i, 5 * i + 5));
  return groups
    .map((five) => (five.reduce((sum, byte) => sum * 256 + byte, 0) % 100_000).toString().padStart(5, "0"))
    .join("");
}

export class Directory {
  readonly #accounts: Table<Account>;
  onNotice: (notice: KeyNotice, account: Account) => void = () => {};

  constructor(
    private readonly store: Store,
    private readonly link: Link,
    private readonly profile: Profile,
  ) {
    this.#accounts = store.table<Account>("account");
  }

  known(account: Bytes): Account | undefined {
    return this.#accounts.get(hex(account));
  }

  byHandle(handle: string): Account | undefined {
    return this.#accounts
      .entries()
      .map(([, account]) => account)
      .find((account) => account.handle === handle);
  }

  /** How somebody is called, or the beginning of the account's id. */
  handleOf(account: Bytes): string {
    if (same(account, this.profile.account)) return this.profile.handle;
    return this.known(account)?.handle || hex(account);
  }

  /** The account with exactly this handle. Within a change of the store. */
  async lookup(handle: string): Promise<Account> {
    const found = await this.link.call(Methods.method.lookup, { handle });
    return this.#believe(readList(found.account, found.handle, found.devices));
  }

  /** Fetches the newest lists. Within a change of the store. */
  async refresh(accounts: Bytes[]): Promise<void> {
    if (accounts.length === 0) return;
    const answer = await this.link.call(Methods.method.getDeviceLists, { accounts });
    for (const { account, handle, devices } of answer.accounts) this.#believe(readList(account, handle, devices));
  }

  /** Whether account, device and key stand in the newest list; asks the server once before it says no. */
  async vouches(account: Bytes, device: Bytes, key: Bytes): Promise<boolean> {
    const stands = () =>
      this.known(account)?.devices.some((entry) => same(entry.device, device) && same(entry.key, key)) ?? false;
    if (!stands()) await this.refresh([account]);
    return stands();
  }

  #believe(found: Account): Account {
    const key = hex(found.account);
    const before = this.#accounts.get(key);
    const sameKey = before !== undefined && same(before.identityKey, found.identityKey);
    // A server that shows an older list may want to bring back a device that was removed.
    if (sameKey && found.version < before.version) return before;
    this.#notices(before, found, sameKey);
    this.#accounts.set(key, found);
    return found;
  }

  #notices(before: Account | undefined, found: Account, sameKey: boolean): void {
    if (same(found.account, this.profile.account)) return;
    const tell = (notice: KeyNotice) => this.store.afterwards(() => this.onNotice(notice, found));
    const owner = this.byHandle(found.handle);
    if (owner !== undefined && !same(owner.account, found.account)) tell("handle_moved");
    if (before === undefined) tell("first_contact");
    else if (!sameKey) tell("new_identity_key");
    else if (found.devices.some((now) => !before.devices.some((old) => same(old.device, now.device))))
      tell("new_device");
  }
}
