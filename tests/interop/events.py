"""Celery's own monitor, `app.events`, looks at a Rust worker; as in `control.py`, every check is a
function. The worker is called rust@host, and tells nothing of tasks until it is asked."""

import os
import threading
import time

from celery.exceptions import TaskRevokedError

from monitor import NODE, PATIENCE, ask, call, eventually, only, run
from proj import app

STATE = app.events.State()
SEEN = []


def listen():
    def take(event):
        SEEN.append(event)
        STATE.event(event)

    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": take})
        receiver.capture(limit=None, timeout=None, wakeup=True)


def of(uuid):
    return [event for event in list(SEEN) if event.get("uuid") == uuid]


def told(uuid, name):
    """The one event of this task and type, once it has come."""

    def found():
        return [event for event in of(uuid) if event["type"] == name]

    return eventually(found)[-1]


def names(uuid):
    return [event["type"] for event in of(uuid)]


def check_the_worker_is_alive():
    worker = eventually(lambda: STATE.workers.get(NODE))
    eventually(lambda: worker.alive and worker.processed is not None)
    assert worker.sw_ident == "celeriac", worker.sw_ident
    assert worker.sw_sys == os.uname().sysname, worker.sw_sys
    # Celery's answer to somebody who has just begun to listen says 5.
    eventually(lambda: worker.freq == 2.0)
    assert len(worker.loadavg) == 3 and worker.active == 0, worker
    beats = [event for event in SEEN if event["type"] == "worker-heartbeat"]
    # Neither by the time zone nor by the clock of the other.
    assert all(abs(beat["timestamp"] - beat["local_received"]) < 16 for beat in beats), beats


def check_nothing_is_told_of_tasks_before_somebody_asks():
    quiet = call("rs.add", 1, 1)
    assert quiet.get(timeout=PATIENCE) == 2
    assert only(app.control.enable_events(**ask)) == {"ok": "task events enabled"}
    assert only(app.control.enable_events(**ask)) == {"ok": "task events already enabled"}
    loud = call("rs.add", 1, 2)
    told(loud.id, "task-succeeded")
    assert not of(quiet.id), of(quiet.id)


def check_success():
    sent = call("rs.add", 2, 3)
    told(sent.id, "task-succeeded")
    assert names(sent.id) == ["task-received", "task-started", "task-succeeded"]
    task = STATE.tasks[sent.id]
    assert task.state == "SUCCESS" and task.result == "5", task.as_dict()
    assert task.name == "rs.add" and task.worker.hostname == NODE
    assert task.args == "(2, 3)" and task.kwargs == "{}", task.as_dict()
    assert task.root_id == sent.id and task.parent_id is None
    assert task.retries == 0 and task.eta is None and task.expires is None
    assert 0 <= task.runtime < PATIENCE
    assert task.received <= task.started <= task.succeeded
    received = told(sent.id, "task-received")
    assert received["hostname"] == NODE and received["pid"] > 1
    assert isinstance(received["utcoffset"], float)
    clocks = [event["clock"] for event in of(sent.id)]
    assert clocks == sorted(set(clocks)), clocks


def check_what_a_task_tells_by_itself():
    sent = call("rs.tells", 3)
    told(sent.id, "task-succeeded")
    own = ["task-received", "task-started", "task-progress", "task-succeeded"]
    assert sorted(names(sent.id)) == sorted(own), names(sent.id)
    event = told(sent.id, "task-progress")
    assert (event["done"], event["of"], event["hostname"]) == (3, 10, NODE), event
    assert event["pid"] > 1 and isinstance(event["clock"], int), event
    assert abs(event["timestamp"] - event["local_received"]) < 16, event


def check_failure():
    sent = call("rs.boom", "kaboom")
    told(sent.id, "task-failed")
    task = STATE.tasks[sent.id]
    assert task.state == "FAILURE" and task.exception == "ValueError('kaboom')", task.as_dict()
    unknown = call("rs.nobody_has_it")
    assert told(unknown.id, "task-failed")["exception"] == "NotRegistered('rs.nobody_has_it')"


def check_retries():
    sent = call("rs.flaky", 7)
    told(sent.id, "task-succeeded")
    attempt = ["task-received", "task-started"]
    expected = 2 * [*attempt, "task-retried"] + [*attempt, "task-succeeded"]
    assert names(sent.id) == expected, names(sent.id)
    retried = told(sent.id, "task-retried")
    assert retried["exception"] == "ConnectionError('try 1')", retried
    assert "Retry in 0.2s" in retried["traceback"], retried
    task = STATE.tasks[sent.id]
    assert task.state == "SUCCESS" and task.retries == 2, task.as_dict()


def check_revoked_and_expired():
    sent = call("rs.hold", "revoked")
    told(sent.id, "task-started")
    app.control.revoke(sent.id, terminate=True)
    event = told(sent.id, "task-revoked")
    assert (event["terminated"], event["signum"], event["expired"]) == (True, 15, False), event
    assert STATE.tasks[sent.id].state == "REVOKED"
    late = call("rs.add", 1, 1, expires=-1)
    event = told(late.id, "task-revoked")
    assert (event["terminated"], event["signum"], event["expired"]) == (False, None, True), event
    try:
        late.get(timeout=PATIENCE)
    except TaskRevokedError:
        return
    raise AssertionError("it has run")


def check_what_is_active_is_told():
    sent = call("rs.hold", "active")
    told(sent.id, "task-started")
    eventually(lambda: STATE.workers[NODE].active == 1)
    call("rs.release", "active")
    told(sent.id, "task-succeeded")
    eventually(lambda: STATE.workers[NODE].active == 0)
    total = only(app.control.broadcast("stats", **ask))["total"]
    eventually(lambda: STATE.workers[NODE].processed == sum(total.values()))


def check_disabled():
    assert only(app.control.disable_events(**ask)) == {"ok": "task events disabled"}
    assert only(app.control.disable_events(**ask)) == {"ok": "task events already disabled"}
    quiet = call("rs.add", 1, 1)
    assert quiet.get(timeout=PATIENCE) == 2
    # As in Celery, this is for the task to say.
    tells = call("rs.tells", 4)
    assert told(tells.id, "task-progress")["done"] == 4
    assert only(app.control.enable_events(**ask)) == {"ok": "task events enabled"}
    loud = call("rs.add", 1, 2)
    told(loud.id, "task-succeeded")
    assert not of(quiet.id), of(quiet.id)
    assert names(tells.id) == ["task-progress"], names(tells.id)


def check_heartbeat_by_command():
    since = len(SEEN)
    assert only(app.control.broadcast("heartbeat", **ask)) is None

    def answer():
        return [event for event in SEEN[since:] if event.get("freq") == 5]

    event = eventually(answer)[0]
    assert event["type"] == "worker-heartbeat" and "active" not in event, event


def check_offline():
    app.control.shutdown(destination=[NODE])
    eventually(lambda: [event for event in SEEN if event["type"] == "worker-offline"])
    assert not STATE.workers[NODE].alive


def main():
    # A busy machine is no reason to lose one.
    app.conf.event_queue_ttl = PATIENCE
    threading.Thread(target=listen, daemon=True).start()
    # The first events are answers to the monitor's own question, so that it listens by then.
    eventually(lambda: SEEN)
    code = run(globals())
    # The thread that listens cannot be asked to end.
    os._exit(code)


main()
