// SPDX-License-Identifier: MIT OR Apache-2.0
// Chats of two with the Rust client on the other side.

import assert from "node:assert/strict";
import { before, describe, test } from "node:test";

import { Person, PliServer, RustClient, until } from "./support.js";

let server: PliServer;
let rust: RustClient;

describe("a chat of two", () => {
  before(async () => {
    server = await PliServer.start();
    rust = new RustClient(server);
  });

  test("this client begins, pli answers, ticks come back", async () => {
    await rust.register("bob");
    const alice = await Person.open(server.at, "alice");
    const sent = await alice.client.sendTo("bob", "hello bob");
    await alice.heard("accepted", ({ sendId }) => sendId === sent.sendId);
    const events = await rust.receive("bob", 1);
    assert.equal(events.find(({ event }) => event === "message")?.["text"], "hello bob");
    await alice.heard("delivered", ({ by, upTo }) => by === "bob" && upTo >= sent.laneNo);
    await alice.heard("read", ({ by, upTo }) => by === "bob" && upTo >= sent.laneNo);
    await rust.run(["send", "bob", "alice", "hello alice", "--wait", "delivered"]);
    await alice.text("hello alice");
    await alice.heard("stored", ({ sendId }) => sendId === sent.sendId);
  });

  test("pli begins, this client answers and tells what was read", async () => {
    const carol = await Person.open(server.at, "carol");
    const dave = rust.follow(["pipe", "dave", "carol", "--json"]);
    dave.write("hello carol");
    const { conversation } = await carol.text("hello carol");
    await dave.seen("the delivery tick", ({ event, by }) => event === "delivered" && by === "carol");
    await carol.client.read(conversation);
    await dave.seen("the read tick", ({ event, by }) => event === "read" && by === "carol");
    await carol.client.send(conversation, "hello dave");
    await dave.seen("the answer", ({ text }) => text === "hello dave");
  });

  test("pli chat shows and sends", async () => {
    const erin = await Person.open(server.at, "erin");
    const frank = rust.follow(["chat", "frank"]);
    frank.write("@erin hello from a terminal");
    await erin.text("hello from a terminal");
    await erin.client.sendTo("frank", "hello from a program");
    await frank.said("hello from a program");
  });

  test("a long text in many bytes goes both ways, whole", async () => {
    const grace = await Person.open(server.at, "grace");
    const long = "é𝄞 漢字 ".repeat(2_000);
    const heidi = rust.follow(["pipe", "heidi", "grace", "--json"]);
    heidi.write(long.trim());
    await grace.text(long.trim());
    await grace.client.sendTo("heidi", long);
    await heidi.seen("the long text", ({ text }) => text === long);
  });

  test("many messages are shown once and in order on both sides", async () => {
    const ivan = await Person.open(server.at, "ivan");
    await rust.run(["send", "judy", "ivan", "n", "--count", "100"]);
    const numbered = Array.from({ length: 100 }, (_, i) => `n ${i + 1}`);
    await ivan.text("n 100");
    assert.deepEqual(ivan.texts(), numbered);
    const judy = rust.follow(["recv", "judy", "--json", "--follow"]);
    for (const text of numbered) await ivan.client.sendTo("judy", text);
    await judy.seen("the last one", ({ text }) => text === "n 100");
    assert.deepEqual(
      judy
        .events()
        .filter(({ event }) => event === "message")
        .map(({ text }) => text),
      numbered,
    );
  });

  test("two that begin at once go on in one conversation", async () => {
    const [kim, leo] = [await Person.open(server.at, "kim"), await Person.open(server.at, "leo")];
    await Promise.all([kim.client.sendTo("leo", "from kim"), leo.client.sendTo("kim", "from leo")]);
    await Promise.all([kim.text("from leo"), leo.text("from kim")]);
    const chats = await Promise.all([kim.client.chat("leo"), leo.client.chat("kim")]);
    assert.equal(chats[0], chats[1]);
  });

  test("safety numbers are the same on both sides", async () => {
    const [mia, nora] = [await Person.open(server.at, "mia"), await Person.open(server.at, "nora")];
    assert.equal(await mia.client.safetyNumber("nora"), await nora.client.safetyNumber("mia"));
    await rust.register("olga");
    const number = await mia.client.safetyNumber("olga");
    await mia.client.sendTo("olga", "compare, please");
    const olga = rust.follow(["chat", "olga"]);
    await olga.said("compare, please");
    olga.write("/safety mia");
    await until("the same sixty digits", () => olga.lines.out.join("").replace(/\D/g, "").includes(number));
  });
});
