/**
 * A client of xybridd for Node, without dependencies: one file to copy into your app. docs/clients.md has the rules.
 *
 *     import { Client } from "./xybridd.mjs";
 *     const telemetry = new Client("kiosk");
 *     telemetry.inference("whisper-tiny", "1.0", 212, { tokens_per_second: 41.5 });
 *     await telemetry.end();
 *
 * Recording never throws and never waits. Without a daemon, records wait; past MOST_WAITING new ones are dropped, and
 * counted. Nothing here keeps a process alive that has nothing else to do: end() is what brings the last records home.
 *
 * - One request is under way at a time, and its answer is awaited. What is recorded meanwhile gathers.
 * - A batch has a number from the moment it is first sent, and stays as it is until it is acknowledged: by its own
 *   answer, or by the `last_seq` of the next hello.
 * - Whatever breaks, breaks the connection. The next one says hello, takes the session up, sends that batch again.
 */
import { randomUUID } from "node:crypto";
import { connect } from "node:net";
import { env, getuid, platform } from "node:process";

const MOST_WAITING = 10_000;
const BATCH_RECORDS = 500;
const ERROR_CHARACTERS = 2048;
const FIRST_RETRY_MS = 25;
const LONGEST_RETRY_MS = 1000;
const LARGEST_EXACT = 2 ** 53;

/** Where the daemon may listen: the variable's socket; or the user's, or the system's. */
function sockets() {
  if (env.XYBRIDD_SOCKET) return [env.XYBRIDD_SOCKET];
  const mac = platform === "darwin";
  const runtime = env.XDG_RUNTIME_DIR || (mac ? `${env.HOME}/Library/Caches/TemporaryItems` : `/run/user/${getuid()}`);
  return [`${runtime}/xybridd/xybridd.sock`, mac ? "/var/run/xybridd.sock" : "/run/xybridd/xybridd.sock"];
}

/** The owner of this environment said no to telemetry. */
function saidNo() {
  return env.DO_NOT_TRACK === "1" || ["1", "true", "yes"].includes(env.XYBRID_TELEMETRY_OPTOUT?.toLowerCase());
}

/** Text of at most so many characters, each half of a broken surrogate pair replaced: UTF-8 cannot carry it. */
function text(value, most) {
  let whole;
  try {
    whole = String(value);
  } catch {
    whole = Object.prototype.toString.call(value); // what cannot be made a text
  }
  // So many characters have at most twice so many units; what is cut through here is cut off below.
  const characters = Array.from(whole.slice(0, 2 * most + 1)).slice(0, most);
  return Buffer.from(characters.join("")).toString();
}

const isAmount = (number) => typeof number === "number" && number >= 0 && number <= LARGEST_EXACT;
const isOneOf = (...words) => (word) => words.includes(word);

/** What may be said of an inference. What is something else is left out, or the daemon would refuse the whole batch. */
const STATS = {
  tokens_per_second: isAmount,
  samples_per_second: isAmount,
  time_to_first_token_ms: isAmount,
  memory_peak_mb: (number) => isAmount(number) && Number.isInteger(number),
  input_tokens: (number) => isAmount(number) && Number.isInteger(number),
  output_tokens: (number) => isAmount(number) && Number.isInteger(number),
  execution_target: isOneOf("local", "cloud", "fallback"),
  hardware_used: isOneOf("cpu", "gpu", "npu"),
};

export class Client {
  /** What became of the records: recorded = acknowledged + dropped + refused + those that wait. */
  counts = { recorded: 0, acknowledged: 0, dropped: 0, refused: 0, connections: 0 };
  sessionId = randomUUID();

  #startedAtMs = Date.now();
  #hello;
  #clientId = randomUUID();
  #declined = saidNo();
  #waiting = [];
  #batch = null; // what was sent and is not acknowledged: { seq, records, dropped }
  #seq = 0;
  #droppedUntold = 0;
  #socket = null;
  #asked = null; // the one request under way: { id, method }
  #requestId = 0;
  #ready = false; // connected, and the session is taken up
  #retryMs = FIRST_RETRY_MS;
  #timer = null; // until then nothing is begun
  #hurry = 0;
  #ending = false;
  #ended = false;
  #told = []; // who waits for everything to be home

