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

export class KeyPackages {
  readonly #own: Table<OwnKeyPackage & { readonly madeAt: number }>;

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

  /** After its welcome was used. Within a change of the store. */
  used(reference: string): void {
    if (this.#own.get(reference)?.lastResort === false) this.#own.delete(reference);
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
