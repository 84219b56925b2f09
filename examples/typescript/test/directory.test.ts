// SPDX-License-Identifier: MIT OR Apache-2.0
// Device lists of a directory that lies.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { create, toBinary } from "@bufbuild/protobuf";

import type { Bytes } from "../src/bytes.js";
import { alsoLeaving } from "../src/groups.js";
import { Directory, readList, signList, type ListRefusal } from "../src/directory.js";
import { DeviceListSchema, type SignedDeviceList } from "../src/gen/pli/directory/v1/directory_pb.js";
import type { Link } from "../src/link.js";
import type { Group } from "../src/mls.js";
import { newProfile, type Profile } from "../src/profile.js";
import { Store } from "../src/store.js";

const bob = newProfile("bob", 1);

/** Lists of an account from `from` on, each with another second device. */
function chain(of: Profile, length: number, from: SignedDeviceList[] = []): SignedDeviceList[] {
  const lists = [...from];
  while (lists.length < length) {
    const version = lists.length + 1;
    const names = (n: number) => ({
      device: new Uint8Array(16).fill(n),
      key: new Uint8Array(32).fill(n),
      name: `${n}`,
    });
    const last = lists.at(-1);
    const previous = last === undefined ? {} : { previous: readList(of.account, of.handle, last).hash };
    const devices = [{ device: of.device, key: of.deviceKey.public, name: "first" }, names(version + from.length)];
    const list = {
      account: of.account,
      version: BigInt(version),
      devices,
      identityKey: of.identity.public,
      ...previous,
    };
    lists.push(signList(of, toBinary(DeviceListSchema, create(DeviceListSchema, list))));
  }
  return lists;
}

/** A directory that serves what it is told to, as the service answers. */
class Served {
  lists: SignedDeviceList[] = [];
  calls = 0;

  call = async (method: { localName: string }, request: { known?: bigint[] }): Promise<unknown> => {
    this.calls += 1;
    const { account, handle } = bob;
    const newest = this.lists.at(-1);
    if (method.localName === "lookup") return { account, handle, devices: newest };
    const known = Number(request.known?.[0] ?? 0n);
    const between = known === 0 ? [] : this.lists.slice(known, -1).slice(0, 32);
    return { accounts: [{ account, handle, between, devices: this.lists.length === known ? undefined : newest }] };
  };
}

async function trying(what: (served: Served, look: Looks) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "pli-directory-"));
  const store = await Store.open(folder);
  const served = new Served();
  const directory = new Directory(store, served as unknown as Link, newProfile("alice", 1));
  const refusals: ListRefusal[] = [];
  directory.onRefused = (why) => void refusals.push(why);
  const refresh = (account: Bytes = bob.account) => store.change(() => directory.refresh([account]));
  const lookup = () => store.change(() => directory.lookup("bob"));
  try {
    await what(served, { refusals, refresh, lookup, version: () => directory.known(bob.account)?.version });
  } finally {
    await store.close();
    await rm(folder, { recursive: true });
  }
}

interface Looks {
  refusals: ListRefusal[];
  refresh: () => Promise<void>;
  lookup: () => Promise<unknown>;
  version: () => number | undefined;
}

test("a chain of lists is followed link by link, however long it is", () =>
  trying(async (served, { refusals, refresh, lookup, version }) => {
    served.lists = chain(bob, 1);
    await lookup();
    for (const length of [2, 4, 90, 90]) {
      served.lists = chain(bob, length, served.lists);
      await (length === 4 ? lookup() : refresh());
      assert.equal(version(), length);
    }
    assert.deepEqual(refusals, []);
    assert.ok(served.calls <= 9, `${served.calls} calls`);
  }));

test("a list that goes back is refused and shown once, by whatever it is asked", () =>
  trying(async (served, { refusals, refresh, lookup, version }) => {
    const lists = chain(bob, 5);
    served.lists = lists;
    await lookup();
    for (const length of [4, 2, 1]) {
      served.lists = lists.slice(0, length);
      await refresh();
      await lookup();
      assert.equal(version(), 5);
    }
    assert.deepEqual(refusals, ["older"]);
    served.lists = chain(bob, 6, lists);
    await refresh();
    assert.equal(version(), 6);
  }));

test("another list of a known version, and what was made from it, is a fork", () =>
  trying(async (served, { refusals, refresh, lookup, version }) => {
    served.lists = chain(bob, 3);
    await lookup();
    served.lists = chain(bob, 3, chain(bob, 2));
    await refresh();
    assert.deepEqual([version(), refusals], [3, ["forked"]]);
    served.lists = chain(bob, 4, served.lists);
    await lookup();
    assert.deepEqual([version(), refusals], [3, ["forked"]]);
  }));

test("a list without those before it is not taken, nor one that nobody signed", () =>
  trying(async (served, { refusals, refresh, lookup, version }) => {
    const lists = chain(bob, 9);
    served.lists = lists.slice(0, 3);
    await lookup();
    served.call = ((call) => async (method, request) => {
      const answer = (await call(method, request)) as { accounts?: { between: unknown[] }[] };
      answer.accounts?.forEach((account) => (account.between = []));
      return answer;
    })(served.call);
    served.lists = lists;
    await refresh();
    assert.deepEqual([version(), refusals], [3, ["unlinked"]]);
    served.lists = [...lists.slice(0, 3), { ...lists[3]!, signature: new Uint8Array(64) }];
    await refresh();
    assert.deepEqual([version(), refusals], [3, ["unlinked", "invalid"]]);
  }));

test("who leaves does so with every device of the account", () => {
  const member = (leaf: number, account: number) => {
    const bytes = new Uint8Array(16).fill(account);
    return { leaf, account: bytes, device: new Uint8Array(16).fill(leaf), key: bytes };
  };
  const members = [member(0, 1), member(1, 2), member(2, 2), member(4, 3), member(5, 2)];
  assert.deepEqual(alsoLeaving({ members, leaving: [2] } as unknown as Group), [1, 5]);
  assert.deepEqual(alsoLeaving({ members, leaving: [] } as unknown as Group), []);
});
