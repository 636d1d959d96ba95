"""Shards behind a server that stops, is slow, answers garbage or less than it promised."""

from __future__ import annotations

import sys
import time
from functools import partial

from benchmarks.faults.server import Answer, Handler, Server, whole
from benchmarks.faults.trial import Late, Trial, wait

__all__ = ["garbage", "serve", "short", "slow", "stopped"]

SHARDS = 70
"""Requests of a training run for shards, about; before them come COMPLETE and the manifest."""
EVER = sys.maxsize
PAGE = b"<html><body>Please log in to the network first.</body></html>"


def serve(trial: Trial) -> Server:
    """A server for a trial's shards, which it reads through a cache of its own."""
    server = Server(trial.reference.shards)
    trial.stack.callback(server.mend)
    trial.stack.callback(server.stop)
    trial.settle(trial.folder, server.url)
    trial.name_one_of(server.url)
    return server


def stopped(trial: Trial) -> None:
    """The server stops at a random request, or before the first, until the command has ended."""
    server = serve(trial)
    number = trial.source.randint(0, SHARDS)
    command = trial.start()
    wait(lambda: server.served >= number, command, trial.patience)
    server.stop()
    trial.detail["after_requests"] = server.served
    trial.end(command)
    server.start()


def slow(trial: Trial) -> None:
    """Each answer is late or comes in drips; or one is very late; or none comes any more."""
    server, source = serve(trial), trial.source
    seconds, first = source.uniform(0.05, 0.3), source.randint(0, SHARDS)
    faults: dict[str, tuple[Answer, range]] = {
        "late": (partial(_late, seconds), range(EVER)),
        "drips": (partial(_drip, seconds / 10), range(EVER)),
        "pause": (partial(_late, 100 * seconds), range(first, first + 1)),
        "silence": (partial(_silent, server), range(first, EVER)),
    }
    _misbehave(trial, server, faults)


def garbage(trial: Trial) -> None:
    """Some answers, or all from one on, are noise, a page, an error, or off by one bit."""
    server, source = serve(trial), trial.source
    span = _span(trial)
    noise = source.randbytes
    faults: dict[str, Answer] = {
        "noise": lambda handler, body: whole(handler, noise(len(body))),
        "page": lambda handler, _: whole(handler, PAGE),
        "JSON": lambda handler, _: whole(handler, b"{}"),
        "nothing": lambda handler, _: whole(handler, b""),
        "bit": lambda handler, body: whole(handler, _flipped(body, source.randrange(len(body)))),
        "404": lambda handler, _: handler.send_error(404),
        "500": lambda handler, _: handler.send_error(500),
    }
    _misbehave(trial, server, {name: (fault, span) for name, fault in faults.items()})


def short(trial: Trial) -> None:
    """Some bodies, or all from one on, end early, as promised or not."""
    server, source = serve(trial), trial.source
    share, span = source.random(), _span(trial)
    faults: dict[str, tuple[Answer, range]] = {
        "as promised": (partial(_shorter, share), span),
        "unlike promised": (partial(_cut, share), span),
    }
    _misbehave(trial, server, faults)


def _span(trial: Trial) -> range:
    """A few requests, or all, from a random one on."""
    first = trial.source.randint(0, SHARDS)
    return range(first, trial.source.choice([first + trial.source.randint(1, 6), EVER]))


def _misbehave(trial: Trial, server: Server, faults: dict[str, tuple[Answer, range]]) -> None:
    name = trial.source.choice(sorted(faults))
    fault, span = faults[name]
    last = "on" if span.stop == EVER else span.stop - 1
    trial.detail |= {"fault": name, "requests": [span.start, last]}
    server.misbehave(fault, span)
    trial.run()
    if server.served <= span.start:
        raise Late
    server.mend()


def _flipped(body: bytes, place: int) -> bytes:
    return body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]


def _late(seconds: float, handler: Handler, body: bytes) -> None:
    time.sleep(seconds)
    whole(handler, body)


def _drip(seconds: float, handler: Handler, body: bytes) -> None:
    handler.tell(200, len(body))
    for first in range(0, len(body), 1 << 14):
        time.sleep(seconds)
        handler.wfile.write(body[first : first + (1 << 14)])


def _silent(server: Server, handler: Handler, body: bytes) -> None:
    server.mended.wait()
    whole(handler, body)


def _shorter(share: float, handler: Handler, body: bytes) -> None:
    whole(handler, body[: int(share * len(body))])


def _cut(share: float, handler: Handler, body: bytes) -> None:
    handler.tell(200, len(body))
    handler.wfile.write(body[: int(share * len(body))])
