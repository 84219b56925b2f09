// SPDX-License-Identifier: MIT OR Apache-2.0
// What is said: MIMI content (draft-ietf-mimi-content-08) in deterministic CBOR (RFC 8949 section 4.2.1).

import { decode, decodeFirst, encode, rfc8949EncodeOptions } from "cborg";

import { random, same, utf8, type Bytes } from "./bytes.js";

export const TEXT_BYTES_MAX = 32 * 1024;
const TEXT = "text/plain;charset=utf-8";
const GROUP = "application/vnd.pli.group+cbor";
const TICKS = "application/vnd.pli.ticks+cbor";
const DEPTH_MAX = 8;
const PARTS_MAX = 64;
const TICKS_MAX = 1024;

/** Up to `delivered` everything of that device was shown, but for the ranges in `lost`; up to `read` it was read. */
export interface Tick {
  readonly device: Bytes;
  readonly delivered: number;
  readonly read: number;
  readonly lost?: [number, number][];
  /** The life of the device in which it gave the number `delivered`, where that is known. */
  readonly life?: bigint;
}

export type Content =
  | { readonly kind: "text"; readonly text: string }
  /** `removed`: whom others are not to bring into what goes on for `root`. This client brings in nobody by itself. */
  | { readonly kind: "group"; readonly name: string; readonly root?: Bytes; readonly removed?: readonly Bytes[] }
  | { readonly kind: "ticks"; readonly ticks: Tick[] }
  | { readonly kind: "other"; readonly mediaType: string };

/** What can be decoded, but not taken for content. */
export class BadContent extends Error {
  override name = "BadContent";
}

export function encodeContent(content: Exclude<Content, { kind: "other" }>, salt: Bytes = random(16)): Bytes {
  const [disposition, mediaType, body] = part(content);
  // salt, replaces, topic id, expires, in-reply-to, extensions, and one part: disposition, language, "a single part".
  const nested = [disposition, "", 1, mediaType, body];
  return cbor([salt, null, new Uint8Array(), null, null, new Map(), nested]);
}

function part(content: Exclude<Content, { kind: "other" }>): [number, string, Bytes] {
  switch (content.kind) {
    case "text":
      return [1, TEXT, utf8(checkText(content.text))];
    case "group":
      return [0, GROUP, cbor([checkName(content.name), ...origin(content)])];
    case "ticks":
      return [0, TICKS, encodeTicks(content.ticks)];
  }
}

/** What stands behind a group's name; who was removed is told only of what goes on for something. */
function origin({ root, removed = [] }: Extract<Content, { kind: "group" }>): (Bytes | readonly Bytes[])[] {
  if (root === undefined) return [];
  return removed.length === 0 ? [root] : [root, removed];
}

/** A text of nothing but blanks, or a longer one than others take, is refused before it is written anywhere. */
export function checkText(text: string): string {
  const length = utf8(text).length;
  if (text.trim() === "") throw new BadContent("the message is empty; write something");
  if (length > TEXT_BYTES_MAX)
    throw new BadContent(`the message has ${length} bytes; at most ${TEXT_BYTES_MAX} are possible, split it`);
  return text;
}

export function isName(name: string): boolean {
  const length = utf8(name).length;
  return length >= 1 && length <= 128 && name === name.trim() && !/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}~]/u.test(name);
}

export function checkName(name: string): string {
  if (isName(name)) return name;
  throw new BadContent(
    `${JSON.stringify(name)} is no name of a group: 1 to 128 bytes, no blanks around it, no invisible character, no ~`,
  );
}

function encodeTicks(ticks: Tick[]): Bytes {
  const first = cbor(ticks.slice(0, TICKS_MAX).map((tick) => [tick.device, tick.delivered, tick.read]));
  const lost = ticks.filter((tick) => tick.lost?.length).map((tick) => [tick.device, tick.lost!.flat()]);
  const lives = ticks.filter((tick) => tick.life !== undefined).map((tick) => [tick.device, tick.life]);
  // The arrays stand one behind the other; one that is empty is left out where nothing follows it.
  const tail = lives.length > 0 ? [lost, lives] : lost.length > 0 ? [lost] : [];
  return new Uint8Array(Buffer.concat([first, ...tail.map(cbor)]));
}