  /** No I/O yet: the daemon is looked for when there is something to say. */
  constructor(app, appVersion = "") {
    this.#hello = { app: text(app, 128) || "app", app_version: text(appVersion, 128), client_id: this.#clientId };
  }

  /** One inference; `stats` by their names in docs/protocol.md. False: it was not kept. */
  inference(modelId, version, latencyMs, stats) {
    const model_id = text(modelId, 256);
    if (!model_id || !isAmount(latencyMs)) return false;
    const record = { type: "inference", model_id, version: text(version ?? "", 128), latency_ms: latencyMs };
    const said = Object.entries(stats ?? {}).filter(([name, value]) => STATS[name]?.(value));
    if (said.length) record.stats = Object.fromEntries(said);
    return this.#keep(record);
  }

  /** Something that went wrong: an Error, or a text. The daemon finds the category, and redacts. */
  error(error, modelId, version) {
    const record = { type: "error", error: text(error, ERROR_CHARACTERS) };
    if (modelId) record.model_id = text(modelId, 256);
    if (version != null) record.version = text(version, 128);
    return this.#keep(record);
  }

  /** Resolves to true when everything recorded so far is on disk, to false after `timeoutMs`. */
  async flush(timeoutMs = 2000) {
    if (!this.counts.recorded) return true;
    this.#hurry++;
    this.#turn();
    const home = await this.#allHome(timeoutMs);
    this.#hurry--;
    return home;
  }

