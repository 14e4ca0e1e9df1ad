"""A Python client of a Rust worker: calls its tasks and checks what comes back.

Every check is a function; the names of those that fail are printed with what they found, and the
exit code says whether all held."""

import datetime
import decimal
import json
import math
import sys
import traceback
import uuid

from celery import states
from celery.exceptions import NotRegistered, TaskRevokedError, TimeoutError

from proj import QUEUE, SERIALIZER, app

JSON = SERIALIZER == "json"
PATIENCE = 30


def call(name, *args, **options):
    kwargs = options.pop("kwargs", None)
    return app.send_task(name, args=args, kwargs=kwargs, **options)


def echo(value, **options):
    return call("rs.echo", value, **options).get(timeout=PATIENCE)


def raised(result):
    try:
        value = result.get(timeout=PATIENCE)
    except Exception as error:
        return error
    raise AssertionError(f"expected an exception, got {value!r}")


def check_add():
    assert call("rs.add", 2, 2).get(timeout=PATIENCE) == 4


def check_keyword_arguments_and_defaults():
    assert call("rs.greet", "you").get(timeout=PATIENCE) == "hello, you"
    assert call("rs.greet", "you", "bye").get(timeout=PATIENCE) == "bye, you"
    assert call("rs.greet", kwargs={"name": "you"}).get(timeout=PATIENCE) == "hello, you"
    mixed = call("rs.greet", "you", kwargs={"greeting": "bye"})
    assert mixed.get(timeout=PATIENCE) == "bye, you"


def check_values_come_back_as_they_went():
    values = [
        None, True, False, 0, -1, 127, 128, -129, 2**31, -(2**31) - 1, 2**53 + 1, 2**63 - 1,
        -(2**63), 2**64 - 1, 0.0, -0.5, 1e300, 1e-300, 1e16, "", "a", "grüße, 世界 🎉", 'quote " \\ \n',
        [], {}, [1, [2, [3, {"a": [None]}]]], {"nested": {"list": [1, 2.5, "x", None]}}, "x" * 70000,
    ]
    for value in values:
        found = echo(value)
        assert found == value and type(found) is type(value), (value, found)


def check_big_integers():
    if JSON:
        for value in [2**64, -(2**63) - 1, 10**60]:
            assert echo(value) == value


def check_floats_that_are_not_numbers():
    assert math.isinf(echo(float("inf"))) and echo(float("-inf")) < 0
    assert math.isnan(echo(float("nan")))


def check_bytes():
    for value in [b"", b"plain", bytes(range(256))]:
        found = echo(value)
        assert found == value and type(found) is bytes, (value, found)


def check_dates_decimals_and_uuids():
    if not JSON:
        return  # Celery's MessagePack refuses them on the sending side.
    zone = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
    values = [
        datetime.datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.timezone.utc),
        datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=zone),
        datetime.datetime(2030, 1, 2, 3, 4, 5),
        datetime.date(2030, 1, 2),
        datetime.time(3, 4, 5),
        decimal.Decimal("3.1400"),
        uuid.UUID("12345678123456781234567812345678"),
    ]
    for value in values:
        found = echo(value)
        assert found == value and type(found) is type(value), (value, found)
    moment = values[0]
    found = call("rs.an_hour_later", moment).get(timeout=PATIENCE)
    assert found == moment + datetime.timedelta(hours=1), found


def check_compression():
    for method in ["gzip", "zlib", "zstd"]:
        value = ["compressible"] * 1000
        assert echo(value, compression=method) == value, method


def check_a_compression_that_is_not_spoken_fails():
    assert "x-bz2" in str(raised(call("rs.echo", 1, compression="bzip2")))


def check_failures_have_their_class():
    error = raised(call("rs.boom", "kaboom"))
    assert type(error) is ValueError and error.args == ("kaboom",), repr(error)


def check_a_rust_error_has_its_name_and_traceback():
    result = call("rs.parse", "seven")
    error = raised(result)
    assert type(error).__name__ == "ParseIntError", repr(error)
    assert error.args == ("invalid digit found in string",), error.args
    assert "ParseIntError" in result.traceback


