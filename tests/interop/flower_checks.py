"""Flower looks at a Rust worker: its HTTP interface and its pages; as in `control.py`, every check
is a function. The worker is called rust@host, and tells nothing of tasks until Flower asks."""

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

from monitor import NODE, PATIENCE, call, eventually, run
from proj import QUEUE, app

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    PORT = free.getsockname()[1]


def ask(path, **form):
    """The answer to a question, or with a form to an order: its code and its text."""
    data = urllib.parse.urlencode(form).encode() if form else None
    url = f"http://127.0.0.1:{PORT}{path}"
    try:
        with urllib.request.urlopen(url, data=data, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return 0, ""


def get(path):
    code, text = ask(path)
    assert code == 200, f"{path}: {code}\n{text[-2000:]}"
    return text


def order(path, **form):
    code, text = ask(f"/api/worker/{path}/{NODE}", **form)
    assert code == 200, f"{path}: {code} {text}"
    return json.loads(text)["message"]


def worker():
    return json.loads(get(f"/api/workers?refresh=1&workername={NODE}"))[NODE]


def task(sent, state):
    """What Flower knows of a task, once that is in this state."""

    def found():
        code, text = ask(f"/api/task/info/{sent.id}")
        known = json.loads(text) if code == 200 else {}
        return known if known.get("state") == state else None

    return eventually(found)


def check_the_worker_is_listed():
    listed = eventually(lambda: json.loads(ask("/api/workers?status=1")[1] or "{}").get(NODE))
    assert listed is True, listed
    known = worker()
    assert [queue["name"] for queue in known["active_queues"]] == [QUEUE], known
    assert "rs.add" in known["registered"], known
    assert known["stats"]["pool"]["max-concurrency"] > 0, known
    assert known["conf"]["task_default_queue"] == QUEUE, known
    page = get("/workers")
    assert NODE in page, page
    rows = json.loads(get("/workers?json=1"))["data"]
    [row] = [row for row in rows if row["hostname"] == NODE]
    assert row["status"] is True and row["sw_ident"] == "celeriac", row
    assert get("/healthcheck") == "OK"


def check_tasks_are_followed():
    # Flower asks for the events of tasks every few seconds.
    def is_followed():
        sent = call("rs.add", 1, 1)
        assert sent.get(timeout=PATIENCE) == 2
        return ask(f"/api/task/info/{sent.id}")[0] == 200

    eventually(is_followed)
    done = task(call("rs.add", 2, 3), "SUCCESS")
    assert done["name"] == "rs.add" and done["args"] == "(2, 3)", done
    assert done["result"] == "5" and done["worker"] == NODE, done
    assert done["runtime"] >= 0 and done["received"] <= done["started"], done
    failed = task(call("rs.boom", "kaboom"), "FAILURE")
    assert failed["exception"] == "ValueError('kaboom')", failed
    again = task(call("rs.flaky", 7), "SUCCESS")
    assert again["retries"] == 2, again
    listed = json.loads(get("/api/tasks?taskname=rs.boom"))
    assert [it["state"] for it in listed.values()] == ["FAILURE"], listed
    assert "rs.add" in json.loads(get("/api/task/types"))["task-types"]


def check_a_running_task_is_stopped():
    sent = call("rs.hold", "flower")
    task(sent, "STARTED")
    code, text = ask(f"/api/task/revoke/{sent.id}", terminate="true")
    assert code == 200, text
    assert task(sent, "REVOKED")["name"] == "rs.hold"


def check_the_pages():
    page = get(f"/worker/{NODE}")
    for text in [NODE, QUEUE, "concurrency", "rs.add", "prefetch count", "celeriac:taskpool"]:
        assert text in page.lower(), text
    # All that Flower reads only for this page is there.
    for key in ["scheduled", "active", "reserved", "revoked", "conf", "registered", "stats"]:
        assert key in worker(), key
    sent = call("rs.add", 4, 4)
    task(sent, "SUCCESS")
    page = get(f"/task/{sent.id}")
    assert "rs.add" in page and NODE in page, page
    assert "Tasks" in get("/tasks")
    metrics = get("/metrics")
    assert f'flower_worker_online{{worker="{NODE}"}} 1.0' in metrics, metrics
    assert "flower_task_runtime_seconds" in metrics, metrics


def check_the_orders():
    assert order("pool/grow", n=2) == f"Growing '{NODE}' worker's pool by 2"
    assert order("pool/shrink", n=1) == f"Shrinking '{NODE}' worker's pool by 1"
    assert order("queue/add-consumer", queue="extra") == "add consumer extra"
    assert order("queue/cancel-consumer", queue="extra") == "no longer consuming from extra"
    code, text = ask(f"/api/worker/pool/autoscale/{NODE}", min=1, max=2)
    assert code == 403 and "Autoscale not enabled" in text, text
    code, text = ask(f"/api/worker/pool/restart/{NODE}", n=1)
    assert code == 403 and "Pool restarts not enabled" in text, text
    # Flower itself must know a task to limit it.
    limits = {"workername": NODE, "ratelimit": "10/m"}
    code, text = ask("/api/task/rate-limit/py.add", **limits)
    assert code == 403 and "unknown task" in text, text


def check_shutdown():
    assert order("shutdown", n=1) == "Shutting down!"

    def is_offline():
        return json.loads(get("/api/workers?status=1")).get(NODE) is False

    eventually(is_offline)


def main():
    command = [sys.executable, "-m", "celery", "-A", "proj", "flower"]
    command += ["--address=127.0.0.1", f"--port={PORT}", "--inspect-timeout=20000"]
    environment = {**os.environ, "FLOWER_UNAUTHENTICATED_API": "true"}
    flower = subprocess.Popen(command, env=environment)
    try:
        eventually(lambda: ask("/healthcheck")[0] == 200)
        code = run(globals())
    finally:
        flower.terminate()
        flower.wait()
    sys.exit(code)


main()
