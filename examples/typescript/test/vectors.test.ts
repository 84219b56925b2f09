// SPDX-License-Identifier: MIT OR Apache-2.0
// Every vector of proto/vectors, byte for byte.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";

import { create, fromBinary, fromJson, toBinary, toJson, type DescMessage, type JsonValue } from "@bufbuild/protobuf";

import { hex, unhex } from "../src/bytes.js";
import { BadContent, decodeContent, encodeContent, type Content, type Tick } from "../src/content.js";
import { successorOf } from "../src/conversations.js";
import { BadList, listTranscript, readList, safetyNumber, signList } from "../src/directory.js";
import { SignedDeviceListSchema, DeviceListSchema } from "../src/gen/pli/directory/v1/directory_pb.js";
import { ClientFrameSchema, ServerFrameSchema } from "../src/gen/pli/edge/v1/edge_pb.js";
import { EnvelopeSchema } from "../src/gen/pli/log/v1/log_pb.js";
import { FrameSchema } from "../src/gen/pli/sealed/v1/sealed_pb.js";
import { keyOf, sign, verify } from "../src/profile.js";
import { authenticationTranscript } from "../src/session.js";

const read = <T>(name: string): T => JSON.parse(readFileSync(`../../proto/vectors/${name}`, "utf8")) as T;

interface Framed {
  name: string;
  json: JsonValue;
  hex: string;
}

const edge = read<{
  client_frames: Framed[];
  server_frames: Framed[];
  envelope: Framed;
  receipt: string;
  authentication: Record<
    "account" | "binding" | "device" | "host" | "nonce" | "public_key" | "secret_key" | "signature" | "transcript",
    string
  >;
}>("edge_v1.json");

interface SealedContent {
  name: string;
  hex: string;
  text?: string;
  group?: [string, string?];
  removed?: string[];
  ticks?: [string, number, number][];
  lost?: [string, number[]][];
  lives?: [string, string][];
}

interface SealedFrame {
  name: string;
  hex: string;
  content: string;
  kind: number;
  lane_no: number;
  lane_base: number;
  sent_at_ms: number;
  place: number;
  written_in: string;
  line: string[];
  unsent_from: number;
  lives: { id: string; first: number }[];
  addressed: { device: string; first: number }[];
}

const sealed = read<{
  contents: SealedContent[];
  frames: SealedFrame[];
  device_list: Record<
    | "account"
    | "device"
    | "device_public_key"
    | "device_secret_key"
    | "identity_public_key"
    | "identity_secret_key"
    | "list"
    | "signature",
    string
  >;
  safety_number: { digits: string; one: [string, string]; other: [string, string] };
  successor: { conversation: string; history: string; root: string };
}>("sealed_v1.json");

const SALT = new Uint8Array(16).fill(7);

function same(schema: DescMessage, { json, hex: bytes }: Framed): void {
  assert.equal(hex(toBinary(schema, fromJson(schema, json))), bytes);
  assert.deepEqual(toJson(schema, fromBinary(schema, unhex(bytes))), json);
}

describe("frames of a session", () => {
  for (const frame of edge.client_frames) test(`from the client: ${frame.name}`, () => same(ClientFrameSchema, frame));
  for (const frame of edge.server_frames) test(`from the edge: ${frame.name}`, () => same(ServerFrameSchema, frame));
  test("an envelope", () => same(EnvelopeSchema, edge.envelope));
  test("a receipt is any bytes", () => assert.equal(hex(unhex(edge.receipt)), edge.receipt));

  test("what a device signs to authenticate", () => {
    const vector = edge.authentication;
    const key = keyOf(unhex(vector.secret_key));
    const profile = { account: unhex(vector.account), device: unhex(vector.device) };
    const transcript = authenticationTranscript(vector.host, profile, unhex(vector.nonce), unhex(vector.binding));
    assert.equal(hex(key.public), vector.public_key);
    assert.equal(hex(transcript), vector.transcript);
    assert.equal(hex(sign(key, transcript)), vector.signature);
    assert.ok(verify(key.public, transcript, unhex(vector.signature)));
  });
});

