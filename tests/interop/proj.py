"""The Celery application of the interop tests: a client of Rust workers, and a worker for Rust
clients. Its settings come from the environment, so that one file serves every combination."""

import collections
import datetime
import os

from celery import Celery
from kombu import Exchange, Queue

QUEUE = os.environ["INTEROP_QUEUE"]
SERIALIZER = os.environ["INTEROP_SERIALIZER"]

BACKEND = os.environ.get("INTEROP_BACKEND", "rpc://")
app = Celery("proj", broker=os.environ["INTEROP_BROKER"], backend=BACKEND)
app.conf.update(
    task_serializer=SERIALIZER,
    result_serializer=SERIALIZER,
    accept_content=["json"] if SERIALIZER == "json" else ["json", "msgpack"],
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)
# Tasks of Python, where both kinds of workers take part in one workflow.
PYTHON_QUEUE = "python"
app.conf.task_queues = [Queue(PYTHON_QUEUE, routing_key=PYTHON_QUEUE)]
app.conf.task_default_queue = QUEUE
if QUEUE == "celery":
    app.conf.task_queues.append(Queue(QUEUE, routing_key=QUEUE))
else:
    # A queue of ours is declared by our side; its type tells Celery to do without global QoS.
    quorum = {"x-queue-type": "quorum"}
    app.conf.task_queues.append(
        Queue(QUEUE, routing_key=QUEUE, queue_arguments=quorum, no_declare=True)
    )
if os.environ.get("INTEROP_MIXED"):
    app.conf.task_routes = {"py.*": {"queue": PYTHON_QUEUE}}


# Native delayed delivery, which Celery has for topic exchanges and quorum queues only.
if os.environ.get("INTEROP_DELAYED"):
    app.conf.update(
        task_queues=[
            Queue(
                QUEUE,
                Exchange(QUEUE, type="topic"),
                routing_key=QUEUE,
                queue_arguments={"x-queue-type": "quorum"},
                no_declare=bool(os.environ.get("INTEROP_NO_DECLARE")),
            )
        ],
        task_default_exchange=QUEUE,
        task_default_exchange_type="topic",
        task_default_routing_key=QUEUE,
        task_default_queue_type="quorum",
    )


class OutOfStock(Exception):
    """An exception that Rust does not know."""


@app.task(name="py.add")
def add(x, y):
    return x + y


@app.task(name="py.mul")
def mul(x, y):
    return x * y


@app.task(name="py.total")
def total(numbers):
    return sum(numbers)


@app.task(name="py.replace_by", bind=True)
def replace_by(self, *args):
    """Replaces itself by the signature that is its last argument; others are its arguments."""
    *given, signature = args
    raise self.replace(self.app.signature(signature).clone(args=tuple(given)))


@app.task(name="py.on_error")
def on_error(task_id):
    return task_id


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


@app.task(name="py.stamps", bind=True)
def stamps(self, value):
    return self.request.stamps


@app.task(name="py.now")
def now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat()


@app.task(name="py.flaky", bind=True, max_retries=3)
def flaky(self, value):
    if self.request.retries < 2:
        error = ConnectionError(f"try {self.request.retries}")
        raise self.retry(exc=error, countdown=0.1)
    return value


@app.task(name="py.tells", bind=True)
def tells(self, done):
    self.send_event("task-progress", done=done, of=10)
    return done


@app.task(name="py.silent", ignore_result=True)
def silent():
    return "nobody hears"


# How many tasks have run of each session of errbacks.py, and what the broker delivered twice.
ENDED, AGAIN = collections.Counter(), collections.defaultdict(list)


@app.task(name="py.ends", bind=True)
def ends(self, world, path, fails):
    session = world.split("/")[0]
    ENDED[session] += 1
    if self.request.delivery_info.get("redelivered"):
        AGAIN[session].append(world)
    if fails:
        raise ValueError(world)


@app.task(name="py.ended")
def ended(session):
    return [ENDED[session], AGAIN[session]]
