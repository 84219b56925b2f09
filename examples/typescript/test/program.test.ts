// SPDX-License-Identifier: MIT OR Apache-2.0
// The chat program, as a user starts it, and what this folder depends on.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";

import { folder, PliServer, RustClient, startChat, until } from "./support.js";

describe("the chat program", () => {
  test("writes to pli and shows what pli writes", async () => {
    const data = join(folder(), "data");
    const server = await PliServer.start({ data });
    const rust = new RustClient(server);
    await rust.register("bob");
    const chat = startChat(["alice"], data);
    await chat.said("you are @alice");
    chat.write("@bob hello from the program");
    await chat.said("accepted");
    const bob = rust.follow(["pipe", "bob", "alice", "--json"]);
    await bob.seen("the message", ({ text }) => text === "hello from the program");
    bob.write("hello from pli");
    await chat.said("@bob bob: hello from pli");
    chat.write("@nobody.here hello");
    await chat.said("! nobody is called nobody.here");
    chat.write("/group team bob");
    chat.write("to the team");
    await bob.seen("the group's message", ({ text }) => text === "to the team");
    chat.write("/group team bob");
    await chat.said("! there is a group #team already");
    chat.write("/list");
    await chat.said("#team open: bob");
    for (const [typed, missing] of [
      ["/safety", "! type /safety NAME"],
      ["/add team", "! type /add GROUP NAMES"],
      ["/leave", "! type /leave GROUP"],
      ["@", "! to whom? @NAME TEXT"],
      ["/nonsense", "! there is no /nonsense; /help"],
    ] as const) {
      chat.write(typed);
      await chat.said(missing);
    }
    chat.write("/safety @bob");
    await until("sixty digits", () => chat.lines.out.some((line) => line.replace(/\D/g, "").length === 60));
    chat.write("/quit");
    assert.equal(await chat.ended(), 0);
  });

  test("says how a certificate that no authority signed is trusted, at first and later", async () => {
    const server = await PliServer.start();
    const [data, home] = [folder(), folder()];
    const { address, fingerprint } = server.ready;
    const trusting = startChat(["alice", "--server", address, "--fingerprint", fingerprint], data, home);
    await trusting.said("you are @alice");
    trusting.write("/quit");
    assert.equal(await trusting.ended(), 0);
    for (const handle of ["bob", "alice"]) {
      const chat = startChat([handle, "--server", address], data, home);
      assert.equal(await chat.ended(), 1, handle);
      assert.match(chat.lines.err.join(), /--fingerprint HEX.*prints it at its start.*server\.json/);
    }
  });

  test("says what is missing", async () => {
    const nothing = startChat([], folder());
    assert.equal(await nothing.ended(), 1);
    assert.match(nothing.lines.err.join(), /name the profile/);
    const nowhere = startChat(["alice"], folder());
    assert.equal(await nowhere.ended(), 1);
    assert.match(nowhere.lines.err.join(), /no server runs in/);
  });
});

describe("dependencies", () => {
  interface Lock {
    packages: Record<string, { version?: string; license?: string }>;
  }
  const locked = Object.entries((JSON.parse(readFileSync("package-lock.json", "utf8")) as Lock).packages).filter(
    ([name]) => name !== "",
  );

  test("are under licences that this project takes", () => {
    const taken = ["MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC"];
    for (const [name, { license }] of locked) {
      const named = (license ?? "none").replace(/[()]/g, "").split(/ AND | OR /);
      assert.ok(
        named.every((one) => taken.includes(one)),
        `${name}: ${license}`,
      );
    }
  });

  test("are pinned", () => {
    const { dependencies, devDependencies } = JSON.parse(readFileSync("package.json", "utf8")) as Record<
      "dependencies" | "devDependencies",
      Record<string, string>
    >;
    for (const [name, version] of Object.entries({ ...dependencies, ...devDependencies }))
      assert.match(version, /^\d+\.\d+\.\d+$/, name);
  });
});
