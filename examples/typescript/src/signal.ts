// SPDX-License-Identifier: MIT OR Apache-2.0
// Waiting: for something that changes, or for some time; both end when the client is closed.

export class Signal {
  #waiting: (() => void)[] = [];

  fire(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  /** Waits until the condition holds; it is looked at whenever the signal fires. Throws when `stopped` is aborted. */
  async until(condition: () => boolean, stopped: AbortSignal): Promise<void> {
    const wake = () => this.fire();
    stopped.addEventListener("abort", wake);
    try {
      while (!condition()) {
        stopped.throwIfAborted();
        await new Promise<void>((resolve) => this.#waiting.push(resolve));
      }
    } finally {
      stopped.removeEventListener("abort", wake);
    }
  }
}

export function pause(milliseconds: number, stopped: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      reject(stopped.reason as Error);
    };
    const timer = setTimeout(() => {
      stopped.removeEventListener("abort", end);
      resolve();
    }, milliseconds);
    if (stopped.aborted) end();
    else stopped.addEventListener("abort", end, { once: true });
  });
}