function contentOf(vector: SealedContent): Exclude<Content, { kind: "other" }> {
  if (vector.text !== undefined) return { kind: "text", text: vector.text };
  if (vector.group !== undefined) {
    const [name, root] = vector.group;
    const removed = vector.removed?.map(unhex);
    return {
      kind: "group",
      name,
      ...(root === undefined ? {} : { root: unhex(root) }),
      ...(removed === undefined ? {} : { removed }),
    };
  }
  const ticks = (vector.ticks ?? []).map(([device, delivered, read_]): Tick => {
    const lost = vector.lost?.find(([of]) => of === device)?.[1];
    const life = vector.lives?.find(([of]) => of === device)?.[1];
    const pairs = lost?.flatMap((first, i): [number, number][] => (i % 2 === 0 ? [[first, lost[i + 1]!]] : []));
    return {
      device: unhex(device),
      delivered,
      read: read_,
      ...(pairs ? { lost: pairs } : {}),
      ...(life ? { life: BigInt(life) } : {}),
    };
  });
  return { kind: "ticks", ticks };
}

describe("what is sealed", () => {
  for (const vector of sealed.contents) {
    test(`content: ${vector.name}`, () => {
      const content = contentOf(vector);
      assert.equal(hex(encodeContent(content, SALT)), vector.hex);
      assert.deepEqual(decodeContent(unhex(vector.hex)), content);
    });
  }

  for (const vector of sealed.frames) {
    test(`frame: ${vector.name}`, () => {
      const frame = create(FrameSchema, {
        laneNo: BigInt(vector.lane_no),
        laneBase: BigInt(vector.lane_base),
        kind: vector.kind,
        sentAtMs: BigInt(vector.sent_at_ms),
        content: unhex(vector.content),
        lives: vector.lives.map(({ id, first }) => ({ id: BigInt(id), first: BigInt(first) })),
        place: BigInt(vector.place),
        addressed: vector.addressed.map(({ device, first }) => ({ device: unhex(device), first: BigInt(first) })),
        writtenIn: BigInt(vector.written_in),
        line: vector.line.map(BigInt),
        unsentFrom: BigInt(vector.unsent_from),
      });
      assert.equal(hex(toBinary(FrameSchema, frame)), vector.hex);
      assert.deepEqual(fromBinary(FrameSchema, unhex(vector.hex)), frame);
    });
  }

  test("content that is encoded in another way is refused", () => {
    const text = sealed.contents[0]!.hex;
    // The salt's length in two bytes where one is enough; something behind the end; one byte short.
    const others = [text.replace(/^8750/, "875810"), `${text}00`, text.slice(0, -2)];
    for (const other of others) assert.throws(() => decodeContent(unhex(other)), BadContent);
  });
});

describe("people", () => {
  const vector = sealed.device_list;

  test("a signed device list", () => {
    const list = create(DeviceListSchema, {
      account: unhex(vector.account),
      version: 1n,
      devices: [{ device: unhex(vector.device), key: unhex(vector.device_public_key), name: "first device" }],
      identityKey: unhex(vector.identity_public_key),
    });
    const signed = signList({ identity: keyOf(unhex(vector.identity_secret_key)) }, toBinary(DeviceListSchema, list));
    assert.equal(hex(keyOf(unhex(vector.device_secret_key)).public), vector.device_public_key);
    assert.equal(hex(signed.list), vector.list);
    assert.equal(hex(signed.signature), vector.signature);
    assert.equal(hex(readList(unhex(vector.account), "somebody", signed).devices[0]!.key), vector.device_public_key);
  });

  test("a list that was changed, or is of another account, is not believed", () => {
    const wrong = (account: string, list: string) => () =>
      readList(
        unhex(account),
        "somebody",
        create(SignedDeviceListSchema, { list: unhex(list), signature: unhex(vector.signature) }),
      );
    assert.throws(wrong(vector.account, vector.list.replace("1001", "1002")), BadList);
    assert.throws(wrong(vector.device, vector.list), BadList);
  });

  test("a signature under a key of small order is not believed", () => {
    const identity = new Uint8Array(32);
    identity[0] = 1;
    const signature = new Uint8Array(64);
    signature[0] = 1;
    assert.equal(verify(identity, listTranscript(unhex(vector.list)), signature), false);
  });

  test("the safety number is the same on both sides", () => {
    const { one, other, digits } = sealed.safety_number;
    const of = ([account, key]: [string, string]) => ({ account: unhex(account), identityKey: unhex(key) });
    assert.equal(safetyNumber(of(one), of(other)), digits);
    assert.equal(safetyNumber(of(other), of(one)), digits);
  });

  test("the successor of a conversation", () => {
    const { root, history, conversation } = sealed.successor;
    assert.equal(hex(successorOf(unhex(root), unhex(history))), conversation);
  });
});
