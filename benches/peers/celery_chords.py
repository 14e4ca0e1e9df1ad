"""Chords of Celery whose parts are counted in Redis, for benches/chords.

As a worker: `celery -A celery_chords worker`. As a client: the longest wait in seconds and the sizes
of chords as arguments; prints the seconds that each took, as JSON, and null for the first that took
longer than that. Addresses come from the environment."""

import json
import os
import sys
import time

from celery import Celery, chord
from celery.exceptions import TimeoutError

app = Celery("chords", broker=os.environ["PEER_BROKER"], backend=os.environ["PEER_BACKEND"])
# As fast as Celery can be told to be.
app.conf.update(
    worker_prefetch_multiplier=64,
    task_ignore_result=False,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    worker_send_task_events=False,
    event_queue_expires=60,
)


@app.task(name="bench.part")
def part(index):
    return index


@app.task(name="bench.count")
def count(values):
    return len(values)


def main():
    patience, *sizes = map(int, sys.argv[1:])
    seconds = []
    for size in [100, *sizes]:
        started = time.perf_counter()
        result = chord((part.s(index) for index in range(size)), count.s())()
        try:
            counted = result.get(timeout=patience, interval=0.005)
        except TimeoutError:
            seconds.append(None)
            break
        seconds.append(time.perf_counter() - started)
        assert counted == size, counted
    # The first one only warms up.
    print(json.dumps(seconds[1:]))


if __name__ == "__main__":
    main()
