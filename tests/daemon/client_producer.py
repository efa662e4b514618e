"""A producer that records with our own client, for the kill campaign.

``client_producer.py SOCKET SEED``: records until its standard input ends, flushes until that succeeds, and prints one
line of JSON: what it recorded.
"""

from __future__ import annotations

import json
import random
import select
import sys
import time
from collections import Counter

import xybridd

MODELS = ("whisper", "kokoro", "qwen")
ERRORS = ("gpu lost", "out of memory", "boom")

#: A real app does not record a hundred thousand a second; past the queue's bound the client drops the oldest.
MOST_WAITING = 5000
PATIENCE_S = 60.0


def main(path: str, seed: int) -> None:
    chance = random.Random(seed)
    client = xybridd.connect(f"app-{seed}", socket=path)
    calls: Counter[str] = Counter()
    latency_ms: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    while not select.select([sys.stdin], [], [], 0)[0]:
        if client.counters()["waiting"] > MOST_WAITING:
            time.sleep(0.005)
            continue
        for _ in range(chance.randint(1, 50)):
            if chance.random() < 0.2:
                errors[message := chance.choice(ERRORS)] += 1
                client.record_error(message)
            else:
                model, latency = chance.choice(MODELS), chance.randint(0, 5000)
                calls[model] += 1
                latency_ms[model] += latency
                client.record_inference(model, "1", latency)
        if chance.random() < 0.1:
            client.flush(timeout_s=0.05)
        time.sleep(0.002)
    violations = []
    deadline = time.monotonic() + PATIENCE_S
    while not client.flush(timeout_s=5):
        if time.monotonic() > deadline:
            violations.append(f"flush does not succeed: {client.counters()}")
            break
    counters = client.counters()
    records = calls.total() + errors.total()
    if counters["acknowledged"] != records:
        violations.append(f"{records} records were made, and the client counts {counters}")
    report = {
        "session_id": client.session_id,
        "records": records,
        "calls": calls,
        "latency_ms": latency_ms,
        "errors": errors,
        "violations": violations,
    }
    print(json.dumps(report))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
