"""Chords of random shape in which tasks fail and errbacks are called: the same ones by Celery's own
worker, which counts parts in Redis, and by a Rust worker, which gets them as signatures and sends
them itself. The errbacks are a task that neither calls itself, so that both publish it.

Waits until all of Celery's have ended, and prints as one line of JSON what has run of them; the Rust
test that has started this waits until as much has run of the others, and compares what was called
(errbacks.rs). ERRBACKS_SEED and ERRBACKS_SHAPES choose other shapes, and more of them."""

import json
import os
import random
import sys
import time
import uuid

from celery import chain, chord, group

from canvas import PATIENCE, got, py, rs, sig

SEED = int(os.environ.get("ERRBACKS_SEED") or random.SystemRandom().randrange(2**32))
SHAPES = int(os.environ.get("ERRBACKS_SHAPES") or 40)
SESSION = str(uuid.uuid4())


class Shape:
    """A workflow that can be made for either worker.

    Left out is what differs on purpose, or because Celery does not go on; the record of decisions
    about errbacks of bodies has the reasons."""

    def __init__(self, dice, path="r", kinds=("task",), within=False):
        self.path, self.kind = path, dice.choice(kinds)
        self.fails, self.errback = dice.random() < 0.2, dice.random() < 0.5
        count, inner = dice.randint(1, 3), ("task",)
        self.body = None
        if self.kind in ("chord", "piped"):
            inner = ("task", "tasks")
            bodies = ("task",) + ("tasks",) * (not within) + ("group",) * (self.kind == "chord")
            self.body = Shape(dice, f"{path}b", bodies)
        elif self.kind == "task":
            count = 0
        elif self.kind == "tasks":
            count += 1
        self.parts = [Shape(dice, f"{path}{at}", inner) for at in range(count)]
        if self.kind == "chain":
            self.parts.append(Shape(dice, f"{path}{count}", ("chord",), within=True))

    def build(self, prefix, world):
        parts = [part.build(prefix, world) for part in self.parts]
        if self.kind == "chord":
            built = chord(parts, self.body.build(prefix, world))
        elif self.kind == "piped":
            body = self.body.build(prefix, world)
            built = chord(parts, body) | self.task(prefix, world)
        elif self.kind in ("chain", "tasks"):
            built = chain(*parts)
        elif self.kind == "group":
            built = group(*parts)
        else:
            built = self.task(prefix, world)
        if self.errback:
            built.link_error(rs("count", f"{world} {self.path}").set(immutable=True))
        return built

    def task(self, prefix, world):
        return sig(f"{prefix}.ends", world, self.path, self.fails).set(immutable=True)

    def __repr__(self):
        fails = self.fails and self.kind == "task"
        inner = ", ".join(map(repr, self.parts)) + (f" | {self.body}" if self.body else "")
        return f"{self.kind}{'!' * fails}{'e' * self.errback}({inner})"


def ended():
    """How many tasks Celery's worker has run when all has ended: it runs one after the other, and
    sends what follows, so nothing more will run if nothing has between two questions. (Whoever waits
    for a step behind a body that cannot run is never told by Celery.)"""
    before, until = None, time.monotonic() + PATIENCE
    while time.monotonic() < until:
        now, again = got(py("ended", f"{SESSION}-py").apply_async())
        if now == before:
            return now, again
        before = now
    raise TimeoutError(f"Python's worker does not end: {now} tasks")


def main():
    # Said first, so that a run that hangs can be made again.
    print(f"ERRBACKS_SEED={SEED} ERRBACKS_SHAPES={SHAPES}", flush=True)
    dice = random.Random(SEED)
    shapes = [Shape(dice, kinds=("chord", "chain", "piped")) for _ in range(SHAPES)]
    for at, shape in enumerate(shapes):
        shape.build("py", f"{SESSION}-py/{at}").apply_async()
        rs("applies", shape.build("rs", f"{SESSION}-rs/{at}")).apply_async()
    count, again = ended()
    told = {"session": SESSION, "ended": count, "again": again, "shapes": list(map(repr, shapes))}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    sys.exit(main())
