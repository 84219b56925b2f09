// SPDX-License-Identifier: MIT OR Apache-2.0
// A device's stock of key packages (docs/protocol.md, "Key packages"): private keys are durable before the packages leave.

import { Directory as Methods } from "./gen/pli/directory/v1/directory_pb.js";
import type { Link } from "./link.js";
import { newKeyPackage, type OwnKeyPackage } from "./mls.js";
import type { Profile } from "./profile.js";
import type { Store, Table } from "./store.js";

const SINGLE_USE = 100;
/** A third of the life of a package: whoever is online now and then can always be reached by somebody new. */
const RENEWED_MS = 28 * 24 * 3_600_000;
/** Rests of earlier publications that the directory may still hand out; older ones are forgotten. */
const KEPT = 4 * SINGLE_USE;

/** A private key that lets this device into several groups is deleted so long after its first use. */
const SPENT_KEPT_MS = 3_600_000;

type Kept = OwnKeyPackage & { readonly madeAt: number; readonly usedAt?: number };

export class KeyPackages {
  readonly #own: Table<Kept>;
  /** A package of last resort was used: another one is to be published where it was the newest. */
  onLastResort: () => void = () => {};

  constructor(
    private readonly store: Store,
    private readonly link: Link,
    private readonly profile: Profile,
  ) {
    this.#own = store.table("keypackage");
  }

  get(reference: string): OwnKeyPackage | undefined {
    return this.#own.get(reference);
  }

  /** After its welcome was used; whether it was of last resort. Within a change of the store. */
  used(reference: string, now = Date.now()): boolean {
    const own = this.#own.get(reference);
    if (own?.lastResort !== true) {
      this.#own.delete(reference);
      return false;
    }
    this.#own.set(reference, { usedAt: now, ...own });
    this.store.afterwards(() => this.onLastResort());
    return true;
  }

  /** Whether the newest package of last resort was used. */
  isSpent(): boolean {
    const newest = this.#lastResorts().sort(([, a], [, b]) => b.madeAt - a.madeAt)[0];
    return newest?.[1].usedAt !== undefined;
  }

  /** Deletes what was used an hour ago, where the queue is worked through. Within a change of the store. */
  forgetSpent(now = Date.now()): void {
    for (const [reference, { usedAt }] of this.#lastResorts())
      if (usedAt !== undefined && Math.abs(now - usedAt) >= SPENT_KEPT_MS) this.#own.delete(reference);
  }

  #lastResorts(): [string, Kept][] {
    return this.#own.entries().filter(([, { lastResort }]) => lastResort);
  }

  /** Whether the newest were made so long ago that new ones are due, or by a clock that was far ahead. */
  areOld(now = Date.now()): boolean {
    const newest = Math.max(0, ...this.#own.entries().map(([, own]) => own.madeAt));
    return now - newest >= RENEWED_MS || newest - now >= RENEWED_MS;
  }

  async publish(): Promise<void> {
    const fresh = await Promise.all(
      Array.from({ length: SINGLE_USE + 1 }, (_, i) => newKeyPackage(this.profile, i === SINGLE_USE)),
    );
    const madeAt = Date.now();
    await this.store.change(() => {
      for (const [reference, own] of fresh) this.#own.set(reference, { ...own, madeAt });
      const oldest = this.#own.entries().sort(([, a], [, b]) => b.madeAt - a.madeAt);
      for (const [reference] of oldest.slice(KEPT)) this.#own.delete(reference);
    });
    const messages = fresh.map(([, own]) => own.message);
    await this.link.call(Methods.method.publishKeyPackages, {
      keyPackages: messages.slice(0, SINGLE_USE),
      lastResort: messages[SINGLE_USE]!,
    });
  }
}
