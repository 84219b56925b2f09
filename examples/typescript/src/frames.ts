// SPDX-License-Identifier: MIT OR Apache-2.0
// The frames of a session (proto/pli/edge/v1/edge.proto) and the refusals in them (docs/protocol.md, "Codes").

import { create, fromBinary, toBinary, type MessageInitShape } from "@bufbuild/protobuf";

import { hex } from "./bytes.js";
import { ErrorCode, type DeviceAddress, type Error as WireError } from "./gen/pli/common/v1/common_pb.js";
import { ClientFrameSchema, ServerFrameSchema, type ServerFrame } from "./gen/pli/edge/v1/edge_pb.js";

export type ToServer = NonNullable<MessageInitShape<typeof ClientFrameSchema>["frame"]>;
export type FromServer = ServerFrame["frame"];

/** Limits of a frame before a `Ready` has told the server's own. */
export const FRAME_BYTES_MAX = 80 * 1024;

export const encodeFrame = (frame: ToServer): Uint8Array =>
  toBinary(ClientFrameSchema, create(ClientFrameSchema, { frame }));

export const decodeFrame = (bytes: Uint8Array): FromServer => fromBinary(ServerFrameSchema, bytes).frame;

/** Codes of this version that mean: the same request can succeed later. */
const TEMPORARY = new Set<ErrorCode>([
  ErrorCode.HELLO_TIMEOUT,
  ErrorCode.FRAME_TIMEOUT,
  ErrorCode.BAD_NONCE,
  ErrorCode.RATE_LIMITED,
  ErrorCode.TEMPORARY,
  ErrorCode.NO_SPACE,
  ErrorCode.DRAINING,
  ErrorCode.INTERNAL,
  ErrorCode.WRONG_EPOCH,
  ErrorCode.EPOCH_NOT_OPEN,
  ErrorCode.DEVICE_LIST_VERSION,
  ErrorCode.DEVICES_MISMATCH,
]);

/** The server said no. */
export class Refused extends Error {
  readonly code: ErrorCode;
  readonly retryAfterMs: number;
  readonly currentEpoch: number;
  readonly missing: DeviceAddress[];
  readonly extra: DeviceAddress[];
  readonly stale: DeviceAddress[];

  constructor(error: WireError) {
    const name = ErrorCode[error.code] ?? `code ${error.code}`;
    const devices = error.missing.map((address) => hex(address.account));
    super(`${name}: ${error.message}${devices.length > 0 ? ` (${devices.join(", ")})` : ""}`);
    this.name = "Refused";
    this.code = error.code;
    this.retryAfterMs = error.retryAfterMs;
    this.currentEpoch = Number(error.currentEpoch);
    this.missing = error.missing;
    this.extra = error.extra;
    this.stale = error.stale;
  }

  /** Whether the same request can succeed later; of a code that this client does not know, the pause says it. */
  get temporary(): boolean {
    return ErrorCode[this.code] === undefined ? this.retryAfterMs > 0 : TEMPORARY.has(this.code);
  }
}

export const isRefused = (error: unknown, ...codes: ErrorCode[]): error is Refused =>
  error instanceof Refused && (codes.length === 0 || codes.includes(error.code));
