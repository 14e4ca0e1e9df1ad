"""A Python client of Rust workers, with a Python worker beside them: every kind of workflow that
Celery's rpc backend can send, and what its results look like.

Runs like client.py: every check is a function, and the exit code says whether all held."""

import sys
import traceback
import uuid

from celery import chain, chunks, group
from celery.canvas import StampingVisitor
from celery.exceptions import TimeoutError
from celery.result import AsyncResult, GroupResult

from proj import SERIALIZER, app

JSON = SERIALIZER == "json"
PATIENCE = 30

# Celery's rpc backend refuses whatever contains a chord, because it cannot count parts. What a
# Rust worker comes to in a chain is joined without its help.
app.backend.ensure_chords_allowed = lambda: None


def sig(name, *args, **kwargs):
    return app.signature(name, args=args, kwargs=kwargs)


def rs(name, *args, **kwargs):
    return sig(f"rs.{name}", *args, **kwargs)


def py(name, *args, **kwargs):
    return sig(f"py.{name}", *args, **kwargs)


def got(result):
    return result.get(timeout=PATIENCE)


def run(signature, *args, **options):
    return got(signature.apply_async(args, **options))


def awaited(signature):
    """Freezes a signature, so that its result comes here whoever sends it."""
    result = signature.freeze()
    # Celery may lose a result that comes before anybody waits for it.
    for single in getattr(result, "results", None) or [result]:
        app.backend.add_pending_result(single)
    return result


def raised(result):
    try:
        value = result.get(timeout=PATIENCE, follow_parents=False)
    except Exception as error:
        return error
    raise AssertionError(f"expected an exception, got {value!r}")


def check_a_chain_gives_its_last_result_and_its_parents():
    result = chain(rs("add", 2, 2), rs("mul", 3), rs("power", 2)).apply_async()
    assert got(result) == 144
    assert got(result.parent) == 12 and got(result.parent.parent) == 4
    assert result.parent.parent.parent is None
    first = result.parent.parent
    assert [child.id for child in first.children] == [result.parent.id], first.children
    assert [child.id for child in result.parent.children] == [result.id]
    assert result.children == []


def check_lineage_in_a_chain():
    result = chain(rs("add", 1, 1), rs("facts")).apply_async(priority=3)
    facts = got(result)
    first = result.parent
    assert facts["parent_id"] == first.id and facts["root_id"] == first.id, facts
    assert facts["id"] == result.id and facts["args"] == [2], facts
    assert facts["priority"] == 3, facts


def check_immutable_steps_keep_their_arguments():
    step = rs("add", 1, 1)
    step.immutable = True
    assert run(chain(rs("add", 20, 20), step, rs("mul", 5))) == 10


def check_keyword_arguments_stay_in_steps():
    assert run(chain(rs("greet", "you"), rs("greet", greeting="oh"))) == "oh, hello, you"


def check_chains_of_both_languages():
    steps = [rs("add", 1, 1), py("mul", 3), rs("add", 4), py("add", 5), rs("mul", 2)]
    result = chain(*steps).apply_async()
    assert got(result) == 30
    assert got(result.parent) == 15
    assert run(chain(py("add", 1, 1), rs("add", 1))) == 3


def check_a_callback_gets_the_result():
    callback = rs("add", 100)
    called = awaited(callback)
    head = rs("add", 2, 3).apply_async(link=callback)
    assert got(head) == 5 and got(called) == 105
    assert [child.id for child in head.children] == [called.id], head.children


def check_callbacks_of_both_languages_and_immutable_ones():
    callbacks = [rs("add", 10), py("mul", 10), rs("facts", "fixed")]
    callbacks[2].immutable = True
    called = [awaited(callback) for callback in callbacks]
    head = rs("add", 2, 3).apply_async(link=callbacks)
    assert got(head) == 5
    assert got(called[0]) == 15 and got(called[1]) == 50
    facts = got(called[2])
    assert facts["args"] == ["fixed"] and facts["parent_id"] == head.id, facts
    assert facts["group"] and facts["group_index"] == 2, facts
    [children] = head.children
    assert isinstance(children, GroupResult), head.children
    assert children.id == facts["group"], (children.id, facts)
    assert [child.id for child in children.results] == [result.id for result in called]


