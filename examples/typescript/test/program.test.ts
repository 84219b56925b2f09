// SPDX-License-Identifier: MIT OR Apache-2.0
// The chat program, as a user starts it, and what this folder depends on.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";

import { atEnd, folder, Following, PliServer, RustClient, until } from "./support.js";

describe("the chat program", () => {
  const start = (args: string[], data: string) => {
    const child = spawn(process.execPath, ["dist/src/main.js", ...args, "--data", data, "--home", folder()], {
      stdio: ["pipe", "pipe", "pipe"],
    });
    const following = new Following(child);
    atEnd(() => following.end());
    return following;
  };

  test("writes to pli and shows what pli writes", async () => {
    const data = join(folder(), "data");
    const server = await PliServer.start({ data });
    const rust = new RustClient(server);
    await rust.register("bob");
    const chat = start(["alice"], data);
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
    chat.write("/list");
    await chat.said("#team open: bob");
    for (const [typed, missing] of [
      ["/safety", "! type /safety NAME"],
      ["/add team", "! type /add GROUP NAMES"],
      ["/leave", "! type /leave GROUP"],
      ["@", "! to whom? @NAME TEXT"],
    ] as const) {
      chat.write(typed);
      await chat.said(missing);
    }
    chat.write("/safety @bob");
    await until("sixty digits", () => chat.lines.out.some((line) => line.replace(/\D/g, "").length === 60));
    chat.write("/quit");
    assert.equal(await chat.ended(), 0);
  });

  test("says what is missing", async () => {
    const nothing = start([], folder());
    assert.equal(await nothing.ended(), 1);
    assert.match(nothing.lines.err.join(), /name the profile/);
    const nowhere = start(["alice"], folder());
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
