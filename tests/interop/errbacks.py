"""Workflows of random shape in which tasks fail and errbacks are called: the same ones by Celery's
own worker and by a Rust worker, each with tasks of its own. The errbacks are a task that neither
calls itself, so that both publish it.

Waits until all has run that is to run, and prints what the rules say as one line of JSON; the Rust
test that has started this compares that with what was called (errbacks.rs). ERRBACKS_SEED and
ERRBACKS_SHAPES choose other shapes, and more of them."""

import copy
import json
import os
import random
import sys
import time
import uuid
from collections import Counter

from celery import chain, group
from celery.exceptions import TimeoutError

from canvas import PATIENCE, got, py, rs, sig

SEED = int(os.environ.get("ERRBACKS_SEED") or random.SystemRandom().randrange(2**32))
SHAPES = int(os.environ.get("ERRBACKS_SHAPES") or 40)
SESSION = str(uuid.uuid4())


class Shape:
    """A workflow that can be made for either worker."""

    def __init__(self, dice, path="r", depth=3, groups=True):
        kinds = ["task", "chain", "link"] + ["group"] * groups
        self.path, self.kind = path, dice.choice(kinds) if depth else "task"
        self.fails, self.errback = dice.random() < 0.3, dice.random() < 0.5
        count = dice.randint(1, 3) if self.kind != "task" else 0
        # A group that something follows would be a chord, which Celery needs another backend for.
        last = count - 1 if self.kind == "chain" else None
        ends = lambda at: groups and self.kind != "link" and (last is None or at == last)
        self.parts = [Shape(dice, f"{path}{at}", depth - 1, ends(at)) for at in range(count)]

    def build(self, prefix, world):
        parts = [part.build(prefix, world) for part in self.parts]
        if self.kind == "chain":
            built = chain(*parts)
        elif self.kind == "group":
            built = group(*parts)
        else:
            # The path is there so that no two callbacks are alike: Celery would call only one.
            built = sig(f"{prefix}.ends", world, self.path, self.fails).set(immutable=True)
            for part in parts:
                built.link(part)
        if self.errback:
            built.link_error(rs("count", f"{world} {self.path}").set(immutable=True))
        return built

    def composed(self):
        """The same as `build`, as the steps of which it then consists."""
        parts = [part.composed() for part in self.parts]
        if self.kind == "chain":
            composed = Steps("chain", parts if len(parts) == 1 else flat(parts))
        elif self.kind == "group":
            inner = parts[0].parts if len(parts) == 1 and parts[0].kind == "group" else parts
            composed = Steps("group", inner)
        else:
            composed = Steps("task", parts, fails=self.fails)
        if self.errback:
            composed.link_error(self.path)
        return composed

    def __repr__(self):
        fails = self.fails and self.kind in ("task", "link")
        inner = ", ".join(map(repr, self.parts))
        return f"{self.kind}{'!' * fails}{'e' * self.errback}({inner})"


class Steps:
    """A chain, group or task with its callbacks, as Celery's client composes it."""

    def __init__(self, kind, parts, fails=False):
        self.kind, self.parts, self.fails, self.errbacks = kind, parts, fails, []

    def link_error(self, errback):
        if self.kind == "group":
            for part in self.parts:
                part.link_error(errback)
        elif errback not in self.errbacks:
            self.errbacks.append(errback)

    def run(self, given, sender, worker):
        """Which errbacks are called how often, how many tasks run, and whether it fails.

        Who sends it composes it. The client is always Celery's, and whatever follows a task is sent
        by the worker of that task."""
        errbacks = {*given, *self.errbacks}
        calls, runs, failed = Counter(), 0, False
        if self.kind == "task":
            if self.fails:
                return Counter(errbacks), 1, True
            runs = 1
        for at, part in enumerate(spliced(self, sender) if self.kind == "chain" else self.parts):
            if self.kind == "task":
                # Callbacks have errbacks of their own only, and fail on their own.
                more = part.run((), worker, worker)
            else:
                is_later = self.kind == "chain" and at > 0
                more = part.run(errbacks, worker if is_later else sender, worker)
                failed |= more[2]
            calls, runs = calls + more[0], runs + more[1]
            if failed and self.kind == "chain":
                break
        return calls, runs, failed


def flat(parts):
    """The steps of a chain of several parts: without chains, whose errbacks their steps get."""
    steps = []
    for part in parts:
        while part.kind == "group" and len(part.parts) == 1:
            part = part.parts[0]
        if part.kind == "chain":
            for step in part.parts:
                step = copy.deepcopy(step)
                for errback in part.errbacks:
                    step.link_error(errback)
                steps += flat([step])
        else:
            steps.append(part)
    return steps


def spliced(composed, sender):
    """The steps of a chain that is sent. The one departure: Celery drops the errbacks of a chain that
    is the only part of another chain, or of a group of one in it; a Rust worker calls them."""
    if sender == "rs":
        return flat(composed.parts)
    steps = []
    for part in composed.parts:
        while part.kind == "group" and len(part.parts) == 1:
            part = part.parts[0]
        steps += spliced(part, sender) if part.kind == "chain" else [part]
    return steps


def wait_for_python(runs):
    """Its worker runs one task after the other: if nothing has run between two questions, nothing
    will run after the second one."""
    before, until = None, time.monotonic() + PATIENCE
    while time.monotonic() < until:
        now, again = got(py("ended", SESSION).apply_async())
        if now >= runs and now == before:
            return again
        before = now
    raise TimeoutError(f"Python's worker has run {now} of {runs} tasks")


def main():
    # Said first, so that a run that hangs can be made again.
    print(f"ERRBACKS_SEED={SEED} ERRBACKS_SHAPES={SHAPES}", flush=True)
    dice = random.Random(SEED)
    worlds, runs, called = [], Counter(), 0
    for number in range(SHAPES):
        shape = Shape(dice)
        for prefix in ["py", "rs"]:
            world = f"{SESSION}/{prefix}/{number}"
            calls, ended, _ = shape.composed().run((), "py", prefix)
            worlds.append({"world": world, "shape": repr(shape), "calls": calls})
            runs[prefix] += ended
            called += sum(calls.values())
            shape.build(prefix, world).apply_async()
    again, is_complete = [], True
    try:
        again = wait_for_python(runs["py"])
        got(rs("seen", SESSION, runs["rs"], called).apply_async())
    except TimeoutError:
        is_complete = False
    told = {"session": SESSION, "complete": is_complete, "again": again, "worlds": worlds}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    sys.exit(main())