def check_a_callback_may_be_a_chain_or_a_group():
    last = rs("mul", 2)
    callback = chain(rs("add", 1), last)
    called = awaited(callback)
    assert run(rs("add", 1, 1), link=callback) == 2
    assert got(called) == 6
    members = group(rs("add", 1), py("add", 2))
    called = awaited(members)
    assert run(rs("add", 1, 1), link=members) == 2
    assert got(called) == [3, 4]


def check_a_chain_s_link_follows_its_last_step():
    callback = rs("add", 1000)
    called = awaited(callback)
    whole = chain(rs("add", 1, 1), rs("mul", 2))
    whole.link(callback)
    assert run(whole) == 4 and got(called) == 1004


def check_errbacks_get_the_id_of_the_failed_task():
    errbacks = [rs("on_error"), py("on_error")]
    called = [awaited(errback) for errback in errbacks]
    failed = rs("boom", "kaboom").apply_async(link_error=errbacks)
    assert isinstance(raised(failed), ValueError)
    assert [got(result) for result in called] == [failed.id, failed.id]


def check_one_errback_is_a_group_too():
    errback = rs("facts")
    called = awaited(errback)
    failed = rs("boom", "kaboom").apply_async(link_error=errback)
    raised(failed)
    facts = got(called)
    assert facts["args"] == [failed.id] and facts["parent_id"] == failed.id, facts
    assert facts["root_id"] == failed.id and facts["group_index"] == 0, facts


def check_new_style_errbacks_are_called_in_the_worker():
    label = str(uuid.uuid4())
    failed = rs("boom", "kaboom").apply_async(link_error=rs("on_failure", label))
    raised(failed)
    [seen] = run(rs("failures", label))
    assert seen["id"] == failed.id and seen["task"] == "rs.boom", seen
    assert seen["error"] == "ValueError: kaboom" and "ValueError" in seen["traceback"], seen


def check_an_errback_that_fails_changes_nothing():
    failed = rs("boom", "kaboom").apply_async(link_error=rs("on_failure_panics"))
    assert isinstance(raised(failed), ValueError)


def check_errbacks_of_unknown_and_python_tasks():
    errback = rs("on_error")
    called = awaited(errback)
    failed = py("boom", "kaboom").apply_async(link_error=errback)
    raised(failed)
    assert got(called) == failed.id


def check_a_failure_reaches_all_later_steps():
    errback = rs("on_error")
    called = awaited(errback)
    whole = chain(rs("add", 1, 1), rs("fail"), rs("mul", 3), rs("add", 1))
    result = whole.apply_async(link_error=errback)
    for later in [result, result.parent, result.parent.parent]:
        error = raised(later)
        assert type(error) is ValueError and error.args == (2,), repr(error)
        assert later.state == "FAILURE"
    assert got(result.parent.parent.parent) == 2
    assert got(called) == result.parent.parent.id


def check_a_failure_in_python_reaches_later_steps_of_rust():
    result = chain(rs("add", 1, 1), py("boom"), rs("mul", 3)).apply_async()
    assert type(raised(result)) is ValueError


def check_an_unknown_step_fails_the_rest():
    result = chain(rs("add", 1, 1), rs("nowhere"), rs("add", 1)).apply_async()
    assert type(raised(result)).__name__ == "NotRegistered"


def check_groups():
    result = group(rs("power", 2, 2), rs("power", 3, 2), py("mul", 4, 4), rs("mul", 5, 2)).apply_async()
    assert got(result) == [4, 9, 16, 10]
    facts = got(group(rs("facts"), rs("facts")).apply_async())
    assert facts[0]["group"] == facts[1]["group"], facts
    assert [it["group_index"] for it in facts] == [0, 1], facts


def check_groups_of_chains():
    chains = [chain(rs("add", n, n), py("mul", 10), rs("add", 1)) for n in range(3)]
    assert got(group(chains).apply_async()) == [1, 21, 41]
    nested = group(group(rs("add", 1, 1), rs("add", 2, 2)), rs("add", 3, 3))
    assert sorted(got(nested.apply_async())) == [2, 4, 6]