export function decodeContent(bytes: Bytes): Content {
  const value = deterministic(bytes);
  if (!Array.isArray(value) || value.length !== 7) throw new BadContent("the content is no array of seven");
  const found = walk(value[6], 1, { left: PARTS_MAX });
  if (found === undefined) throw new BadContent("the content has no part");
  return found;
}

/** The first part that can be shown, else the first one. */
function walk(nested: unknown, depth: number, budget: { left: number }): Content | undefined {
  if (depth > DEPTH_MAX || --budget.left < 0) throw new BadContent("the content has too many parts");
  if (!Array.isArray(nested)) throw new BadContent("a part is no array");
  const [, , cardinality, type, body] = nested as unknown[];
  if (cardinality === 1 && typeof type === "string" && body instanceof Uint8Array) return single(type, body);
  if (cardinality === 3 && Array.isArray(body)) {
    const parts = body.map((inner) => walk(inner, depth + 1, budget));
    return (
      parts.find((found) => found !== undefined && found.kind !== "other") ?? parts.find((found) => found !== undefined)
    );
  }
  return cardinality === 0
    ? undefined
    : { kind: "other", mediaType: typeof type === "string" ? type : "something unknown" };
}

function single(mediaType: string, body: Bytes): Content {
  if (mediaType === GROUP) return group(body);
  if (mediaType === TICKS) return { kind: "ticks", ticks: decodeTicks(body) };
  if (mediaType.startsWith("text/"))
    return { kind: "text", text: new TextDecoder("utf-8", { fatal: true }).decode(body) };
  return { kind: "other", mediaType };
}

function group(body: Bytes): Content {
  const value = deterministic(body);
  if (!Array.isArray(value) || typeof value[0] !== "string") throw new BadContent("a group's info has no name");
  const [name, root, removed] = value as [string, ...unknown[]];
  return {
    kind: "group",
    name,
    ...(root instanceof Uint8Array ? { root } : {}),
    ...(Array.isArray(removed) ? { removed: removed.filter((account) => account instanceof Uint8Array) } : {}),
  };
}

function decodeTicks(body: Bytes): Tick[] {
  const [ticks, lost, lives] = sequence(body, 3) as [unknown[][], unknown[][]?, unknown[][]?];
  const of = <T>(rows: unknown[][] | undefined, device: Bytes) =>
    rows?.find((row) => same(row[0] as Bytes, device))?.[1] as T | undefined;
  return ticks.slice(0, TICKS_MAX).map(([device, delivered, read]) => {
    const ranges = of<number[]>(lost, device as Bytes);
    const life = of<bigint | number>(lives, device as Bytes);
    return {
      device: device as Bytes,
      delivered: Number(delivered),
      read: Number(read),
      ...(ranges === undefined ? {} : { lost: pairs(ranges) }),
      ...(life === undefined ? {} : { life: BigInt(life) }),
    };
  });
}

const pairs = (flat: number[]): [number, number][] =>
  Array.from({ length: Math.floor(flat.length / 2) }, (_, i) => [flat[2 * i]!, flat[2 * i + 1]!]);

/** Up to `count` arrays that stand one behind the other; what follows them is of a later version. */
function sequence(bytes: Bytes, count: number): unknown[] {
  const found: unknown[] = [];
  let rest = bytes;
  while (rest.length > 0 && found.length < count) {
    const [value, behind] = attempt(() => decodeFirst(rest, { strict: true }));
    if (!Array.isArray(value) || !value.every(Array.isArray)) throw new BadContent("ticks are no array of arrays");
    found.push(value);
    rest = behind;
  }
  if (found.length === 0) throw new BadContent("ticks are empty");
  return found;
}

function cbor(value: unknown): Bytes {
  return encode(value, rfc8949EncodeOptions);
}

function deterministic(bytes: Bytes): unknown {
  const value = attempt(() => decode(bytes, { strict: true, useMaps: true, rejectDuplicateMapKeys: true }));
  if (!same(cbor(value), bytes)) throw new BadContent("the content is not encoded deterministically");
  return value;
}

function attempt<T>(run: () => T): T {
  try {
    return run();
  } catch (error) {
    throw new BadContent(`the content is no CBOR: ${(error as Error).message}`);
  }
}
