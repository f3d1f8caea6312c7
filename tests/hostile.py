"""Objects of the user's that raise whatever is done with them, and the cells that meet them."""

from __future__ import annotations

PRELUDE = """
import asyncio, dataclasses

@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    status: int = 500

def refuse(*args): raise REFUSAL("refused")

class Getattr(Exception):
    def __getattr__(self, name): refuse()
class Getattribute(Exception):
    def __getattribute__(self, name): refuse()
class Args(Exception):
    args = property(refuse, refuse)
class Str(Exception):
    __str__ = __repr__ = refuse
class Notes(Exception):
    __notes__ = property(refuse, refuse)
class OddNotes(Exception):
    __notes__ = 5
class Setattr(Exception):
    __setattr__ = refuse
class Traceback(Exception):
    __traceback__ = property(lambda self: None, refuse)
class ReadTraceback(Exception):
    __traceback__ = property(refuse, refuse)
class WithTraceback(Exception):
    with_traceback = add_note = refuse
class Chain(Exception):
    __cause__ = __context__ = __suppress_context__ = property(refuse, refuse)
class Class(Exception):
    __class__ = property(refuse)
class Render(Exception):
    _render_traceback_ = refuse
class Render5(Exception):
    def _render_traceback_(self): return 5
class Hash(Exception):
    __eq__ = __hash__ = refuse
class Group(ExceptionGroup):
    exceptions = property(refuse)

async def fails():
    await asyncio.sleep(0)
    raise make()

async def fails_below():
    try: await fails()
    except BaseException: raise ZeroDivisionError
"""

EXCEPTIONS = {
    name: f"{name}()"
    for name in [
        "Frozen",
        "Getattr",
        "Getattribute",
        "Args",
        "Str",
        "Notes",
        "OddNotes",
        "Setattr",
        "Traceback",
        "ReadTraceback",
        "WithTraceback",
        "Chain",
        "Class",
        "Render",
        "Render5",
        "Hash",
    ]
} | {"Group": "Group('of one', [ValueError()])"}

# Where asyncio itself reads `__class__`: asyncio.run hangs in a script too.
HANG_IN_ASYNCIO = ("Class", "Getattribute")

# Code, and the name of the error that it ends with; None: the exception's own.
CELLS = {
    "plain": ("raise make()", None),
    "await": ("await fails()", None),
    "own code": ("await asyncio.sleep(0); raise make()", None),
    "task": ("await asyncio.create_task(fails())", None),
    "context": ("await fails_below()", "ZeroDivisionError"),
    "TaskGroup": ("async with asyncio.TaskGroup() as g: g.create_task(fails())", "ExceptionGroup"),
    "asyncio.run": ("asyncio.run(fails())", None),
    "%arun": ("%arun fails()", None),
    "%%arun": ("%%arun\nawait fails()", None),
    "%%arun plain": ("%%arun\nraise make()", None),
    "%%arun --timeout": ("%%arun --timeout 60\nawait fails()", None),
    "%%arun --fresh": ("%%arun --fresh\nawait fails()", None),
    "%%arun --context": ("%%arun --context copy\nawait fails()", None),
    "%%arun --debug": ("%%arun --debug\nawait fails()", None),
    "%%arun --progress": ("%%arun --progress\nawait fails()", None),
    "%%arun --scope": ("%%arun --scope\nawait fails()", "ExceptionGroup"),
}