def check_a_chain_may_end_in_a_group():
    result = chain(rs("add", 1, 1), group(rs("mul", 2), py("mul", 3), rs("facts"))).apply_async()
    values = got(result)
    assert values[:2] == [4, 6], values
    assert values[2]["group_index"] == 2 and values[2]["parent_id"] == result.parent.id, values
    [child] = result.parent.children
    assert isinstance(child, GroupResult) and child.id == result.id, child


def check_a_failure_reaches_the_members_of_a_later_group():
    result = chain(rs("boom", "no"), group(rs("mul", 2), rs("mul", 3))).apply_async()
    for member in result.results:
        assert type(raised(member)) is ValueError


def check_stamps_pass_through():
    whole = chain(rs("add", 1, 1), rs("stamps"))
    whole.stamp(monitoring_id="mon-1")
    assert run(whole)["monitoring_id"] == "mon-1"
    callback = rs("stamps")
    called = awaited(callback)
    head = rs("add", 1, 1)
    head.link(callback)
    head.stamp(batch="b1")
    assert run(head) == 2
    assert got(called)["batch"] == "b1"


def check_maps_and_chunks():
    assert run(rs_map("double", [1, 2])) == [2, 4]
    assert run(rs_starmap("add", [(1, 1), (2, 2)])) == [2, 4]
    whole = chunks(task=rs("add"), it=list(zip(range(5), range(5))), n=2, app=app)
    assert got(whole.apply_async()) == [[0, 2], [4, 6], [8]]


def rs_map(name, items):
    from celery.canvas import xmap

    return xmap(rs(name), items, app=app)


def rs_starmap(name, items):
    from celery.canvas import xstarmap

    return xstarmap(rs(name), items, app=app)


def check_accumulate_is_there():
    assert run(app.signature("celery.accumulate", args=(1, 2))) == [1, 2]


def check_a_map_with_a_failing_item_fails():
    error = raised(rs_map("boom", ["a", "b"]).apply_async())
    assert type(error) is ValueError and error.args == ("a",), repr(error)


def check_a_rust_task_replaces_itself():
    assert run(rs("replace_by", 2, rs("add", 40))) == 42
    assert run(rs("replace_by", 2, py("mul", 21))) == 42
    replacement = chain(rs("add", 1), py("mul", 2), rs("add", 3))
    assert run(rs("replace_by", 2, replacement)) == 9


def check_a_replaced_step_keeps_what_follows():
    callback = rs("add", 1000)
    called = awaited(callback)
    steps = chain(rs("add", 1, 1), rs("replace_by", chain(rs("mul", 5), py("add", 1))), rs("mul", 2))
    steps.link(callback)
    result = steps.apply_async()
    assert got(result) == 22 and got(called) == 1022
    assert got(result.parent) == 11, "the replaced step answers under its own id"


def check_a_replacement_keeps_errbacks():
    errback = rs("on_error")
    called = awaited(errback)
    failed = rs("replace_by", "kaboom", rs("boom")).apply_async(link_error=errback)
    assert type(raised(failed)) is ValueError
    assert got(called) == failed.id


def check_a_replaced_member_stays_in_its_group():
    replaced = rs("replace_by", 1, rs("facts"))
    values = got(group(rs("add", 1, 1), replaced).apply_async())
    assert values[0] == 2 and values[1]["group_index"] == 1, values


def check_a_python_task_is_replaced_by_a_rust_one():
    # Celery's own replacement answers to the worker, so the caller sees the step behind it.
    assert run(chain(py("replace_by", 2, rs("add", 40)), rs("mul", 2))) == 84


def check_tasks_that_call_tasks():
    result = rs("calls", 3).apply_async()
    ids = got(result)
    assert [child.id for child in result.children] == ids, result.children
    assert all(isinstance(child, AsyncResult) for child in result.children)


def check_signatures_as_arguments_and_results():
    made = run(rs("signature", 40))
    assert made["task"] == "rs.add" and run(app.signature(made), 2) == 42


def check_a_group_in_a_chain_is_joined():
    steps = chain(rs("add", 1, 1), group(rs("mul", 2), rs("mul", 3)), rs("sum"))
    assert run(steps) == 10
    members = [chain(py("mul", n), rs("add", 1)) for n in range(3)]
    result = chain(rs("add", 1, 1), group(members), py("total"), rs("double")).apply_async()
    assert got(result) == 2 * (1 + 3 + 5)
    assert got(result.parent) == 9