  /** Bring everything home and end the session. False: not within `timeoutMs`; what still waits is lost. */
  async end(timeoutMs = 2000) {
    this.#ending = true;
    this.#ended = false;
    const home = await this.flush(timeoutMs);
    const socket = this.#socket;
    this.#socket = this.#asked = null;
    this.#ready = false;
    socket?.destroy();
    clearTimeout(this.#timer);
    this.#timer = null;
    return home;
  }

  #keep(record) {
    if (this.#declined) return false;
    this.counts.recorded++;
    if (this.#waiting.length >= MOST_WAITING) {
      this.counts.dropped++;
      this.#droppedUntold++;
      return false;
    }
    this.#waiting.push(JSON.stringify({ ...record, timestamp_ms: Date.now() }));
    this.#turn();
    return true;
  }

  // What is to be done

  #turn() {
    if (this.#timer || this.#asked) return;
    if (!this.#socket) this.#connect(sockets());
    else if (!this.#ready) return;
    else if (this.#batch || this.#waiting.length) this.#sendBatch();
    else if (this.#ending && !this.#ended) this.#ask("session.end", { session_id: this.sessionId });
    else this.#tell();
  }

  #tell() {
    for (const told of this.#told.splice(0)) told(true);
  }

  #allHome(timeoutMs) {
    const nothingToDo = !this.#batch && !this.#waiting.length && (!this.#ending || this.#ended);
    if (nothingToDo) return true;
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, timeoutMs, false);
      this.#told.push((home) => {
        clearTimeout(timer);
        resolve(home);
      });
    });
  }

  #later(afterMs) {
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#turn();
    }, afterMs);
    this.#timer.unref();
  }

  // The connection

  #connect([path, ...others]) {
    const socket = connect(path);
    this.#socket = socket;
    socket.unref();
    let heard = "";
    let found = false;
    socket.setEncoding("utf8");
    socket.on("connect", () => {
      found = true;
      this.#ask("hello", this.#hello);
    });
    socket.on("data", (more) => {
      const lines = (heard + more).split("\n");
      heard = lines.pop();
      for (const line of lines) if (this.#socket === socket) this.#hear(line);
    });
    socket.on("error", () => {}); // "close" follows
    socket.on("close", () => {
      if (this.#socket !== socket) return;
      this.#socket = null;
      if (!found && others.length) this.#connect(others);
      else this.#lost();
    });
  }

  #lost() {
    this.#asked = null;
    this.#ready = false;
    this.#later(this.#retryMs);
    this.#retryMs = Math.min(this.#retryMs * 2, LONGEST_RETRY_MS);
  }

  #disconnect() {
    const socket = this.#socket;
    this.#socket = null;
    socket.destroy();
    this.#lost();
  }

  #ask(method, params) {
    const id = ++this.#requestId;
    this.#asked = { id, method };
    this.#socket.write(`{"jsonrpc":"2.0","id":${id},"method":"${method}","params":${JSON.stringify(params)}}\n`);
  }

  #start() {
    this.#ready = false;
    this.#ask("session.start", { session_id: this.sessionId, started_at_ms: this.#startedAtMs });
  }

  #sendBatch() {
    if (!this.#batch) {
      const records = this.#waiting.splice(0, BATCH_RECORDS);
      this.#batch = { seq: ++this.#seq, records, dropped: this.#droppedUntold };
      this.#droppedUntold = 0;
    }
    const { seq, records, dropped } = this.#batch;
    // More is waiting behind it, or somebody is: then it need not wait for company.
    const flush = this.#hurry > 0 || this.#waiting.length > 0;
    const id = ++this.#requestId;
    this.#asked = { id, method: "record.batch" };
    this.#socket.write(
      `{"jsonrpc":"2.0","id":${id},"method":"record.batch","params":{"seq":${seq},"session_id":"${this.sessionId}",` +
        `"dropped":${dropped},"flush":${flush},"records":[${records.join(",")}]}}\n`,
    );
  }

  // Answers

  #hear(line) {
    let answer;
    try {
      answer = JSON.parse(line);
    } catch {
      return this.#disconnect();
    }
    // An error without an id is about a line that could not be read: ours, since there is no other.
    if (!this.#asked || (answer.id !== this.#asked.id && !(answer.error && answer.id === null))) return;
    const { method } = this.#asked;
    this.#asked = null;
    if (answer.error) this.#refused(method, answer.error.data ?? {});
    else this.#done(method, answer.result);
    if (!this.#asked) this.#turn();
  }

  #done(method, result) {
    if (method === "hello") {
      if (this.#batch && result.last_seq >= this.#batch.seq) this.#acknowledged();
      this.#start();
    } else if (method === "session.start") {
      this.sessionId = result.session_id; // after a day the session has a successor, and this is its id
      this.#ready = true;
      this.#retryMs = FIRST_RETRY_MS;
      this.counts.connections++;
    } else if (method === "record.batch") {
      this.sessionId = result.session_id ?? this.sessionId;
      this.#acknowledged();
    } else {
      this.#ended = true;
    }
  }

  #acknowledged() {
    this.counts.acknowledged += this.#batch.records.length;
    this.#batch = null;
  }

  /** Not now: the same again later. Its session is over: into another. Never: it is given up, and its number free. */
  #refused(method, { code, retry_after_ms = LONGEST_RETRY_MS }) {
    if (code === "session_ended" || code === "unknown_session") {
      if (this.#ending && !this.#batch && !this.#waiting.length) {
        this.#ended = true; // by us, and the answer got lost
        this.#ready = true;
        return;
      }
      this.sessionId = randomUUID();
      this.#startedAtMs = Date.now();
      this.#start();
      return;
    }
    if (method === "record.batch" && !["overloaded", "storage_unavailable", "internal"].includes(code)) {
      this.counts.refused += this.#batch.records.length;
      this.#droppedUntold += this.#batch.dropped;
      this.#batch = null;
      this.#seq--;
      return;
    }
    if (!this.#ready) this.#disconnect();
    clearTimeout(this.#timer);
    this.#later(retry_after_ms);
  }
}