def check_a_panic_is_a_failure():
    result = call("rs.panic")
    error = raised(result)
    assert type(error).__name__ == "Panic" and error.args == ("out of cheese",), repr(error)
    assert "main.rs" in result.traceback or "interop" in result.traceback, result.traceback


def check_wrong_arguments_are_type_errors():
    for arguments, keywords, word in [
        ((1,), {}, "'y'"),
        ((1, 2, 3), {}, "positional"),
        ((1, "x"), {}, "'y'"),
        ((1, 2), {"z": 3}, "'z'"),
    ]:
        error = raised(call("rs.add", *arguments, kwargs=keywords))
        assert type(error) is TypeError and word in str(error), repr(error)


def check_unknown_tasks_are_reported():
    error = raised(call("rs.nowhere"))
    assert isinstance(error, NotRegistered) and error.args == ("rs.nowhere",), repr(error)


def check_progress_is_seen():
    seen = []
    result = call("rs.progress", 3)
    value = result.get(timeout=PATIENCE, on_message=lambda message: seen.append(message))
    assert value == 3
    progress = [message["result"] for message in seen if message["status"] == "PROGRESS"]
    assert progress == [{"current": at, "total": 3} for at in (1, 2, 3)], seen


def check_ignored_results_do_not_come():
    result = call("rs.add", 1, 1, ignore_result=True)
    assert call("rs.add", 1, 2).get(timeout=PATIENCE) == 3
    assert result.state == states.PENDING


def check_an_expired_task_is_revoked():
    past = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=60)
    message = {"expires": past.isoformat()}
    error = raised(call("rs.add", 1, 1, headers=message))
    assert isinstance(error, TaskRevokedError) and error.args == ("expired",), repr(error)


def check_a_countdown_is_kept():
    sent = datetime.datetime.now(datetime.timezone.utc)
    ran = call("rs.now", countdown=1.5).get(timeout=PATIENCE)
    assert datetime.datetime.fromisoformat(ran) - sent >= datetime.timedelta(seconds=1.5), ran


def check_retries_are_seen_and_then_the_result():
    seen = []
    result = call("rs.flaky", 7)
    assert result.get(timeout=PATIENCE, on_message=seen.append) == 7
    retries = [message for message in seen if message["status"] == states.RETRY]
    assert len(retries) == 2, seen
    for number, message in enumerate(retries):
        assert message["traceback"].endswith(f"Retry in 0.2s: ConnectionError('try {number}')")
        error = app.backend.exception_to_python(message["result"])
        assert type(error) is ConnectionError and error.args == (f"try {number}",), repr(error)
        assert message["children"] == [[[result.id, None], None]], message


def check_a_retry_may_have_other_arguments():
    seen = []
    result = call("rs.asks_again", "run")
    assert result.get(timeout=PATIENCE, on_message=seen.append) == "run again"
    assert [message["status"] for message in seen][:1] == [states.RETRY], seen


def check_a_far_date_is_kept():
    sent = datetime.datetime.now(datetime.timezone.utc)
    ran = call("rs.now", countdown=4.2).get(timeout=PATIENCE)
    assert datetime.datetime.fromisoformat(ran) - sent >= datetime.timedelta(seconds=4.2), ran


def check_what_expires_before_it_is_due_is_revoked():
    error = raised(call("rs.add", 1, 1, countdown=3600, expires=4))
    assert isinstance(error, TaskRevokedError) and error.args == ("expired",), repr(error)


def check_the_request_is_known():
    result = call("rs.request", "x", kwargs={"y": 1}, headers={"tenant": "acme"}, priority=3)
    facts = result.get(timeout=PATIENCE)
    assert facts["id"] == result.id == facts["root_id"]
    assert facts["headers"]["tenant"] == "acme", facts
    assert facts["priority"] == 3, facts
    assert facts["routing_key"] == QUEUE, facts


def check_signatures_are_values():
    signature = app.signature("rs.add", args=[1, 2], immutable=True, options={"priority": 3})
    found = echo(signature)
    assert found == json.loads(json.dumps(signature)), found
    assert app.signature(found).apply_async().get(timeout=PATIENCE) == 3


def main():
    failed = 0
    checks = [it for name, it in sorted(globals().items()) if name.startswith("check_")]
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
