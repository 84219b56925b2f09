// SPDX-License-Identifier: MIT OR Apache-2.0
// What is refused, and that the error names the reason.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { before, describe, test } from "node:test";

import { create, toBinary } from "@bufbuild/protobuf";
import { WebSocketServer } from "ws";

import { Client } from "../src/client.js";
import { Connection, WrongServer, type Server } from "../src/connection.js";
import { decodeFrame, encodeFrame, isRefused, type FromServer } from "../src/frames.js";
import { ErrorCode } from "../src/gen/pli/common/v1/common_pb.js";
import { ServerFrameSchema } from "../src/gen/pli/edge/v1/edge_pb.js";
import { newProfile } from "../src/profile.js";
import { Session } from "../src/session.js";
import { atEnd, folder, Person, PliServer, RustClient, until } from "./support.js";

const ORIGIN = "https://app.example";
let server: PliServer;
let data: string;

before(async () => {
  data = join(folder(), "data");
  server = await PliServer.start({ data, environment: { PLI_EDGE__ORIGINS: ORIGIN } });
});

const fails = (code: ErrorCode) => (error: unknown) => isRefused(error, code);

describe("authentication", () => {
  test("is bound to the TLS exporter, to the certificate or to a web origin", async () => {
    for (const [i, binding] of (["exporter", "certificate", { origin: ORIGIN }] as const).entries()) {
      const person = await Person.open({ ...server.at, binding }, `bound${i}`);
      await person.close();
    }
  });

  test("by an origin that the server does not list is refused", async () => {
    const home = folder();
    const known = await Person.open(server.at, "elsewhere", { folder: home });
    await known.close();
    const away = await Client.open({
      folder: home,
      handle: "elsewhere",
      server: { ...server.at, binding: { origin: "https://evil.example" } },
    });
    atEnd(() => away.close());
    await away.start();
    await assert.rejects(away.ready(), fails(ErrorCode.BAD_BINDING));
  });

  test("to a server with another certificate is not even tried", async () => {
    const client = await Client.open({
      folder: folder(),
      handle: "pinned",
      server: { ...server.at, fingerprint: "ab".repeat(32) },
    });
    atEnd(() => client.close());
    await assert.rejects(
      client.start(),
      (error) => error instanceof WrongServer && /not the pinned one/.test(error.message),
    );
  });

  test("without a pin a certificate that nobody signed is not trusted", async () => {
    await assert.rejects(
      Session.open({ address: server.at.address }),
      /no authority.*self.signed certificate.*--fingerprint HEX/,
    );
  });

  test("of a device that nobody registered is refused", async () => {
    await assert.rejects(
      Session.open(server.at, { profile: newProfile("nobody", 1) }),
      fails(ErrorCode.UNKNOWN_DEVICE),
    );
  });
});

describe("versions", () => {
  test("a server of a later version is not spoken to, and the error says what to update", async () => {
    const later = await serverOf([2, 3]);
    await assert.rejects(
      Session.open(later),
      (error) =>
        error instanceof WrongServer &&
        /version 2, 3 of the protocol, this client 1: update this client/.test(error.message),
    );
  });

  test("nor is one of an earlier version", async () => {
    await assert.rejects(Session.open(await serverOf([0])), /this client 1: the server is older/);
  });

  test("a hello of another version is refused by the server", async () => {
    const connection = await Connection.open(server.at);
    const frames: FromServer[] = [];
    connection.listen(
      (bytes) => frames.push(decodeFrame(bytes)),
      () => {},
    );
    await until("the server's hello", () => frames.length > 0);
    connection.send(encodeFrame({ case: "hello", value: { version: 7 } }));
    const last = await until("the server's last word", () => frames.find(({ case: name }) => name === "close"));
    assert.equal(last.case === "close" ? last.value.reason?.code : undefined, ErrorCode.UNSUPPORTED_VERSION);
  });

  test("a client that is older than the server wants is told so", async () => {
    await assert.rejects(Session.open(server.at, { userAgent: "pli/0.0.0" }), fails(ErrorCode.UNSUPPORTED_VERSION));
  });

  test("server info says what the server speaks", async () => {
    const session = await Session.open(server.at);
    const info = await session.info();
    session.close();
    assert.deepEqual(info.protocolVersions, [1]);
    assert.deepEqual(info.cipherSuites, [1, 3]);
    assert.equal(info.registration, "open");
  });

  /** Says a hello of other versions, under the real server's certificate. */
  async function serverOf(versions: number[]): Promise<Server> {
    // Certificate and key stand in one file.
    const pem = readFileSync(join(data, "certificate.pem"));
    const https = createServer({ cert: pem, key: pem, minVersion: "TLSv1.3" });
    const sockets = new WebSocketServer({ server: https, path: "/v1/session" });
    sockets.on("connection", (socket) => {
      const value = { nonce: new Uint8Array(32), versions, nowMs: BigInt(Date.now()) };
      socket.send(toBinary(ServerFrameSchema, create(ServerFrameSchema, { frame: { case: "hello", value } })));
    });
    await new Promise<void>((listening) => https.listen(0, "127.0.0.1", listening));
    atEnd(() => {
      for (const socket of sockets.clients) socket.terminate();
      https.close();
    });
    return { ...server.at, address: `127.0.0.1:${(https.address() as AddressInfo).port}` };
  }
});

