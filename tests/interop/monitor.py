"""What the checks of control, events and Flower share: calls, patience, the order of checks."""

import sys
import time
import traceback

from proj import app

NODE = "rust@host"
PATIENCE = 60
# Generous, because the whole wait ends with the only reply.
ask = {"reply": True, "timeout": PATIENCE, "limit": 1}


def call(name, *args, **options):
    return app.send_task(name, args=args, **options)


def only(replies):
    assert len(replies) == 1, replies
    assert list(replies[0]) == [NODE], replies
    return replies[0][NODE]


def inspect():
    return app.control.inspect(destination=[NODE], timeout=PATIENCE, limit=1)


def eventually(probe):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = probe()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("the deadline has passed")


def run(checks):
    """Runs the functions called check_…, in their order, and tells which do not hold."""
    failed = []
    checks = [it for name, it in checks.items() if name.startswith("check_")]
    for check in checks:
        try:
            check()
        except Exception:
            failed.append(f"{check.__name__}\n{traceback.format_exc()}")
    print("\n".join(failed) or f"{len(checks)} checks hold")
    sys.stdout.flush()
    return 1 if failed else 0
