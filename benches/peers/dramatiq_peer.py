"""One case of the benchmark with Dramatiq: prints its figures as one line of JSON."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

worker_process = "PEER_URL" in os.environ
url = os.environ["PEER_URL"] if worker_process else sys.argv[2]
runs = os.environ.setdefault("PEER_RUNS", tempfile.mktemp(prefix="celeriac-bench-"))
dramatiq.set_broker(RabbitmqBroker(url=url))


@dramatiq.actor
def noop(index):
    with open(runs, "ab", buffering=0) as file:
        file.write(index.to_bytes(8, "little"))


def cpu(who):
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def enqueue(count):
    started, before = time.perf_counter(), cpu(resource.RUSAGE_SELF)
    for index in range(count):
        noop.send(index)
    seconds = time.perf_counter() - started
    return dict(count=count, seconds=seconds, cpu_seconds=cpu(resource.RUSAGE_SELF) - before)


def drain(count):
    enqueue(count)
    here = os.path.dirname(os.path.abspath(__file__))
    environment = dict(os.environ, PEER_URL=url, PYTHONPATH=here)
    started = time.perf_counter()
    command = [sys.executable, "-m", "dramatiq", "dramatiq_peer", "-p", "2", "-t", "4"]
    worker = subprocess.Popen(command, env=environment, cwd=here, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 180
    while not os.path.exists(runs) or os.path.getsize(runs) < 8 * count:
        assert time.monotonic() < deadline, "tasks are missing"
        time.sleep(0.01)
    seconds = time.perf_counter() - started
    worker.terminate()
    worker.wait()
    with open(runs, "rb") as file:
        content = file.read()
    os.unlink(runs)
    seen = {content[at : at + 8] for at in range(0, len(content), 8)}
    assert len(seen) == count and len(content) == 8 * count, "not every task ran exactly once"
    return dict(count=count, seconds=seconds, cpu_seconds=cpu(resource.RUSAGE_CHILDREN))


if not worker_process:
    wanted, amount = sys.argv[1], int(sys.argv[3])
    result = {"enqueue": enqueue, "drain": drain}[wanted](amount)
    print(json.dumps({"latencies_us": [], **result}))
