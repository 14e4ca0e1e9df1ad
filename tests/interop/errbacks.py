"""How often errbacks are called in workflows of random shape: by Celery's own worker, by a Rust worker,
and by the rules, all three of which must agree. Both workers run the same workflows under names of
their own; the errbacks are a task that neither calls itself, so that both publish it."""

import random
import sys
import time
import uuid
from collections import Counter

from celery import chain, group

from canvas import got, rs, sig

PATIENCE = 60
SEED = 1
SHAPES = 25


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

    def build(self, world):
        parts = [part.build(world) for part in self.parts]
        if self.kind == "chain":
            built = chain(*parts)
        elif self.kind == "group":
            built = group(*parts)
        else:
            built = sig(f"{world.prefix}.{'boom' if self.fails else 'echo'}", self.path)
            built.set(immutable=True)
            for part in parts:
                built.link(part)
        if self.errback:
            built.link_error(rs("count", f"{world.run} {self.path}").set(immutable=True))
        return built

    def expected(self, given=()):
        """The calls of errbacks, and whether the workflow fails."""
        errbacks = [*given, self.path] if self.errback else [*given]
        calls = Counter()
        if self.kind == "chain":
            for part in self.parts:
                more, failed = part.expected(errbacks)
                calls += more
                if failed:
                    return calls, True
            return calls, False
        if self.kind == "group":
            each = [part.expected(errbacks) for part in self.parts]
            return sum((more for more, _ in each), calls), any(failed for _, failed in each)
        if self.fails:
            return Counter(errbacks), True
        # Callbacks have errbacks of their own only, and fail on their own.
        return sum((part.expected()[0] for part in self.parts), calls), False

    def __repr__(self):
        fails = self.fails and self.kind in ("task", "link")
        inner = ", ".join(map(repr, self.parts))
        return f"{self.kind}{'!' * fails}{'e' * self.errback}({inner})"


class World:
    def __init__(self, prefix):
        self.prefix, self.run = prefix, str(uuid.uuid4())

    def counts(self):
        counted = got(rs("counted", self.run).apply_async())
        return {label.split()[1]: times for label, times in counted.items()}


def main():
    # Not another one each time: one of 25 random shapes may be of the kind in which we depart from
    # Celery (a chain within a chain that is a callback, docs/decisions, errbacks of bodies).
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else SEED
    print("seed", seed, flush=True)
    dice = random.Random(seed)
    runs = []
    for number in range(SHAPES):
        shape = Shape(dice, f"{number}/")
        worlds = [World("py"), World("rs")]
        for world in worlds:
            shape.build(world).apply_async()
        runs.append((shape, dict(shape.expected()[0]), worlds))
    until = time.monotonic() + PATIENCE
    wrong = [None]
    while wrong and time.monotonic() < until:
        seen = [(shape, rules, [it.counts() for it in worlds]) for shape, rules, worlds in runs]
        wrong = [it for it in seen if it[2] != [it[1], it[1]]]
    # Where Celery departs from the rules, it is Celery that counts; and a task that is delivered
    # twice may call its errbacks twice.
    for shape, rules, counts in wrong:
        print(f"{shape}\n  rules {rules}\n  celery, celeriac {counts}")
    wrong = [it for it in wrong if set(it[2][0]) != set(it[2][1])]
    for shape, rules, counts in wrong:
        print(f"{shape}\n  rules {rules}\n  celery, celeriac {counts}", file=sys.stderr)
    calls = sum(sum(rules.values()) for _, rules, _ in runs)
    print(f"{SHAPES} workflows, {calls} calls of errbacks, {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
