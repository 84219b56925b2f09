// SPDX-License-Identifier: MIT OR Apache-2.0
// Accounts and their signed device lists (docs/protocol.md, "Registration and devices").

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { sha256, sha512 } from "@noble/hashes/sha2.js";

import { concat, hex, prefixed, same, utf8, type Bytes } from "./bytes.js";
import {
  DeviceListSchema,
  Directory as Methods,
  SignedDeviceListSchema,
  type AccountDevices,
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
  /** SHA-256 of the list as it was signed, and of the one that it was made from. */
  readonly hash: Bytes;
  readonly previous: Bytes;
}

/** Why a list was not taken; the one that is known stands. */
export type ListRefusal = "older" | "forked" | "unlinked" | "invalid";

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
  const [version, hash] = [Number(list.version), sha256(toBinary(SignedDeviceListSchema, signed))];
  const { identityKey, previous = new Uint8Array() } = list;
  return { account, handle, version, identityKey, devices, hash, previous };
}

/** How far a chain of lists leads from the one that is known, and why no further. */
export function follow(known: Account, lists: Account[]): { reached: Account; refused?: ListRefusal } {
  let reached = known;
  for (const next of lists) {
    if (!same(next.identityKey, known.identityKey)) return { reached, refused: "invalid" };
    if (next.version < reached.version) return { reached, refused: "older" };
    if (next.version > reached.version + 1) return { reached, refused: "unlinked" };
    const names = next.version === reached.version ? next.hash : next.previous;
    if (!same(names, reached.hash)) return { reached, refused: "forked" };
    reached = { ...next, handle: next.handle || reached.handle };
  }
  return { reached };
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

/** The lists of an account from this version on. */
interface Question {
  readonly account: Bytes;
  readonly from: number;
}

export class Directory {
  readonly #accounts: Table<Account>;
  onNotice: (notice: KeyNotice, account: Account) => void = () => {};
  onRefused: (why: ListRefusal, account: Account) => void = () => {};
  /** Told once for each account and reason. */
  readonly #refused = new Set<string>();

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
    const newest = readList(found.account, found.handle, found.devices);
    const known = this.known(found.account);
    if (known === undefined || !same(known.identityKey, newest.identityKey)) return this.#believe(newest);
    const { reached, refused } = follow(known, [newest]);
    this.#believe({ ...reached, handle: newest.handle });
    // A look-up has the newest list alone: what lies before it is asked for, and what is older or forked looked at again.
    if (refused !== undefined) await this.refresh([found.account]);
    return this.known(found.account)!;
  }

  /** Fetches the lists after those that are known. Within a change of the store. */
  async refresh(accounts: Bytes[]): Promise<void> {
    for (let open = accounts.map((account) => this.#question(account)); open.length > 0; ) {
      const [asked, known] = [open.map(({ account }) => account), open.map(({ from }) => BigInt(from))];
      const answer = await this.link.call(Methods.method.getDeviceLists, { accounts: asked, known });
      open = answer.accounts.flatMap((lists) => {
        const question = open.find(({ account }) => same(account, lists.account));
        return question === undefined ? [] : (this.#answered(lists, question.from) ?? []);
      });
    }
  }

  /** From the version before the known one, so that this one comes along: another list of its version is seen at once. */
  #question(account: Bytes): Question {
    const version = this.known(account)?.version ?? 0;
    return { account, from: version < 2 ? version : version - 1 };
  }

  /** Takes in what came for an account; answers what is still to be asked. */
  #answered(lists: AccountDevices, from: number): Question | undefined {
    const { account, handle } = lists;
    const known = this.known(account);
    if (lists.devices === undefined) {
      // It has nothing newer than the version before the known one: it lost or hides that one. What has it?
      return known !== undefined && from > 0 && from < known.version ? { account, from: 0 } : undefined;
    }
    const chain = this.#read(lists, known);
    const newest = chain?.at(-1);
    if (chain === undefined || newest === undefined) return undefined;
    if (known === undefined) return void this.#believe(newest);
    const isOwn = same(account, this.profile.account);
    // Shown as what it is: an account that was made anew, or somebody in between.
    if (!isOwn && !same(newest.identityKey, known.identityKey)) return void this.#believe(newest);
    const { reached, refused } = follow(known, chain);
    this.#believe({ ...reached, handle });
    // A long chain comes in parts.
    if (refused === "unlinked" && reached.version > known.version) return this.#question(account);
    if (refused !== undefined) this.#refuse(refused, known);
    return undefined;
  }

  /** The lists of an answer in their order; refused where one of them is none and the account is known. */
  #read({ account, handle, between, devices }: AccountDevices, known: Account | undefined): Account[] | undefined {
    try {
      return [...between, devices].map((signed) => readList(account, handle, signed));
    } catch (error) {
      if (known === undefined || !(error instanceof BadList)) throw error;
      this.#refuse("invalid", known);
      return undefined;
    }
  }

  #refuse(why: ListRefusal, known: Account): void {
    const once = `${hex(known.account)} ${why}`;
    if (this.#refused.has(once)) return;
    this.#refused.add(once);
    this.store.afterwards(() => this.onRefused(why, known));
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
    this.#notices(before, found, before !== undefined && same(before.identityKey, found.identityKey));
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