def check_a_joined_group_that_fails():
    errback = rs("on_error")
    called = awaited(errback)
    body = rs("sum")
    body.link_error(errback)
    result = chain(rs("add", 1, 1), group(rs("mul", 2), rs("fail")), body, rs("double")).apply_async()
    error = raised(result)
    assert type(error).__name__ == "ChordError" and "ValueError(2)" in str(error), repr(error)
    assert got(called) == result.parent.id


def check_a_replacement_by_a_group_gives_a_list():
    members = group(rs("add", 1, 1), rs("mul", 3, 3))
    assert run(rs("replace_by", members)) == [2, 9]
    steps = chain(rs("replace_by", chain(rs("add", 1, 1), group(rs("mul", 2), rs("mul", 3)))), rs("sum"))
    assert run(steps) == 10


def check_composites_called_by_name():
    whole = chunks(task=rs("add"), it=list(zip(range(5), range(5))), n=2, app=app)
    plain = dict(whole)
    call = app.send_task("celery.chunks", kwargs=plain["kwargs"])
    assert got(call) == [[0, 2], [4, 6], [8]]
    call = app.send_task("celery.chain", kwargs={"tasks": [rs("add", 1, 1), rs("mul", 5)]})
    assert got(call) == 10


def check_groups_in_the_midst_of_chains():
    numbers = group(rs("mul", 2), chain(py("mul", 3), rs("add", 1)))
    ends = group(rs("mul", 2), py("mul", 3))
    steps = chain(rs("add", 1, 1), numbers, chain(rs("sum"), py("add", 1)), ends)
    result = steps.apply_async()
    assert got(result) == [24, 36]
    assert got(result.parent) == 12 and got(result.parent.parent) == 11
    facts = got(chain(rs("add", 1, 1), numbers, rs("sum"), group(rs("facts"), rs("facts"))).apply_async())
    assert facts[0]["group"] == facts[1]["group"] and facts[0]["parent_id"], facts
    assert [it["group_index"] for it in facts] == [0, 1], facts
    behind = chain(rs("add", 1, 1), numbers, group(rs("sum"), chain(py("total"), rs("add", 1))), py("total"))
    assert run(behind) == 11 + 12


def check_a_chord_in_a_header():
    inner = chain(group(rs("mul", 2), rs("mul", 3)), rs("sum"))
    assert run(chain(rs("add", 1, 1), group(inner, rs("add", 1)), py("total"))) == 10 + 3
    deeper = chain(group(inner, rs("add", 2)), rs("sum"), rs("double"))
    assert run(chain(rs("add", 1, 1), group(deeper, inner), py("echo"))) == [[[28, 10]], {}]


def check_groups_of_one_and_of_none():
    assert run(chain(rs("add", 1, 1), group(rs("mul", 2)), rs("add", 1))) == 5
    assert run(chain(rs("add", 1, 1), group(), rs("add", 1))) == 3
    assert got(group(rs("add", 1, 1)).apply_async()) == [2]
    parts = group(group(rs("mul", 2)), chain(rs("mul", 3)))
    assert run(chain(rs("add", 1, 1), parts, rs("sum"))) == 10
    single = chain(rs("add", 1, 1), group(rs("mul", 2), rs("mul", 3)), group(rs("sum")))
    assert got(single.apply_async()) in (10, [10])


def check_steps_are_tried_again_and_wait_for_their_time():
    assert run(chain(rs("add", 1, 1), rs("flaky"), py("flaky"), rs("add", 1))) == 3
    later = [rs("mul", 2).set(countdown=0.5), chain(py("flaky").set(countdown=0.5), rs("flaky"))]
    body = rs("sum").set(countdown=0.5, expires=600)
    assert run(chain(rs("add", 1, 1).set(countdown=0.5), group(later), body, py("add", 1))) == 7
    retried = group(rs("flaky", 1), py("flaky", 2), rs("add", 1, 1)).apply_async()
    assert got(retried) == [1, 2, 2]


class Job(StampingVisitor):
    def on_signature(self, sig, **headers):
        return {"job": ["j1"]}


