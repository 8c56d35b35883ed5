"""What a model's server is asked, ended in time whatever it does: a name may resolve for long, bytes may trickle."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from threading import Thread
from typing import TypeVar

from clients.planner.llm.errors import ModelUnreachable

T = TypeVar("T")


def in_time(ask: Callable[[], T], seconds: float) -> T:
    """What is answered, from a thread of its own (the caller may have a loop), which is left alone if it is late.

    Raises
    ------
    ModelUnreachable
        There is no answer in time. What `ask` raises is raised here.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(ask())
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return future.result(seconds)
    except (NotInTime, TimeoutError) as error:
        raise ModelUnreachable("no answer in time") from error
