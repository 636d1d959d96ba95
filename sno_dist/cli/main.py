"""The command group, and how errors reach the user."""

from __future__ import annotations

import atexit
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

import click

from sno_dist import __version__
from sno_dist.cli import stages
from sno_dist.cli.config import config
from sno_dist.cli.doctor import doctor
from sno_dist.cli.inspect import inspect
from sno_dist.cli.plan import plan
from sno_dist.errors import Preempted, SnoError
from sno_dist.runtime.launcher import parent

__all__ = ["commands", "guarded", "main"]

INTERRUPTED, UNREAD = 130, 141  # 128 + SIGINT and SIGPIPE, as a shell reports them


class InOrder(click.Group):
    """A group that lists its commands in the order of the data flow."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order they were added."""
        del ctx
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> object:
        """Call a command; click itself would end the process where its output is not read."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise _ReaderGoneError from None


class _ReaderGoneError(Exception):
    """Who read our output has gone, as in `sno-dist config schema | head -n 1`."""


@click.group(
    cls=InOrder,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="sno-dist")
@click.pass_context
def commands(context: click.Context) -> None:
    """One generative model over many probability distributions.

    Five stages, each of which leaves an artifact on disk; the same command resumes or skips.

    \b
      sno-dist run -c configs/digits.yaml
      sno-dist run -c configs/digits.yaml training.steps=500 seed=1
      accelerate launch --config_file launch/accelerate/one_machine.yaml --num_processes 2 \\
        -m sno_dist run -c configs/digits.yaml
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (*stages.COMMANDS, config, plan, inspect, doctor):
    commands.add_command(command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    parent()  # remembered before torch is read, which takes seconds
    guarded(lambda: commands.main(arguments, prog_name="sno-dist", standalone_mode=False))


def guarded(action: Callable[[], int | None]) -> NoReturn:
    """Run `action` and exit: 0 or what it returns, and one line on stderr for a known error."""
    code = 0
    try:
        code = action() or 0
    except SnoError as error:
        code = _tell(str(error), error.exit_code)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "sno-dist"
        code = _tell(f"{error.format_message()} | do: {path} --help", error.exit_code)
    except click.ClickException as error:
        code = _tell(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        code = _tell("interrupted; the same command resumes", INTERRUPTED)
    except _ReaderGoneError:
        # Nothing is left to tell anyone, nor may what is buffered be written at the end.
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        code = UNREAD
    except Exception:
        if not _in_contact():
            raise
        # A bug, told whole. An interpreter that goes down by itself may wait for ranks that wait
        # for this one.
        traceback.print_exc()
        code = 1
    _end(code)


def _end(code: int) -> NoReturn:
    """Exit; a rank in touch with others without the interpreter's teardown.

    In that, threads of gloo that are still there abort the process now and then, and the launcher
    takes a run that is done for one that failed. A rank that fails does not take leave of others,
    which may be waiting for it elsewhere: the launcher sees that it has gone, and ends them.
    """
    if _in_contact():
        if code in (0, Preempted.exit_code):
            from sno_dist.runtime.accelerator import leave

            leave()
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _in_contact() -> bool:
    """Whether this process is one rank of a process group."""
    distributed = sys.modules.get("torch.distributed")  # not imported for this alone
    return distributed is not None and distributed.is_initialized()


def _tell(message: str, code: int) -> int:
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    rank = f"[rank {os.environ.get('RANK', '?')}] " if several else ""
    click.echo(f"{rank}error: {' '.join(message.split())}", err=True)
    return code
