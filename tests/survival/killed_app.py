"""An app of four threads that record without a pause, until it is killed.

``killed_app.py SOCKET SHARED``: each thread counts a call in shared memory before it makes it and after it returned, so
that whoever killed the app knows what must have been counted, and what may have been.
"""

from __future__ import annotations

import mmap
import sys
import threading
import time
from pathlib import Path

import xybridd

THREADS = 4


def record(client: xybridd.Client, counts: memoryview, thread: int) -> None:
    begun, returned = 2 * thread, 2 * thread + 1
    kinds = thread % 3
    number = 0
    while True:
        number += 1
        counts[begun] += 1
        if kinds == 0:
            client.record_inference("m", "1", 1.5)
        elif kinds == 1:
            client.record_inference("n", "1", 2.5, output_tokens=3, hardware_used="gpu")
        else:
            with client.inference("o", "1"):
                pass
        counts[returned] += 1
        if not number % 64:
            time.sleep(0.0005)  # at a pace that leaves the daemon time to start


def main(path: str, shared: str) -> None:
    with Path(shared).open("r+b") as file:
        counts = memoryview(mmap.mmap(file.fileno(), 4096)).cast("Q")
    client = xybridd.connect("killed", socket=path)
    for thread in range(THREADS):
        threading.Thread(target=record, args=(client, counts, thread), daemon=True).start()
    print("records", flush=True)  # noqa: T201
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
