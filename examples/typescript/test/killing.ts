// SPDX-License-Identifier: MIT OR Apache-2.0
// Loaded before the chat program: kills it right before a call to the server leaves, or when its answer has come.

import { Session } from "../src/session.js";

const [when, name] = (process.env["PLI_KILLED"] ?? "").split(" ");
const { call } = Session.prototype;

Session.prototype.call = async function (this: Session, method, request) {
  const kill = (at: string) => method.name === name && when === at && process.kill(process.pid, "SIGKILL");
  kill("before");
  const answer = await call.call(this, method, request);
  kill("after");
  return answer as Awaited<ReturnType<typeof call<typeof method.input, typeof method.output>>>;
} as typeof call;
