// SPDX-License-Identifier: MIT OR Apache-2.0
// Groups that either side makes and changes; the other side is the Rust client, and other clients of this folder.

import assert from "node:assert/strict";
import { cpSync } from "node:fs";
import { join } from "node:path";
import { before, describe, test } from "node:test";

import type { Client } from "../src/client.js";
import { callsOf, folder, Person, PliServer, RustClient, until } from "./support.js";

let server: PliServer;
let rust: RustClient;

before(async () => {
  server = await PliServer.start();
  rust = new RustClient(server);
});

const open = (handle: string, suite: 1 | 3 = 1, home = folder()) =>
  Person.open(server.at, handle, { suite, folder: home });

/** Waits until everybody holds the group in the same epoch with these others. */
async function agreed(id: string, members: Person[], size: number): Promise<void> {
  await until(`${members.length} clients to agree on ${size} members`, () => {
    const groups = members.map(({ client }) => client.conversation(id));
    const epochs = new Set(groups.map((group) => group?.group.epoch));
    return epochs.size === 1 && groups.every((group) => group?.phase === "open" && group.group.members.length === size);
  });
}

/**
 * A device that lost the thread of a group, of whose newest epoch a newcomer has signed the group info; `also` happens before
 * that. The calls of the device are recorded.
 */
async function lost(name: string, also: (newer: Client, id: string) => Promise<void>) {
  const [home, copy] = [folder(), join(folder(), "copy")];
  const first = await open(`${name}alice`, 1, home);
  const carol = await open(`${name}carol`);
  await rust.register(`${name}bob`);
  const id = await first.client.createGroup(name, [`${name}bob`]);
  await first.close();
  cpSync(home, copy, { recursive: true });
  const newer = await open(`${name}alice`, 1, home);
  await newer.client.add(id, [`${name}carol`]);
  await also(newer.client, id);
  await agreed(id, [newer, carol], newer.client.conversation(id)!.group.members.length);
  await carol.client.rejoin(id);
  await carol.heard("rejoined");
  await agreed(id, [newer, carol], newer.client.conversation(id)!.group.members.length);
  await newer.close();
  const calls = callsOf(`${name}alice`);
  const alice = await open(`${name}alice`, 1, copy);
  // It ends when the device is back, or has tried for long.
  void alice.client.rejoin(id).catch(() => undefined);
  return { alice, carol, id, calls };
}