describe("bad input", () => {
  let person: Person;

  before(async () => {
    await new RustClient(server).register("somebody");
    person = await Person.open(server.at, "clumsy");
  });

  test("a message that is too long", async () => {
    await assert.rejects(
      person.client.sendTo("somebody", "x".repeat(32 * 1024 + 1)),
      /has 32769 bytes; at most 32768 are possible, split it/,
    );
  });

  test("a message of the greatest length is fine", async () => {
    const sent = await person.client.sendTo("somebody", "x".repeat(32 * 1024));
    await person.heard("accepted", ({ sendId }) => sendId === sent.sendId);
  });

  test("an empty message", async () => {
    await assert.rejects(person.client.sendTo("somebody", " \n"), /the message is empty/);
  });

  test("a message while the outbox is full; what arrives is shown all the same, and a group is named", async () => {
    const [full, other] = [await Person.open(server.at, "full"), await Person.open(server.at, "other")];
    const alone = await full.client.createGroup("alone", []);
    await full.client.send(alone, "for nobody yet");
    await full.client.store.change(() => {
      const outbox = full.client.store.table("outbox");
      const [[, entry]] = outbox.entries() as [[string, unknown]];
      for (let i = 1; i < 10_000; i += 1) outbox.set(`kept ${i}`, entry);
    });
    await assert.rejects(full.client.send(alone, "one more"), /10000 messages wait to be sent/);
    await other.client.sendTo("full", "hello");
    await full.text("hello");
    await full.client.createGroup("named", ["other"]);
    await other.heard("named", ({ name }) => name === "named");
  });

  test("a handle that nobody has", async () => {
    await assert.rejects(person.client.sendTo("nobody.at.all", "hello"), /nobody is called nobody.at.all/);
    await assert.rejects(
      person.client.createGroup("team", ["somebody", "nobody.at.all"]),
      /nobody is called nobody.at.all/,
    );
    assert.equal(person.client.conversations().filter(([, { kind }]) => kind === 2).length, 0);
  });

  test("one's own handle", async () => {
    await assert.rejects(person.client.sendTo("clumsy", "hello"), /nobody writes to themselves/);
  });

  test("names that are none", async () => {
    for (const name of ["", " team", "a~b", "a\u200bb", "x".repeat(129)])
      await assert.rejects(person.client.createGroup(name, ["somebody"]), /is no name of a group/);
  });

  test("a handle that somebody else has, or that is no handle", async () => {
    const start = async (handle: string) => {
      const client = await Client.open({ folder: folder(), handle, server: server.at });
      await client.start().finally(() => client.close());
    };
    await assert.rejects(start("somebody"), fails(ErrorCode.HANDLE_TAKEN));
    await assert.rejects(start("not a handle"), fails(ErrorCode.HANDLE_MALFORMED));
  });

  test("a profile of another handle, or one that is in use", async () => {
    const home = folder();
    const one = await Person.open(server.at, "owner", { folder: home });
    await assert.rejects(
      Client.open({ folder: home, handle: "owner", server: server.at }),
      /another process uses the profile/,
    );
    await one.close();
    await assert.rejects(
      Client.open({ folder: home, handle: "thief", server: server.at }),
      /is of owner, not of thief/,
    );
  });

  test("a conversation that is not there", async () => {
    await assert.rejects(person.client.send("00".repeat(16), "hello"), /is over for this device|no conversation/);
    await assert.rejects(person.client.leave("00".repeat(16)), /there is no conversation/);
  });
});
