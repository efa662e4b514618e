/**
 * An app that times something: each line of standard input is a latency in ms, or, if it is no number, an error.
 *
 *     printf '212\n187.5\nCUDA out of memory\n' | node demo.mjs kiosk whisper-tiny 1.0
 *
 * Prints one line at the end: the session, and what became of the records. Exit code 1: not all of them came home.
 */
import { argv, exit, stderr, stdin, stdout } from "node:process";
import { createInterface } from "node:readline";

import { Client } from "./xybridd.mjs";

const [app, model, version, patience = "10"] = argv.slice(2);
if (version === undefined) {
  stderr.write("usage: node demo.mjs APP MODEL VERSION [SECONDS_TO_WAIT_AT_THE_END] <LATENCIES\n");
  exit(2);
}
const telemetry = new Client(app, "1.0");
for await (const line of createInterface({ input: stdin, crlfDelay: Infinity })) {
  const latencyMs = Number(line);
  if (line.trim() !== "" && latencyMs >= 0 && latencyMs <= 1e15)
    telemetry.inference(model, version, latencyMs, { hardware_used: "cpu", execution_target: "local" });
  else telemetry.error(line, model, version);
}
const home = await telemetry.end(Number(patience) * 1000);
if (!home) stderr.write(`demo.mjs: no daemon took all of it within ${patience} s; the rest is lost\n`);
const { recorded, acknowledged, dropped, refused, connections } = telemetry.counts;
stdout.write(
  `session=${telemetry.sessionId} recorded=${recorded} acknowledged=${acknowledged} dropped=${dropped} ` +
    `refused=${refused} connections=${connections}\n`,
);
exit(home ? 0 : 1);
