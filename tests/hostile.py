"""Objects of the user's that raise whatever is done with them, and the cells that meet them."""

from __future__ import annotations

PRELUDE = """
import asyncio, dataclasses, sys

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
class Bool(Exception):
    __bool__ = __len__ = refuse
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
        "Bool",
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
    "%%arun --profile": ("%%arun --profile\nawait fails()", None),
    "%%arun --trace": ("%%arun --trace\nawait asyncio.create_task(fails())", None),
    "%%arun --scope": ("%%arun --scope\nawait fails()", "ExceptionGroup"),
}

# Where the user's code is called by others: around a cell, to display a value, in the loop. It raises as often as there
# is something in `left`.
PLACES_PRELUDE = """
shell = get_ipython()
left = []
def bad(*args, **kwargs):
    if left:
        left.pop()
        raise make()
    return args[0] if args else None
class Base(BaseException): pass
class Visitor:
    def visit(self, tree): bad(); return tree
class Shows:
    def __repr__(self): return bad() or "shown"
class Mime:
    def _repr_mimebundle_(self, **kwargs): bad(); return {"text/plain": "shown"}
class Displays:
    def _ipython_display_(self): bad()
class Del:
    def __del__(self): bad()
async def generator():
    try:
        while True: yield 1
    finally:
        await asyncio.sleep(0)
        bad()
visitor = Visitor()
"""

RAISED = {
    name: f"{name}()"
    for name in [
        "SystemExit",
        "KeyboardInterrupt",
        "GeneratorExit",
        "Base",
        "ZeroDivisionError",
        "Str",
        "Class",
        "Hash",
    ]
} | {"CancelledError": "asyncio.CancelledError()"}

# What puts it in place, and what takes it away.
PLACES = {
    hook: (f"shell.events.register('{hook}', bad)", f"shell.events.unregister('{hook}', bad)")
    for hook in ("pre_execute", "pre_run_cell", "post_execute", "post_run_cell")
} | {
    "input transformer": ("shell.input_transformers_post.append(bad)", "shell.input_transformers_post.remove(bad)"),
    "AST transformer": ("shell.ast_transformers.append(visitor)", "visitor in shell.ast_transformers and shell.ast_transformers.remove(visitor)"),
    "custom handler": ("shell.set_custom_exc((Exception,), bad)", "shell.set_custom_exc((), None)"),
    "excepthook": ("sys.excepthook = bad", "sys.excepthook = sys.__excepthook__"),
    "unraisablehook": ("sys.unraisablehook = bad", "sys.unraisablehook = sys.__unraisablehook__"),
    "exception handler": (
        "asyncio.get_event_loop().set_exception_handler(bad)", "asyncio.get_event_loop().set_exception_handler(None)"
    ),
}  # fmt: skip

# Cells that call it once, when it is in place.
CALLING_CELLS = {
    "plain": "left.append(1); 1",
    "await": "left.append(1); await asyncio.sleep(0); 1",
    "failing": "left.append(1); 1 / 0",
    "failing await": "left.append(1); await asyncio.sleep(0); 1 / 0",
    "task": "left.append(1); failed = asyncio.create_task(fails_at_once()); await asyncio.sleep(0.05)",
    "repr": "left.append(1); Shows()",
    "repr await": "await asyncio.sleep(0); left.append(1); Shows()",
    "mime": "left.append(1); Mime()",
    "mime await": "await asyncio.sleep(0); left.append(1); Mime()",
    "display": "await asyncio.sleep(0); left.append(1); Displays()",
    "del": "left.append(1); await asyncio.sleep(0); Del(); 1",
    "done callback": "left.append(1); t = asyncio.create_task(asyncio.sleep(0)); t.add_done_callback(bad); await asyncio.sleep(0.01)",
    "callback": "left.append(1); asyncio.get_running_loop().call_soon(bad); await asyncio.sleep(0.01)",
    "generator": "left.append(1)\nasync for _ in generator(): break\nawait asyncio.sleep(0.01)",
}
