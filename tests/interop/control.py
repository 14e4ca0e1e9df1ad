"""Celery's remote control against Rust workers: `app.control` and the command line.

As in `client.py`, every check is a function. The worker is called rust@host; the last check
shuts it down."""

import os
import subprocess
import sys
import uuid

from celery.exceptions import TaskRevokedError

from monitor import NODE, PATIENCE, ask, call, eventually, inspect, only, run
from proj import QUEUE, app

def celery(*args):
    command = [sys.executable, "-m", "celery", "-A", "proj", *args]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    return done.returncode, done.stdout + done.stderr


def check_ping():
    assert only(app.control.ping(timeout=PATIENCE, limit=1)) == {"ok": "pong"}
    assert only(app.control.ping(destination=[NODE], timeout=PATIENCE, limit=1)) == {"ok": "pong"}
    assert app.control.ping(destination=["other@host"], timeout=0.5) == []
    matched = app.control.broadcast("ping", pattern="rust@*", matcher="glob", **ask)
    assert only(matched) == {"ok": "pong"}
    matched = app.control.broadcast("ping", pattern="r[u]st", matcher="pcre", **ask)
    assert only(matched) == {"ok": "pong"}


def check_inspect():
    ran = call("rs.add", 1, 1).get(timeout=PATIENCE)
    assert ran == 2
    held = call("rs.hold", "inspect")
    active = eventually(lambda: inspect().active()[NODE])
    assert [task["id"] for task in active] == [held.id]
    assert active[0]["name"] == "rs.hold"
    assert active[0]["delivery_info"]["routing_key"] == QUEUE
    assert set(active[0]) == {
        "id", "name", "args", "kwargs", "type", "hostname", "time_start", "acknowledged",
        "delivery_info", "worker_pid",
    }
    assert inspect().query_task(held.id)[NODE][held.id][0] == "active"
    assert inspect().reserved()[NODE] == []
    assert isinstance(inspect().scheduled()[NODE], list)
    registered = inspect().registered()[NODE]
    assert "rs.add" in registered and registered == sorted(registered)
    stats = inspect().stats()[NODE]
    assert stats["total"]["rs.add"] >= 1
    assert stats["pool"]["max-concurrency"] > 0
    assert stats["broker"]["transport"] == "amqp"
    assert isinstance(stats["clock"], str) and stats["rusage"]["maxrss"] > 0
    (queue,) = inspect().active_queues()[NODE]
    assert queue["name"] == QUEUE and len(queue) == 18
    assert inspect().conf()[NODE]["task_default_queue"] == QUEUE
    assert "celeriac" in inspect().report()[NODE]["ok"]
    assert inspect().clock()[NODE]["clock"] > 0
    hello = inspect().hello("other@host", revoked={})[NODE]
    assert isinstance(hello["revoked"], list) and hello["clock"] > 0
    assert held.id not in inspect().revoked()[NODE]
    call("rs.release", "inspect").get(timeout=PATIENCE)
    assert held.get(timeout=PATIENCE) == "inspect"


def check_revoke_before_it_runs():
    task_id = str(uuid.uuid4())
    told = only(app.control.revoke(task_id, **ask))
    assert told == {"ok": "tasks {'%s'} flagged as revoked" % task_id}, told
    assert task_id in inspect().revoked()[NODE]
    result = call("rs.add", 1, 1, task_id=task_id)
    try:
        result.get(timeout=PATIENCE)
    except TaskRevokedError as error:
        assert "revoked" in str(error)
    else:
        raise AssertionError("it ran")
    assert result.state == "REVOKED"


def check_terminate_what_runs():
    held = call("rs.hold", "terminate")
    eventually(lambda: [it for it in inspect().active()[NODE] if it["id"] == held.id])
    told = only(app.control.revoke(held.id, terminate=True, signal="SIGKILL", **ask))
    assert told == {"ok": f"terminate: {held.id}"}, told
    try:
        held.get(timeout=PATIENCE)
    except TaskRevokedError:
        pass
    else:
        raise AssertionError("it ended by itself")
    told = only(app.control.terminate("nobody", **ask))
    assert told == {"ok": "terminate: tasks unknown"}, told


