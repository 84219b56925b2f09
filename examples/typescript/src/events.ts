// SPDX-License-Identifier: MIT OR Apache-2.0
// What a client tells whoever uses it. Ids are in hexadecimal.

import type { KeyNotice, ListRefusal } from "./directory.js";

export type Event =
  | { readonly event: "connected" }
  | { readonly event: "disconnected"; readonly why: string }
  /** The server that was connected to shows another certificate now; it is tried again for a minute. */
  | { readonly event: "wrong_certificate"; readonly why: string }
  /** Something went wrong that this client does not know; it goes on. */
  | { readonly event: "warning"; readonly error: Error }
  /** Nothing will be tried any more, for example because another process uses the device. */
  | { readonly event: "stopped"; readonly error: Error }
  | {
      readonly event: "message";
      readonly conversation: string;
      readonly from: string;
      readonly device: string;
      readonly sendId: string;
      readonly laneNo: number;
      readonly text: string;
      readonly sentAtMs: number;
      readonly late: boolean;
    }
  /** Lane numbers that were waited for and did not come. */
  | {
      readonly event: "hole";
      readonly conversation: string;
      readonly from: string;
      readonly first: number;
      readonly last: number;
    }
  /** Messages that cannot be read; told once until one of that device can be. */
  | { readonly event: "unreadable"; readonly conversation: string; readonly from: string; readonly why: string }
  | { readonly event: "accepted" | "stored" | "resending"; readonly conversation: string; readonly sendId: string }
  | { readonly event: "failed"; readonly conversation: string; readonly sendId: string; readonly error: Error }
  /** Everything of this device up to a lane number was shown, or read, by somebody. */
  | { readonly event: "delivered" | "read"; readonly conversation: string; readonly by: string; readonly upTo: number }
  | {
      readonly event: "joined" | "members";
      readonly conversation: string;
      readonly epoch: number;
      readonly members: string[];
    }
  /** The program ended before it had made a conversation: nobody was let in, and it is forgotten. */
  | { readonly event: "not_made"; readonly conversation: string; readonly name: string }
  /** The program ended before it had added somebody, and others changed the group first. */
  | { readonly event: "not_added"; readonly conversation: string }
  | { readonly event: "named"; readonly conversation: string; readonly name: string }
  /** Messages of the queue are gone. */
  | { readonly event: "gap" }
  /** After a restore of the server others may go on in the successor. */
  | {
      readonly event: "over";
      readonly conversation: string;
      readonly why: "removed" | "left" | "gone";
      readonly successor?: string;
    }
  /** This device lost the thread and comes in again by itself. */
  | { readonly event: "rejoining" | "rejoined"; readonly conversation: string }
  /** It cannot yet: `why` says for whom it waits, or that nobody is left for whom it could, and what to do then. */
  | { readonly event: "waiting"; readonly conversation: string; readonly why: string }
  | { readonly event: "foreign"; readonly conversation: string; readonly members: string[] }
  /** A device list that goes back or does not follow the one that is known: the server may want to bring a device back. */
  | { readonly event: "list_refused"; readonly handle: string; readonly why: ListRefusal }
  | { readonly event: KeyNotice; readonly handle: string };

export type Tell = (event: Event) => void;
