// SPDX-License-Identifier: MIT OR Apache-2.0
// What goes wrong between a client and the server: nothing is lost, nothing is shown twice, order holds.

import assert from "node:assert/strict";
import { cpSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { before, describe, mock, test } from "node:test";

import { atEnd, folder, Person, PliServer, RustClient, until } from "./support.js";

const numbered = (what: string, count: number) => Array.from({ length: count }, (_, i) => `${what} ${i + 1}`);

describe("connections come and go", () => {
  let server: PliServer;
  let rust: RustClient;

  before(async () => {
    server = await PliServer.start();
    rust = new RustClient(server);
  });

  test("what was sent to a device that was away waits for it", async () => {
    const home = folder();
    const first = await Person.open(server.at, "away", { folder: home });
    await first.close();
    await rust.run(["send", "q1bob", "away", "n", "--count", "50"]);
    const again = await Person.open(server.at, "away", { folder: home });
    await again.text("n 50");
    assert.deepEqual(again.texts(), numbered("n", 50));
    await again.close();
    const third = await Person.open(server.at, "away", { folder: home });
    await third.client.sendTo("q1bob", "nothing twice");
    await third.heard("accepted");
    assert.deepEqual(third.texts(), []);
  });

  test("what was written without a connection is sent when there is one", async () => {
    const home = folder();
    await rust.register("q2bob");
    const alice = await Person.open(server.at, "q2alice", { folder: home });
    const id = await alice.client.chat("q2bob");
    await alice.close();
    const { Client } = await import("../src/client.js");
    const nowhere = { ...server.at, address: "127.0.0.1:1" };
    const away = await Client.open({ folder: home, handle: "q2alice", server: nowhere });
    await away.start();
    for (const text of numbered("later", 20)) await away.send(id, text);
    await away.close();
    const back = await Person.open(server.at, "q2alice", { folder: home });
    await until("an empty outbox", () => back.client.waiting === 0);
    const events = await rust.receive("q2bob", 20);
    assert.deepEqual(
      events.filter(({ event }) => event === "message").map(({ text }) => text),
      numbered("later", 20),
    );
  });

  test("a client that is closed does not wait for a server that is silent", async () => {
    const home = folder();
    const first = await Person.open(server.at, "q7alice", { folder: home });
    await first.close();
    let [reached, gaveUp] = [false, false];
    const silent = createServer((socket) => {
      reached = true;
      socket.on("error", () => undefined).on("close", () => (gaveUp = true));
      socket.resume();
    });
    atEnd(() => void silent.close());
    await new Promise<void>((listens) => silent.listen(0, "127.0.0.1", listens));
    const address = `127.0.0.1:${(silent.address() as AddressInfo).port}`;
    const { Client } = await import("../src/client.js");
    const client = await Client.open({ folder: home, handle: "q7alice", server: { ...server.at, address } });
    await client.start();
    await until("it to connect", () => reached);
    await client.close();
    assert.equal(gaveUp, false);
  });

  test("a connection that is cut again and again costs nothing", async () => {
    await rust.register("q3bob");
    const alice = await Person.open(server.at, "q3alice");
    const { conversation: id } = await alice.client.sendTo("q3bob", "first");
    await rust.receive("q3bob", 1);
    const bob = rust.follow(["pipe", "q3bob", "q3alice", "--json"]);
    for (const [i, text] of numbered("out", 60).entries()) {
      await alice.client.send(id, text);
      bob.write(`in ${i + 1}`);
      if (i % 10 !== 5) continue;
      await until(
        "a session",
        () => alice.told.filter(({ event }) => event === "connected").length > Math.floor(i / 10),
      );
      alice.client.cut();
    }
    await bob.seen("the last one", ({ text }) => text === "out 60");
    await alice.text("in 60");
    assert.deepEqual(
      bob
        .events()
        .filter(({ event }) => event === "message")
        .map(({ text }) => text),
      numbered("out", 60),
    );
    assert.deepEqual(alice.texts(), numbered("in", 60));
    assert.ok(alice.told.filter(({ event }) => event === "connected").length > 5);
  });

  test("a change of a group goes on over lost connections", async () => {
    const [alice, carol] = [await Person.open(server.at, "q4alice"), await Person.open(server.at, "q4carol")];
    await rust.register("q4bob");
    const id = await alice.client.createGroup("cut", ["q4carol"]);
    const adding = alice.client.add(id, ["q4bob"]);
    alice.client.cut();
    carol.client.cut();
    await adding;
    await until("both to agree", () =>
      [alice, carol].every(({ client }) => client.conversation(id)?.group.members.length === 3),
    );
    await alice.client.send(id, "whole");
    await carol.text("whole");
  });

  test("a profile that is an older copy joins its conversations again before it seals anything", async () => {
    const home = folder();
    const copy = join(folder(), "copy");
    await rust.register("q5bob");
    const first = await Person.open(server.at, "q5alice", { folder: home });
    const { conversation } = await first.client.sendTo("q5bob", "one");
    await until("an empty outbox", () => first.client.waiting === 0);
    await first.close();
    cpSync(home, copy, { recursive: true });
    const newer = await Person.open(server.at, "q5alice", { folder: home });
    await rust.receive("q5bob", 1);
    const bob = rust.follow(["pipe", "q5bob", "q5alice", "--json"]);
    for (const text of ["two", "three"]) await newer.client.send(conversation, text);
    await bob.seen("the third", ({ text }) => text === "three");
    bob.write("I have three");
    await newer.text("I have three");
    await newer.heard("delivered", ({ upTo }) => upTo === 3);
    await newer.close();
    const older = await Person.open(server.at, "q5alice", { folder: copy });
    await older.heard("rejoined");
    await older.client.send(conversation, "from the copy");
    await bob.seen("what the copy says", ({ text }) => text === "from the copy");
    bob.write("still here");
    await older.text("still here");
  });

  test("two processes on one device: the older one stops and says so", async () => {
    const home = folder();
    const copy = join(folder(), "copy");
    const first = await Person.open(server.at, "q6alice", { folder: home });
    await first.close();
    cpSync(home, copy, { recursive: true });
    const one = await Person.open(server.at, "q6alice", { folder: home });
    await Person.open(server.at, "q6alice", { folder: copy });
    assert.match((await one.heard("stopped")).error.message, /DISPLACED/);
  });
});

describe("a server that was connected to", () => {
  /** A chat with bob, whose server gives way to one with another certificate. */
  async function replaced(name: string) {
    const [server, other] = [await PliServer.start({ data: join(folder(), "data") }), await PliServer.start()];
    const rust = new RustClient(server);
    await rust.register(`${name}bob`);
    const alice = await Person.open(server.at, `${name}alice`);
    await other.stop();
    await server.stop();
    await other.up(server.ready.address.split(":")[1]);
    assert.match((await alice.heard("wrong_certificate")).why, /not the pinned one/);
    return { alice, rust, server, other };
  }

  test("may show another certificate for some seconds", async () => {
    const { alice, rust, server, other } = await replaced("o1");
    await other.stop();
    await server.up();
    await until("a session again", () => alice.client.online);
    await alice.client.sendTo("o1bob", "the right one");
    const events = await rust.receive("o1bob", 1);
    assert.ok(events.some(({ text }) => text === "the right one"));
    assert.ok(!alice.told.some(({ event }) => event === "stopped"));
  });

  test("and shows another certificate for a minute is not tried any more", async () => {
    const { alice } = await replaced("o2");
    assert.ok(!alice.told.some(({ event }) => event === "stopped"));
    const { now } = Date;
    const later = mock.method(Date, "now", () => now() + 60_000);
    assert.match((await alice.heard("stopped")).error.message, /not the pinned one/);
    later.mock.restore();
    assert.equal(alice.told.filter(({ event }) => event === "wrong_certificate").length, 1, "told once");
  });
});

describe("a server with its data on disk", () => {
  test("is killed while both sides write: everything arrives once and in order", async () => {
    const server = await PliServer.start({ data: join(folder(), "data") });
    const rust = new RustClient(server);
    await rust.register("kbob");
    const alice = await Person.open(server.at, "kalice");
    const { conversation: id } = await alice.client.sendTo("kbob", "first");
    await rust.receive("kbob", 1);
    const bob = rust.follow(["pipe", "kbob", "kalice", "--json"]);
    for (let round = 0; round < 3; round += 1) {
      for (let i = 1; i <= 20; i += 1) {
        await alice.client.send(id, `out ${20 * round + i}`);
        bob.write(`in ${20 * round + i}`);
      }
      await server.stop("SIGKILL");
      await alice.client.send(id, `down ${round + 1}`);
      await server.up();
    }
    await bob.seen("the last one", ({ text }) => text === "down 3");
    await alice.text("in 60");
    const seen = bob
      .events()
      .filter(({ event }) => event === "message")
      .map(({ text }) => String(text));
    assert.deepEqual(
      seen.filter((text) => text.startsWith("out")),
      numbered("out", 60),
    );
    assert.deepEqual(
      seen.filter((text) => text.startsWith("down")),
      numbered("down", 3),
    );
    assert.deepEqual(alice.texts(), numbered("in", 60));
  });

  test("is killed while members are added", async () => {
    const server = await PliServer.start({ data: join(folder(), "data") });
    const rust = new RustClient(server);
    for (const handle of ["mbob", "mdave", "merin"]) await rust.register(handle);
    const [alice, carol] = [await Person.open(server.at, "malice"), await Person.open(server.at, "mcarol")];
    const id = await alice.client.createGroup("killed", ["mcarol", "mbob"]);
    const changes = [
      alice.client.add(id, ["mdave"]),
      carol.heard("joined").then(() => carol.client.add(id, ["merin"])),
    ];
    await server.stop("SIGKILL");
    await server.up();
    await Promise.all(changes);
    await until("both to agree", () => {
      const [one, other] = [alice, carol].map(({ client }) => client.conversation(id)?.group);
      return one?.members.length === 5 && one.epoch === other?.epoch;
    });
    await carol.client.send(id, "all five");
    await alice.text("all five");
    for (const handle of ["mbob", "mdave", "merin"]) {
      assert.ok(
        (await rust.receive(handle, 1)).some(({ text }) => text === "all five"),
        handle,
      );
    }
  });

  test("is restarted: the same session goes on", async () => {
    const server = await PliServer.start({ data: join(folder(), "data") });
    const rust = new RustClient(server);
    await rust.register("rbob");
    const alice = await Person.open(server.at, "ralice");
    await alice.client.sendTo("rbob", "before");
    await alice.heard("accepted");
    await server.stop("SIGTERM");
    await server.up();
    await alice.client.sendTo("rbob", "after");
    const events = await rust.receive("rbob", 2);
    assert.deepEqual(
      events.filter(({ event }) => event === "message").map(({ text }) => text),
      ["before", "after"],
    );
  });

  test("is restored from a backup: its conversations are over, and people go on in others", async () => {
    const [data, backup, restored] = ["data", "backup", "restored"].map((name) => join(folder(), name)) as [
      string,
      string,
      string,
    ];
    const server = await PliServer.start({ data });
    const rust = new RustClient(server);
    await rust.register("hbob");
    const [alice, carol] = [await Person.open(server.at, "halice"), await Person.open(server.at, "hcarol")];
    const { conversation: before } = await alice.client.sendTo("hbob", "before the backup");
    await rust.receive("hbob", 1);
    await rust.admin(["backup", "--data", data, "--to", backup]);
    const group = await alice.client.createGroup("after the backup", ["hcarol"]);
    await carol.heard("named");
    await rust.admin(["restore", "--from", backup, "--data", restored]);
    await server.moveTo(restored);
    for (const id of [before, group])
      assert.match(
        (await alice.heard("over", ({ conversation }) => conversation === id)).successor ?? "",
        /^[0-9a-f]{32}$/,
      );
    await rust.run(["send", "hbob", "halice", "I am here"]);
    const { conversation } = await alice.text("I am here");
    assert.equal(
      conversation,
      alice.told.flatMap((told) => (told.event === "over" && told.conversation === before ? [told.successor] : []))[0],
    );
    await alice.client.sendTo("hbob", "after the restore");
    const events = await rust.receive("hbob", 1);
    assert.ok(events.some(({ text }) => text === "after the restore"));
    await carol.heard("over", ({ conversation: id }) => id === group);
    await carol.client.sendTo("halice", "a new one");
    await alice.text("a new one");
  });
});