def check_revoke_many_and_quietly():
    ids = [str(uuid.uuid4()) for _ in range(3)]
    app.control.revoke(ids)
    eventually(lambda: set(ids) <= set(inspect().revoked()[NODE]))
    told = only(app.control.revoke_by_stamped_headers({"tenant": ["a", "b"]}, **ask))
    expected = "headers {'tenant': ['a', 'b']} flagged as revoked, but not terminated"
    assert told == {"ok": expected}, told


def check_limits():
    told = only(app.control.rate_limit("rs.greet", "100/s", **ask))
    assert told == {"ok": "new rate limit set successfully"}, told
    told = only(app.control.rate_limit("rs.greet", None, **ask))
    assert told == {"ok": "rate limit disabled successfully"}, told
    assert only(app.control.rate_limit("nope", "1/s", **ask)) == {"error": "unknown task"}
    told = only(app.control.rate_limit("rs.greet", "fast", **ask))
    assert told["error"].startswith("Invalid rate limit string: "), told
    told = only(app.control.time_limit("rs.greet", soft=60, hard=120, **ask))
    assert told == {"ok": "time limits set successfully"}, told


def check_pool():
    before = inspect().stats()[NODE]["pool"]["max-concurrency"]
    assert only(app.control.pool_grow(2, **ask)) == {"ok": "pool will grow"}
    assert inspect().stats()[NODE]["pool"]["max-concurrency"] == before + 2
    assert only(app.control.pool_shrink(1, **ask)) == {"ok": "pool will shrink"}
    assert inspect().stats()[NODE]["pool"]["max-concurrency"] == before + 1
    told = only(app.control.autoscale(4, 2, **ask))
    assert told == {"error": "ValueError('Autoscale not enabled')"}, told


def check_consumers():
    told = only(app.control.add_consumer("extra", **ask))
    assert told == {"ok": "add consumer extra"}, told
    with app.connection_for_write() as connection:
        sent = app.send_task(
            "rs.add", args=(20, 1), connection=connection, exchange="", routing_key="extra"
        )
        assert sent.get(timeout=PATIENCE) == 21
    told = only(app.control.cancel_consumer("extra", **ask))
    assert told == {"ok": "no longer consuming from extra"}, told
    assert [queue["name"] for queue in inspect().active_queues()[NODE]] == [QUEUE]


def check_errors():
    told = only(app.control.broadcast("frobnicate", **ask))
    assert told == {"error": "KeyError('frobnicate')"}, told
    told = only(app.control.broadcast("enable_events", arguments={"x": 1}, **ask))
    expected = "TypeError(\"enable_events() got an unexpected keyword argument 'x'\")"
    assert told == {"error": expected}, told


def check_command_line():
    for command, expected in [
        (["inspect", "-t", "5", "ping"], "pong"),
        (["inspect", "-t", "5", "active"], NODE),
        (["inspect", "-t", "5", "stats"], "prefetch_count"),
        (["inspect", "-t", "5", "registered"], "rs.add"),
        (["inspect", "-t", "5", "active_queues"], QUEUE),
        (["status", "-t", "5"], NODE),
        (["control", "-t", "5", "rate_limit", "rs.greet", "10/m"], "new rate limit set"),
        (["control", "-t", "5", "pool_grow", "1"], "pool will grow"),
    ]:
        code, output = celery(*command)
        assert code == 0 and expected in output, f"{command}: {code}\n{output}"
    code, output = celery("inspect", "-t", "1", "-d", "nobody@nowhere", "ping")
    assert code != 0, output


def check_shutdown():
    app.control.shutdown(destination=[NODE])
    eventually(lambda: app.control.ping(timeout=0.5) == [])


sys.exit(run(dict(globals())))
