"""One case of the benchmark with Celery: prints its figures as one line of JSON."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time

from celery import Celery

case, url, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
runs = os.environ.setdefault("PEER_RUNS", tempfile.mktemp(prefix="celeriac-bench-"))

app = Celery("peer", broker=url, backend="rpc://")
app.conf.update(
    task_serializer="msgpack",
    result_serializer="msgpack",
    accept_content=["json", "msgpack"],
    worker_prefetch_multiplier=64,
    worker_hijack_root_logger=False,
)


@app.task(name="noop")
def noop(index):
    with open(runs, "ab", buffering=0) as file:
        file.write(index.to_bytes(8, "little"))
    return index


def cpu(who):
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def send(ignore_result):
    with app.connection_for_write() as connection, app.amqp.producer_pool.acquire(block=True):
        for index in range(count):
            noop.apply_async((index,), ignore_result=ignore_result)
        assert connection


def start_worker():
    environment = dict(os.environ, PYTHONPATH=os.path.dirname(os.path.abspath(__file__)))
    command = [sys.executable, __file__, "worker", url, "0"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def enqueue():
    started, before = time.perf_counter(), cpu(resource.RUSAGE_SELF)
    send(True)
    seconds = time.perf_counter() - started
    return dict(count=count, seconds=seconds, cpu_seconds=cpu(resource.RUSAGE_SELF) - before)


def drain(ignore_result):
    send(ignore_result)
    started = time.perf_counter()
    worker = start_worker()
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


def latency():
    worker = start_worker()
    noop.delay(0).get(timeout=60)
    before, started, latencies = cpu(resource.RUSAGE_SELF), time.perf_counter(), []
    for index in range(count):
        sent = time.perf_counter()
        assert noop.delay(index).get(timeout=60) == index
        latencies.append((time.perf_counter() - sent) * 1e6)
    seconds = time.perf_counter() - started
    used = cpu(resource.RUSAGE_SELF) - before
    worker.terminate()
    worker.wait()
    os.unlink(runs)
    return dict(count=count, seconds=seconds, cpu_seconds=used, latencies_us=sorted(latencies))


if case == "worker":
    app.worker_main(["worker", "-c", "2", "--pool", "prefork", "-l", "warning",
                     "--without-gossip", "--without-mingle", "--without-heartbeat"])
else:
    figures = {
        "enqueue": enqueue,
        "drain": lambda: drain(True),
        "drain-results": lambda: drain(False),
        "latency": latency,
    }[case]()
    print(json.dumps({"latencies_us": [], **figures}))
