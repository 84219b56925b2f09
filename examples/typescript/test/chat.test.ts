// SPDX-License-Identifier: MIT OR Apache-2.0
// Chats of two with the Rust client on the other side.

import assert from "node:assert/strict";
import { before, describe, test } from "node:test";

import { Person, PliServer, RustClient } from "./support.js";

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
});
