// SPDX-License-Identifier: MIT OR Apache-2.0
// The chat program is killed while it changes a group: the next start goes on with what was offered, once, and says what
// was not.

import assert from "node:assert/strict";
import { before, describe, test } from "node:test";

import { folder, Person, PliServer, RustClient, startChat, until, type Following } from "./support.js";

let server: PliServer;
let rust: RustClient;

before(async () => {
  server = await PliServer.start();
  rust = new RustClient(server);
});

/** The chat of a handle, which may be killed and started again. */
function chatOf(handle: string): (killed?: string) => Following {
  const [data, home] = [folder(), folder()];
  const { address, fingerprint } = server.ready;
  return (killed) => startChat([handle, "--server", address, "--fingerprint", fingerprint], data, home, killed);
}

async function killed(chat: Following, line: string): Promise<void> {
  await chat.said("you are");
  chat.write(line);
  await chat.killed();
}

describe("killed while it makes a group", () => {
  for (const at of ["before Commit", "after Commit"])
    test(`${at}: the group is made, and its members learn its name`, async () => {
      const name = at.slice(0, 1);
      await rust.register(`${name}bob`);
      const carol = await Person.open(server.at, `${name}carol`);
      const start = chatOf(`${name}alice`);
      await killed(start(at), `/group team ${name}bob ${name}carol`);
      const again = start();
      const { conversation: id } = await carol.heard("named", ({ name }) => name === "team");
      const bob = rust.follow(["recv", `${name}bob`, "--json", "--follow"]);
      await bob.seen("the group's name", ({ group }) => group === "team");
      again.write("#team hello");
      await carol.text("hello");
      await bob.seen("the message", ({ text }) => text === "hello");
      assert.equal(carol.client.conversation(id)?.group.epoch, 1, "one commit");
    });

  for (const at of ["before Create", "after Create", "before ClaimKeyPackages", "after ClaimKeyPackages"])
    test(`${at}: it is said that the group was not made, and it can be made anew`, async () => {
      const name = at.toLowerCase().replace(" ", ".");
      await rust.register(`${name}.bob`);
      const start = chatOf(`${name}.al`);
      await killed(start(at), `/group team ${name}.bob`);
      const again = start();
      await again.said("! #team was not made before the program ended");
      again.write(`/group team ${name}.bob`);
      again.write("to the team");
      const events = await rust.receive(`${name}.bob`, 1);
      assert.ok(events.some(({ text }) => text === "to the team"));
      again.write("/list");
      await again.said(`#team open: ${name}.bob`);
      again.write("/quit");
      assert.equal(await again.ended(), 0);
      assert.equal(again.lines.out.filter((line) => line.startsWith("#team open")).length, 1);
    });

  test("a group of nobody else was made, and stays", async () => {
    const start = chatOf("hermit");
    const first = start();
    first.write("/group cell hermit");
    first.write("/quit");
    assert.equal(await first.ended(), 0);
    const again = start();
    await again.said("connected");
    again.write("/list");
    await again.said("#cell open");
    assert.ok(!again.lines.out.some((line) => line.includes("not made")));
  });

  test("a chat of two that was not begun is said, too, and begun anew", async () => {
    await rust.register("chatbob");
    const start = chatOf("chatalice");
    await killed(start("before ClaimKeyPackages"), "@chatbob hello");
    const again = start();
    await again.said("! a chat was not made before the program ended");
    again.write("@chatbob hello again");
    const events = await rust.receive("chatbob", 1);
    assert.ok(events.some(({ text }) => text === "hello again"));
  });
});

describe("killed while it adds somebody", () => {
  /** A group of alice's chat and bob, in which she is killed while she adds carol; dave may come in meanwhile. */
  async function adding(name: string, at: string) {
    const [bob, carol, dave] = [
      await Person.open(server.at, `${name}bob`),
      await Person.open(server.at, `${name}carol`),
      await Person.open(server.at, `${name}dave`),
    ];
    const start = chatOf(`${name}alice`);
    const first = start();
    first.write(`/group team ${name}bob`);
    const { conversation: id } = await bob.heard("named");
    first.write("/quit");
    assert.equal(await first.ended(), 0);
    await killed(start(at), `/add team ${name}carol`);
    return { bob, carol, dave, id, start };
  }

  /** Whether these and the chat go on in this epoch, one commit after the other. */
  async function goesOn(chat: Following, people: Person[], id: string, epoch: number): Promise<void> {
    chat.write("#team here again");
    for (const person of people) {
      await person.text("here again");
      assert.equal(person.client.conversation(id)?.group.epoch, epoch, person.client.profile.handle);
      await person.client.send(id, `from ${person.client.profile.handle}`);
      await chat.said(`#team ${person.client.profile.handle}: from`);
    }
    assert.ok(
      !chat.lines.out.some((line) => line.includes("rejoining") || line.includes("! ")),
      "nothing is put right",
    );
    assert.ok(!people.some(({ told }) => told.some(({ event }) => event === "rejoining" || event === "unreadable")));
  }

  for (const at of ["before Commit", "after Commit"])
    test(`${at}: they are added, by one commit`, async () => {
      const { bob, carol, id, start } = await adding(at.slice(0, 2), at);
      const again = start();
      await carol.heard("named", ({ name }) => name === "team");
      await goesOn(again, [bob, carol], id, 2);
    });

  test("after Commit, and others change the group meanwhile: they are added, by one commit", async () => {
    const { bob, carol, dave, id, start } = await adding("m", "after Commit");
    await until("bob to see carol", () => bob.client.conversation(id)?.group.epoch === 2);
    await bob.client.add(id, ["mdave"]);
    const again = start();
    await dave.heard("joined");
    await goesOn(again, [bob, carol, dave], id, 3);
  });

  test("before Commit, and others change the group first: it is dropped, and that is said", async () => {
    const { bob, carol, dave, id, start } = await adding("n", "before Commit");
    await bob.client.add(id, ["ndave"]);
    await dave.heard("joined");
    const again = start();
    await again.said("! nobody was added to #team before the program ended");
    again.write("/add team ncarol");
    await carol.heard("named");
    again.write("#team here again");
    for (const person of [bob, carol, dave]) {
      await person.text("here again");
      assert.equal(person.client.conversation(id)?.group.epoch, 3);
    }
  });
});