def check_stamps_reach_everything():
    def stamped(signature):
        signature.stamp(job="j1")
        return signature

    jobs = {"job": "j1"}
    assert got(stamped(group(rs("stamps", 1), py("stamps", 1))).apply_async()) == [jobs, jobs]
    for body in [rs("stamps"), py("stamps")]:
        header = group(rs("mul", 2), chain(py("mul", 3), rs("add", 1)))
        steps = chain(rs("add", 1, 1), header, body)
        # Stamps without a visitor do not reach a body in Celery.
        steps.stamp(visitor=Job())
        assert run(steps) == {"job": ["j1"]}
    header = group(rs("stamps"), chain(py("mul", 3), rs("stamps")))
    assert run(stamped(chain(rs("add", 1, 1), header, py("echo")))) == [[[jobs, jobs]], {}]
    # A task that is tried again keeps its stamps, and so do those behind it.
    assert run(stamped(chain(rs("flaky", 1), rs("stamps")))) == jobs
    assert run(stamped(chain(py("flaky", 1), rs("stamps")))) == jobs
    for task in ["boom", "replace_by"]:
        errback = rs("stamps")
        called = awaited(errback)
        args = [2, rs("boom")] if task == "replace_by" else ["kaboom"]
        failed = stamped(rs(task, *args).on_error(errback)).apply_async()
        raised(failed)
        assert got(called) == jobs, task


def check_what_rust_has_built_is_python_s_to_run():
    built = lambda kind: app.signature(run(rs("builds", kind)))
    result = built("chain").apply_async()
    assert got(result) == 13 and got(result.parent) == 12 and got(result.parent.parent) == 4
    first = result.parent.parent
    assert [child.id for child in first.children] == [result.parent.id], first.children
    assert got(built("group").apply_async()) == [2, 8, 6]
    result = built("chain of group").apply_async()
    assert got(result) == [3, 10] and got(result.parent) == 2
    [child] = result.parent.children
    assert isinstance(child, GroupResult) and child.id == result.id, child
    assert run(built("partial"), 4) == 50
    assert run(chain(rs("add", 1, 1), built("partial"), rs("add", 1))) == 31
    assert run(chain(rs("add", 1, 1), built("chord").set(immutable=True), py("mul", 2))) == 12
    assert run(built("map")) == [2, 4, 6]
    assert got(built("chunks").apply_async()) == [[2, 4], [6]]
    assert run(built("stamped")) == {"job": "j1"}


def check_the_workflows_that_a_task_sends_are_its_children():
    parts = group(rs("add", 1, 1), rs("add", 2, 2))
    sent = {
        "task": rs("add", 1, 1),
        "chain": chain(rs("add", 1, 1), py("mul", 3), rs("add", 1)),
        "group": parts,
        "chain of group": chain(rs("add", 1, 1), group(rs("mul", 2), py("mul", 3))),
        "chord": chain(parts, py("total"), rs("double")),
    }
    for kind, workflow in sent.items():
        result = rs("applies", workflow).apply_async()
        last = got(result)
        [child] = result.children
        assert child.id == last, (kind, child.id, last)
        grouped = kind in ("group", "chain of group")
        assert isinstance(child, GroupResult) == grouped, (kind, child)
        assert not grouped or len(child.results) == 2, child.results
        steps = []
        while child is not None:
            steps.append(child.id)
            child = child.parent
        # A chain's end, and before it what leads to it.
        expected = {"task": 1, "chain": 3, "group": 1, "chain of group": 2, "chord": 3}
        assert len(set(steps)) == len(steps) == expected[kind], (kind, steps)


def check_a_chord_without_its_backend_is_refused():
    body = rs("sum")
    answer = awaited(body)
    part = rs("add", 1, 1).apply_async(chord=body)
    for result in [part, answer]:
        error = raised(result)
        assert isinstance(error, NotImplementedError) and "chord" in str(error), repr(error)


def main():
    failed = 0
    # A word on the command line chooses some.
    word = sys.argv[1] if len(sys.argv) > 1 else "check_"
    checks = [it for name, it in sorted(globals().items()) if name.startswith("check_")]
    checks = [check for check in checks if word in check.__name__]
    for check in checks:
        try:
            check()
        except (Exception, TimeoutError):
            failed += 1
            print(f"{check.__name__} failed:\n{traceback.format_exc()}", file=sys.stderr)
    print(f"{len(checks)} checks, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