describe("a group", () => {
  test("that this client makes, with pli in it", async () => {
    await rust.register("g1bob");
    const [alice, carol] = [await open("g1alice"), await open("g1carol")];
    const id = await alice.client.createGroup("team one", ["g1bob", "g1carol"]);
    await carol.heard("joined", ({ conversation }) => conversation === id);
    await carol.heard("named", ({ name }) => name === "team one");
    const bob = rust.follow(["pipe", "g1bob", "#team one", "--json"]);
    await alice.client.send(id, "from alice");
    await bob.seen("alice's message", ({ text }) => text === "from alice");
    bob.write("from bob");
    await Promise.all([alice.text("from bob"), carol.text("from bob")]);
    await carol.client.send(id, "from carol");
    await bob.seen("carol's message", ({ text }) => text === "from carol");
    await alice.text("from carol");
  });

  test("that pli makes, with clients of this folder in it", async () => {
    await rust.register("g2bob");
    const [alice, carol] = [await open("g2alice"), await open("g2carol")];
    await rust.run(["group", "create", "g2bob", "team two", "g2alice", "g2carol"]);
    const { conversation: id } = await alice.heard("named", ({ name }) => name === "team two");
    await carol.heard("named", ({ name }) => name === "team two");
    const sent = await alice.client.send(id, "hello team");
    await carol.text("hello team");
    const events = await rust.receive("g2bob", 1);
    assert.equal(events.find(({ event }) => event === "message")?.["text"], "hello team");
    for (const by of ["g2bob", "g2carol"])
      await alice.heard("delivered", (tick) => tick.by === by && tick.upTo >= sent.laneNo);
  });

  test("in which a device renews its keys when that is due, and everybody goes on", async () => {
    await rust.register("g0bob");
    const [alice, carol] = [await open("g0alice"), await open("g0carol")];
    const id = await alice.client.createGroup("renewed", ["g0bob", "g0carol"]);
    await carol.heard("joined", ({ conversation }) => conversation === id);
    await agreed(id, [alice, carol], 3);
    const epoch = () => alice.client.conversation(id)!.group.epoch;
    const before = epoch();
    await alice.client.renewKeys();
    await alice.client.send(id, "hello");
    await carol.text("hello");
    assert.equal(epoch(), before, "the first date is drawn");
    const inTwoWeeks = Date.now() + 14 * 24 * 3_600_000;
    await alice.client.renewKeys(inTwoWeeks);
    await until("the new epoch", () => epoch() === before + 1);
    await agreed(id, [alice, carol], 3);
    await alice.client.renewKeys(Date.now() + 24 * 3_600_000);
    assert.equal(epoch(), before + 1, "the next date is days away");
    await rust.run(["send", "g0bob", "#renewed", "from bob"]);
    await Promise.all([alice.text("from bob"), carol.text("from bob")]);
    await alice.client.send(id, "from alice");
    await carol.text("from alice");
    const events = await rust.receive("g0bob", 2);
    const texts = events.filter(({ event }) => event === "message").map((event) => event["text"]);
    assert.deepEqual(texts, ["hello", "from alice"]);
  });

  test("whose members commit at one epoch: one wins, and the others' changes follow", async () => {
    for (const handle of ["g3bob", "g3dave", "g3erin", "g3frank"]) await rust.register(handle);
    const [alice, carol] = [await open("g3alice"), await open("g3carol")];
    const id = await alice.client.createGroup("race", ["g3bob", "g3carol"]);
    await carol.heard("joined");
    await rust.receive("g3bob", 0).catch(() => undefined);
    await Promise.all([
      alice.client.add(id, ["g3dave"]),
      carol.client.add(id, ["g3erin"]),
      rust.run(["group", "add", "g3bob", "race", "g3frank"]),
    ]);
    await agreed(id, [alice, carol], 6);
    await alice.client.send(id, "all here");
    await carol.text("all here");
    for (const handle of ["g3bob", "g3dave", "g3erin", "g3frank"]) {
      const events = await rust.receive(handle, 1);
      assert.ok(
        events.some(({ text }) => text === "all here"),
        handle,
      );
    }
  });

  test("that goes on at one epoch among three clients of this folder, again and again", async () => {
    const people = [await open("g4alice"), await open("g4carol"), await open("g4erin")] as const;
    for (const handle of ["g4x", "g4y", "g4z"]) await rust.register(handle);
    const id = await people[0].client.createGroup("often", ["g4carol", "g4erin"]);
    await agreed(id, [...people], 3);
    await Promise.all(people.map(({ client }, i) => client.add(id, [["g4x", "g4y", "g4z"][i]!])));
    await agreed(id, [...people], 6);
    await Promise.all(people.map(({ client }, i) => client.remove(id, [["g4y", "g4z", "g4x"][i]!])));
    await agreed(id, [...people], 3);
    await people[2].client.send(id, "still together");
    await Promise.all([people[0].text("still together"), people[1].text("still together")]);
  });

  test("from which pli removes this client, and to which it adds it again", async () => {
    await rust.register("g5bob");
    const [alice, carol] = [await open("g5alice"), await open("g5carol")];
    await rust.run(["group", "create", "g5bob", "five", "g5alice", "g5carol"]);
    const { conversation: id } = await alice.heard("named");
    await carol.heard("named");
    await rust.run(["group", "remove", "g5bob", "five", "g5alice"]);
    assert.equal((await alice.heard("over", ({ conversation }) => conversation === id)).why, "removed");
    await assert.rejects(alice.client.send(id, "am I in?"), /over for this device/);
    await carol.client.send(id, "without alice");
    await rust.run(["group", "add", "g5bob", "five", "g5alice"]);
    await until("alice to be in again", () => alice.client.conversation(id)?.phase === "open");
    await alice.client.send(id, "here again");
    await carol.text("here again");
    assert.ok(!alice.texts(id).includes("without alice"));
  });

  test("of six that pli makes, to which this client is added after somebody was removed and added again", async () => {
    const others = ["g14bob", "g14dave", "g14gus", "g14fred"];
    for (const handle of ["g14carol", ...others]) await rust.register(handle);
    const tess = await open("g14tess");
    await rust.run(["group", "create", "g14carol", "fourteen", ...others]);
    await rust.run(["group", "remove", "g14carol", "fourteen", "g14bob"]);
    await rust.run(["group", "add", "g14carol", "fourteen", "g14bob"]);
    await rust.run(["group", "add", "g14carol", "fourteen", "g14tess"]);
    const { conversation: id } = await tess.heard("named", ({ name }) => name === "fourteen");
    await agreed(id, [tess], 6);
    await rust.run(["send", "g14carol", "#fourteen", "hello tess"]);
    await tess.text("hello tess");
    const broke = tess.told.some(({ event }) => event === "rejoining" || event === "unreadable");
    assert.ok(!broke, "the welcome was enough");
    // By an external commit, too, and a commit of its own goes through the same tree.
    await tess.client.rejoin(id);
    await tess.heard("rejoined");
    await tess.client.remove(id, ["g14dave"]);
    await agreed(id, [tess], 5);
    await tess.client.send(id, "hello all");
    for (const handle of ["g14carol", "g14bob", "g14fred"]) {
      const events = await rust.receive(handle, handle === "g14carol" ? 1 : 2);
      assert.ok(
        events.some(({ text }) => text === "hello all"),
        handle,
      );
    }
  });

  test("from which this client removes pli", async () => {
    await rust.register("g6bob");
    const [alice, carol] = [await open("g6alice"), await open("g6carol")];
    const id = await alice.client.createGroup("six", ["g6bob", "g6carol"]);
    const bob = rust.follow(["recv", "g6bob", "--json", "--follow"]);
    await bob.seen("the group", ({ group }) => group === "six");
    await alice.client.remove(id, ["g6bob"]);
    await agreed(id, [alice, carol], 2);
    await bob.seen("the removal", ({ event, conversation }) => event === "left" && conversation === id);
  });

  test("that pli leaves: a client of this folder commits it", async () => {
    await rust.register("g7bob");
    const [alice, carol] = [await open("g7alice"), await open("g7carol")];
    const id = await alice.client.createGroup("seven", ["g7bob", "g7carol"]);
    await carol.heard("joined");
    await rust.run(["group", "leave", "g7bob", "seven"]);
    await agreed(id, [alice, carol], 2);
    await alice.client.send(id, "bob left");
    await carol.text("bob left");
  });

  test("that this client leaves: pli commits it", async () => {
    await rust.register("g8bob");
    const alice = await open("g8alice");
    const id = await alice.client.createGroup("eight", ["g8bob"]);
    const bob = rust.follow(["recv", "g8bob", "--json", "--follow"]);
    await bob.seen("the group", ({ group }) => group === "eight");
    await alice.client.leave(id);
    assert.equal((await alice.heard("over")).why, "left");
  });

  test("that this client joins again by an external commit", async () => {
    await rust.register("g9bob");
    const [alice, carol] = [await open("g9alice"), await open("g9carol")];
    await rust.run(["group", "create", "g9bob", "nine", "g9alice", "g9carol"]);
    const { conversation: id } = await alice.heard("named");
    await carol.heard("named");
    await alice.client.rejoin(id);
    await alice.heard("rejoined");
    await agreed(id, [alice, carol], 3);
    const bob = rust.follow(["pipe", "g9bob", "#nine", "--json"]);
    await alice.client.send(id, "back again");
    await bob.seen("alice's message", ({ text }) => text === "back again");
    await carol.text("back again");
    bob.write("welcome back");
    await Promise.all([alice.text("welcome back"), carol.text("welcome back")]);
    await carol.client.rejoin(id);
    await agreed(id, [alice, carol], 3);
    await carol.client.send(id, "me too");
    await bob.seen("carol's message", ({ text }) => text === "me too");
  });

  for (const knows of ["pli", "another client of this folder"])
    test(`is joined again by ${knows}, whom the device knew there and asks for it`, async () => {
      const [home, copy, name] = [folder(), join(folder(), "copy"), knows === "pli" ? "g10" : "g11"];
      const first = await open(`${name}alice`, 1, home);
      const carol = await open(`${name}carol`);
      const bob = knows === "pli" ? await rust.register(`${name}bob`) : await open(`${name}bob`);
      const id = await first.client.createGroup(name, [`${name}bob`]);
      await first.close();
      cpSync(home, copy, { recursive: true });
      // A newcomer, of whom the copy knows nothing, makes the newest epoch.
      const newer = await open(`${name}alice`, 1, home);
      if (knows === "pli") rust.follow(["pipe", `${name}bob`, `#${name}`, "--json"]);
      await newer.client.add(id, [`${name}carol`]);
      await agreed(id, [newer, carol], 3);
      await carol.client.rejoin(id);
      await carol.heard("rejoined");
      await agreed(id, [newer, carol], 3);
      await newer.close();
      const alice = await open(`${name}alice`, 1, copy);
      await alice.client.rejoin(id);
      await alice.heard("rejoined");
      await agreed(id, bob === undefined ? [alice, carol] : [alice, carol, bob], 3);
      await alice.client.send(id, "brought back");
      await carol.text("brought back");
    });

  test("waits for somebody whom the device knew there: asked once, looked at with each commit, and told", async () => {
    const { alice, carol, id, calls } = await lost("g12", async () => {});
    const reports = () => calls.filter(({ name }) => name === "ReportFailure");
    assert.match((await alice.heard("waiting")).why, /until a member whom this device knew there is online/);
    assert.deepEqual(
      reports().map(({ request }) => (request["renew"] as unknown[]).length),
      [0, 1],
      "that it lost the thread, and whom it asks for help",
    );
    const looks = () => calls.filter(({ name }) => name === "GetGroupInfo").length;
    for (let round = 0; round < 3; round += 1) {
      const before = looks();
      await carol.client.rejoin(id);
      await until("alice to look at the group again", () => looks() > before);
    }
    assert.equal(reports().length, 2, "not again with each commit");
    assert.equal(alice.told.filter(({ event }) => event === "waiting").length, 1);
    rust.follow(["pipe", "g12bob", "#g12", "--json"]);
    await alice.heard("rejoined");
    await alice.client.send(id, "at last");
    await carol.text("at last");
  });

  test("where nobody is left whom the device knew is told, left, and entered again", async () => {
    const { alice, carol, id } = await lost("g13", (newer, id) => newer.remove(id, ["g13bob"]));
    assert.match((await alice.heard("waiting")).why, /nobody whom this device knew there is left/);
    await alice.client.leave(id);
    assert.equal((await alice.heard("over")).why, "left");
    await carol.client.remove(id, ["g13alice"]);
    await carol.client.add(id, ["g13alice"]);
    await alice.heard("joined", ({ conversation }) => conversation === id);
    await alice.client.send(id, "anew");
    await carol.text("anew");
  });

  test("of suite 0x0003: made, raced, left and joined again", async () => {
    const [alice, carol, erin] = [await open("s3alice", 3), await open("s3carol", 3), await open("s3erin", 3)];
    const frank = await open("s3frank", 3);
    const id = await alice.client.createGroup("chacha", ["s3carol", "s3erin"]);
    await agreed(id, [alice, carol, erin], 3);
    assert.equal(alice.client.conversation(id)!.group.suite, 3);
    await Promise.all([alice.client.add(id, ["s3frank"]), carol.client.rejoin(id)]);
    await agreed(id, [alice, carol, erin, frank], 4);
    await erin.client.leave(id);
    await agreed(id, [alice, carol, frank], 3);
    await frank.client.send(id, "sealed with ChaCha20");
    await Promise.all([alice.text("sealed with ChaCha20"), carol.text("sealed with ChaCha20")]);
  });

  test("is not joined by a device of another suite, and the error says so", async () => {
    await rust.register("s1bob");
    const alice = await open("s13alice", 3);
    await assert.rejects(
      alice.client.createGroup("mixed", ["s1bob"]),
      /groups of MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519 only, this one has suite 3/,
    );
    assert.deepEqual(alice.client.conversations(), []);
  });
});
