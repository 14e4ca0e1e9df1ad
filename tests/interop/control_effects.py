"""What Celery's remote control changes in a Rust worker that runs, and that scales by itself.

As in `client.py`, every check is a function. The worker is called rust@host, has one slot at
first, and is shut down by the last check."""

import sys

from celery.exceptions import TaskRevokedError

from monitor import NODE, PATIENCE, ask, call, eventually, inspect, only, run
from proj import app

# What waits in the broker for its rate limit comes back within a minute.
LONG = 120


def active():
    return {task["id"] for task in inspect().active()[NODE]}


def is_revoked(result):
    try:
        result.get(timeout=PATIENCE)
    except TaskRevokedError:
        return True
    raise AssertionError("it ended by itself")


def check_autoscale():
    assert inspect().stats()[NODE]["autoscaler"]["max"] == 1
    held = [call("rs.hold", f"scale {n}") for n in range(3)]
    eventually(lambda: active() == {held[0].id})
    told = only(app.control.autoscale(4, 2, **ask))
    assert told == {"ok": "autoscale now max=4 min=2"}, told
    # One slot was not enough for them.
    eventually(lambda: active() == {it.id for it in held})
    scaler = inspect().stats()[NODE]["autoscaler"]
    assert (scaler["max"], scaler["min"]) == (4, 2), scaler
    for n, result in enumerate(held):
        call("rs.release", f"scale {n}").get(timeout=PATIENCE)
        assert result.get(timeout=PATIENCE) == f"scale {n}"


def check_rate_limit():
    for name in ("free", "and again"):
        assert call("rs.greet", name).get(timeout=PATIENCE) == f"hello, {name}"
    told = only(app.control.rate_limit("rs.greet", "1/h", **ask))
    assert told == {"ok": "new rate limit set successfully"}, told
    assert call("rs.greet", "first").get(timeout=PATIENCE) == "hello, first"
    second = call("rs.greet", "second")
    # It waits in the broker, and nobody else waits for it.
    eventually(lambda: inspect().stats()[NODE]["total"].get("rs.greet") == 3)
    assert call("rs.add", 1, 1).get(timeout=PATIENCE) == 2
    eventually(lambda: inspect().reserved()[NODE] == [])
    assert not second.ready()
    told = only(app.control.rate_limit("rs.greet", "100/s", **ask))
    assert told == {"ok": "new rate limit set successfully"}, told
    assert call("rs.greet", "third").get(timeout=PATIENCE) == "hello, third"
    assert second.get(timeout=LONG) == "hello, second"
    told = only(app.control.rate_limit("rs.greet", None, **ask))
    assert told == {"ok": "rate limit disabled successfully"}, told
    for name in ("free", "and again"):
        assert call("rs.greet", name).get(timeout=PATIENCE) == f"hello, {name}"


def check_time_limit():
    told = only(app.control.time_limit("rs.hold", hard=0.2, **ask))
    assert told == {"ok": "time limits set successfully"}, told
    held = call("rs.hold", "too long")
    try:
        held.get(timeout=PATIENCE)
    except Exception as error:
        assert "TimeLimitExceeded" in type(error).__name__, repr(error)
    else:
        raise AssertionError("nothing lets it go on")
    told = only(app.control.time_limit("rs.hold", **ask))
    assert told == {"ok": "time limits set successfully"}, told


def check_stamps():
    def stamped(label, tenant):
        return call("rs.hold", label, stamped_headers=["tenant"], tenant=tenant)

    revoked, kept = stamped("revoked", "a"), stamped("kept", "b")
    eventually(lambda: active() == {revoked.id, kept.id})
    headers = {"tenant": ["a", "c"]}
    told = only(app.control.revoke_by_stamped_headers(headers, terminate=True, **ask))
    assert "ok" in told and "a" in told["ok"], told
    assert is_revoked(revoked)
    assert active() == {kept.id}, "of the other tenant"
    # Neither do those run that come later.
    assert is_revoked(stamped("later", "c"))
    call("rs.release", "kept").get(timeout=PATIENCE)
    assert kept.get(timeout=PATIENCE) == "kept"


def check_shutdown():
    app.control.shutdown(destination=[NODE])
    eventually(lambda: app.control.ping(timeout=0.5) == [])


sys.exit(run(dict(globals())))
