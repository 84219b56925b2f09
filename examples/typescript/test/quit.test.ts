// SPDX-License-Identifier: MIT OR Apache-2.0
// How the chat program goes on, and ends, while the server or the other side is away.

import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, test } from "node:test";

import { folder, Person, PliServer, RustClient, startChat, type Following } from "./support.js";

const texts = (events: readonly { event: string; [field: string]: unknown }[]) =>
  events.filter(({ event }) => event === "message").map(({ text }) => text);

const said = (chat: Following, text: string) => chat.lines.out.some((line) => line.includes(text));

/** A server that bob has been at, and the chat of alice, which may be started again and again. */
async function aliceAndBob() {
  const [data, home] = [join(folder(), "data"), folder()];
  const server = await PliServer.start({ data });
  const rust = new RustClient(server);
  await rust.register("bob");
  const { address, fingerprint } = server.ready;
  const start = () => startChat(["alice", "--server", address, "--fingerprint", fingerprint], data, home);
  return { server, rust, start };
}

describe("without a server", () => {
  test("typing goes on, /quit ends and says what is kept and what is lost", async () => {
    const { server, rust, start } = await aliceAndBob();
    const chat = start();
    chat.write("@bob one");
    await chat.said("accepted");
    await server.stop("SIGKILL");
    await chat.said("disconnected");
    for (const line of ["@bob two", "/group team bob", "to the team", "@bob three"]) chat.write(line);
    await chat.said(`/group team bob waits for a connection to ${server.ready.address}`);
    chat.write("four");
    chat.write("/quit");
    assert.equal(await chat.ended(), 1);
    await chat.said("not sent yet: 3 to @bob; kept in ");
    await chat.said("! not done, and not kept: /group team bob");
    await chat.said("! not done, and not kept: #team to the team");
    await server.up();
    const again = start();
    assert.deepEqual(texts(await rust.receive("bob", 4)), ["one", "two", "three", "four"]);
    again.write("/list");
    await again.said("@bob open: bob");
    again.write("/group team bob");
    again.write("to the team");
    assert.deepEqual(texts(await rust.receive("bob", 1)), ["to the team"]);
    again.write("/quit");
    assert.equal(await again.ended(), 0);
    assert.equal(said(again, "#team making"), false);
  });

  test("lines are taken from the start on", async () => {
    const { server, rust, start } = await aliceAndBob();
    const first = start();
    first.write("@bob one");
    first.write("/quit");
    assert.equal(await first.ended(), 0);
    await server.stop("SIGKILL");
    const chat = start();
    chat.write("@bob two");
    await chat.said("no connection to");
    chat.endInput();
    assert.equal(await chat.ended(), 0);
    await chat.said("not sent yet: 1 to @bob; kept in ");
    await server.up();
    const again = start();
    assert.deepEqual(texts(await rust.receive("bob", 2)), ["one", "two"]);
    again.write("/quit");
    assert.equal(await again.ended(), 0);
  });

  test("Ctrl-C and the end of input end it while a server is silent", async () => {
    const data = join(folder(), "data");
    const server = await PliServer.start({ data });
    const rust = new RustClient(server);
    await rust.register("bob");
    const chats = ["alice", "carol"].map((handle) => startChat([handle], data));
    for (const chat of chats) {
      chat.write("@bob one");
      await chat.said("accepted");
    }
    server.freeze();
    try {
      for (const [i, chat] of chats.entries()) {
        chat.write("two");
        chat.write("/group team bob");
        await chat.said("/group team bob waits for the answer of");
        if (i === 0) chat.interrupt();
        else chat.endInput();
        assert.equal(await chat.ended(), 1);
        await chat.said("not sent yet: 1 to @bob; kept in ");
        await chat.said("! not done, and not kept: /group team bob");
      }
    } finally {
      server.thaw();
    }
  });

  test("Ctrl-C ends it at once where nothing is open", async () => {
    const data = join(folder(), "data");
    await PliServer.start({ data });
    const chat = startChat(["alice"], data);
    await chat.said("you are @alice");
    chat.interrupt();
    assert.equal(await chat.ended(), 0);
  });
});

describe("while nobody of a group is online", () => {
  test("/leave says whom it waits for, and what is typed meanwhile goes out", async () => {
    const { server, rust, start } = await aliceAndBob();
    const carol = await Person.open(server.at, "carol");
    const chat = start();
    for (const line of ["/group team bob", "to the team", "/leave team", "not for them"]) chat.write(line);
    for (let i = 1; i <= 5; i += 1) chat.write(`@carol meanwhile ${i}`);
    await chat.said("! you are leaving #team");
    await carol.text("meanwhile 5");
    assert.deepEqual(
      carol.texts(),
      [1, 2, 3, 4, 5].map((i) => `meanwhile ${i}`),
    );
    await chat.said("/leave team waits for another member of #team to be online");
    chat.write("/quit");
    assert.equal(await chat.ended(), 0);
    await chat.said("not done yet, it goes on at the next start: /leave team");
    const again = start();
    const bob = rust.follow(["recv", "bob", "--json", "--follow"]);
    await again.said("#team over");
    assert.ok(texts(bob.events()).every((text) => text !== "not for them"));
    again.write("/quit");
    assert.equal(await again.ended(), 0);
  });
});
