// SPDX-License-Identifier: MIT OR Apache-2.0
// What is too large for an envelope or a call lies apart, in pages (docs/protocol.md, "Calls").

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { sha256 } from "@noble/hashes/sha2.js";

import { concat, newId, same, type Bytes } from "./bytes.js";
import type { PayloadRef } from "./gen/pli/common/v1/common_pb.js";
import {
  Conversations as Methods,
  ObjectSchema,
  type Object$ as WireObject,
} from "./gen/pli/conversations/v1/conversations_pb.js";
import type { Envelope } from "./gen/pli/log/v1/log_pb.js";
import type { Link } from "./link.js";

const INLINE_MAX = 16 * 1024;
const PAGE = 48 * 1024;

/** The object lacks a page or fails its hash: it is not used. */
export class BadObject extends Error {
  override name = "BadObject";
}

/** Bytes as they stand in a request: in it, or put apart first. */
export async function put(link: Link, bytes: Bytes): Promise<MessageInitShape<typeof ObjectSchema>> {
  if (bytes.length <= INLINE_MAX) return { object: { case: "inline", value: bytes } };
  const id = newId();
  const size = BigInt(bytes.length);
  for (let offset = 0; offset < bytes.length; offset += PAGE) {
    await link.call(Methods.method.putPayload, {
      id,
      bytes: bytes.subarray(offset, offset + PAGE),
      offset: BigInt(offset),
      size,
    });
  }
  return create(ObjectSchema, { object: { case: "ref", value: { id, size, sha256: sha256(bytes) } } });
}

export async function get(link: Link, wanted: WireObject | undefined): Promise<Bytes> {
  if (wanted?.object.case === "inline") return wanted.object.value;
  if (wanted?.object.case === "ref") return fetchPages(link, wanted.object.value);
  throw new BadObject("there is no object");
}

export async function bodyOf(link: Link, envelope: Envelope): Promise<Bytes> {
  const { bodyOrRef } = envelope;
  if (bodyOrRef.case === "body") return bodyOrRef.value;
  if (bodyOrRef.case === "bodyRef") return fetchPages(link, bodyOrRef.value);
  throw new BadObject("the envelope is empty");
}

async function fetchPages(link: Link, ref: PayloadRef): Promise<Bytes> {
  const pages: Bytes[] = [];
  let have = 0;
  while (have < Number(ref.size)) {
    const { bytes } = await link.call(Methods.method.fetchPayload, { id: ref.id, offset: BigInt(have) });
    if (bytes.length === 0) throw new BadObject("a page of the object is missing");
    pages.push(bytes);
    have += bytes.length;
  }
  const whole = concat(...pages);
  if (!same(sha256(whole), ref.sha256)) throw new BadObject("the object is not the one that was named");
  return whole;
}
