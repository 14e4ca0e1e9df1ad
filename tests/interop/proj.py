"""The Celery application of the interop tests: a client of Rust workers, and a worker for Rust
clients. Its settings come from the environment, so that one file serves every combination."""

import os

from celery import Celery
from kombu import Queue

QUEUE = os.environ["INTEROP_QUEUE"]
SERIALIZER = os.environ["INTEROP_SERIALIZER"]

app = Celery("proj", broker=os.environ["INTEROP_BROKER"], backend="rpc://")
app.conf.update(
    task_serializer=SERIALIZER,
    result_serializer=SERIALIZER,
    accept_content=["json"] if SERIALIZER == "json" else ["json", "msgpack"],
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)
if QUEUE != "celery":
    # A queue of ours is declared by our side; its type tells Celery to do without global QoS.
    quorum = {"x-queue-type": "quorum"}
    app.conf.task_queues = [
        Queue(QUEUE, routing_key=QUEUE, queue_arguments=quorum, no_declare=True)
    ]
    app.conf.task_default_queue = QUEUE


class OutOfStock(Exception):
    """An exception that Rust does not know."""


@app.task(name="py.add")
def add(x, y):
    return x + y


@app.task(name="py.echo")
def echo(*args, **kwargs):
    return [list(args), kwargs]


@app.task(name="py.kind")
def kind(value):
    return type(value).__name__


@app.task(name="py.boom")
def boom(message):
    raise ValueError(message)


@app.task(name="py.out_of_stock")
def out_of_stock():
    raise OutOfStock("no", 3)


@app.task(name="py.progress", bind=True)
def progress(self, count):
    for step in range(count):
        self.update_state(state="PROGRESS", meta={"current": step + 1, "total": count})
    return count


@app.task(name="py.request", bind=True)
def request(self):
    it = self.request
    return {
        "id": it.id,
        "root_id": it.root_id,
        "parent_id": it.parent_id,
        "origin": it.origin,
        "retries": it.retries,
        "headers": it.headers,
        "timelimit": list(it.timelimit),
        "shadow": it.shadow,
        "argsrepr": it.argsrepr,
        "kwargsrepr": it.kwargsrepr,
    }


@app.task(name="py.silent", ignore_result=True)
def silent():
    return "nobody hears"
