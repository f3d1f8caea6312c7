"""``event`` and ``changes`` of any object with traits, without a kernel."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import ipywidgets
import pytest
from traitlets import HasTraits, Int, Unicode

import ipyrunner


class Thing(HasTraits):
    number = Int()
    text = Unicode()


def watchers(thing: HasTraits) -> int:
    return sum(len(callbacks) for names in thing._trait_notifiers.values() for callbacks in names.values())


def test_any_object_with_traits() -> None:
    async def main() -> None:
        thing = Thing()
        first, both = (
            ipyrunner.event(thing, "number"),
            asyncio.gather(*(ipyrunner.event(thing, n) for n in ("number", "text"))),
        )
        thing.number, thing.number, thing.text = 1, 2, "a"  # from the call on, though nobody awaits yet
        assert await first == 1
        assert await both == [1, "a"]
        await asyncio.sleep(0)
        assert watchers(thing) == 0

    asyncio.run(main())


def test_observers_that_somebody_has_unregistered() -> None:
    async def main() -> None:
        thing = Thing()
        event, values = ipyrunner.event(thing, "number"), ipyrunner.changes(thing, "text")
        thing.unobserve_all()
        thing.observe(print, ["number", "text"])  # with none left there is nothing to look for ours in
        event.cancel()
        await asyncio.sleep(0)
        await values.aclose()
        assert watchers(thing) == 2

    asyncio.run(main())


def test_changes_of_other_threads_wake_the_loop() -> None:
    async def main() -> None:
        thing, steps = Thing(), threading.Barrier(2, timeout=10)

        def work() -> None:
            for number in range(1, 1001):
                thing.number = number
                if number == 500:
                    steps.wait()
            steps.wait()
            thing.text = "end"

        end = ipyrunner.event(thing, "text")
        numbers = ipyrunner.changes(thing, "number")
        thread = threading.Thread(target=work)
        thread.start()
        read: list[int] = []
        while len(read) < 1000:
            read.append(await anext(numbers))
            if len(read) == 1:
                await asyncio.to_thread(steps.wait)
        assert read == [*range(1, 1001)]
        await asyncio.to_thread(steps.wait)
        assert await asyncio.wait_for(end, 10) == "end"
        thread.join()

    asyncio.run(main())


def test_latest_keeps_one() -> None:
    async def main() -> None:
        thing = Thing()
        every, latest = ipyrunner.changes(thing, "number"), ipyrunner.changes(thing, "number", latest=True)
        thing.number, thing.number = 1, 2
        assert [await anext(every), await anext(every), await anext(latest)] == [1, 2, 2]
        thing.number = 3
        assert await anext(latest) == 3

    asyncio.run(main())


def test_the_ways_out_of_an_iteration() -> None:
    async def main() -> None:
        thing = Thing()

        async def read() -> None:
            async for number in ipyrunner.changes(thing, "number"):
                if number == 1:
                    return
                raise KeyError(number)

        for number, expected in ((1, type(None)), (2, KeyError)):
            task = asyncio.create_task(read())
            await asyncio.sleep(0)
            thing.number = number
            await asyncio.wait([task])
            assert isinstance(task.exception(), expected)
            assert watchers(thing) == 0
        task = asyncio.create_task(read())
        await asyncio.sleep(0)
        assert watchers(thing) == 1
        task.cancel()
        await asyncio.wait([task])
        assert watchers(thing) == 0

        # One that has a name goes on where it was left, until it is closed.
        kept = ipyrunner.changes(thing, "number")
        thing.number = 1
        async for _ in kept:
            break
        thing.number = 4
        assert await anext(kept) == 4
        waits = asyncio.ensure_future(anext(kept))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match=r"another task is already iterating.* ipyrunner\.changes\(\) once"):
            await anext(kept)
        await kept.aclose()
        await kept.aclose()
        with pytest.raises(StopAsyncIteration):
            await waits
        assert [value async for value in kept] == []
        assert watchers(thing) == 0

        # A cancelled wait loses nothing.
        kept = ipyrunner.changes(thing, "number")
        waits = asyncio.ensure_future(anext(kept))
        await asyncio.sleep(0)
        thing.number = 5
        waits.cancel()
        await asyncio.wait([waits])
        thing.number = 6
        assert [await anext(kept), await anext(kept)] == [5, 6]

        future = ipyrunner.event(thing, "number")
        future.cancel()
        await asyncio.sleep(0)
        assert watchers(thing) == 1  # of kept

    asyncio.run(main())


def test_a_widget_that_is_closed() -> None:
    async def main() -> None:
        slider = ipywidgets.IntSlider()
        future, forgotten = ipyrunner.event(slider), ipyrunner.event(slider)
        changes = ipyrunner.changes(slider)
        slider.value = 3
        click = ipyrunner.event(slider, "max")
        slider.close()
        assert await future == 3
        assert [value async for value in changes] == [3]  # what came before is read, then it ends
        with pytest.raises(RuntimeError, match="this IntSlider was closed, so its 'max' will not come"):
            await click
        for closed in (ipyrunner.event, ipyrunner.changes):
            with pytest.raises(RuntimeError, match=r"this IntSlider is closed, .* make a new one"):
                closed(slider)
        del forgotten
        reports: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context))
        button = ipywidgets.Button()
        click = ipyrunner.event(button)
        button.close()
        while not click.done():
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # its callbacks have run
        del click, button
        gc.collect()
        assert reports == []  # a future that nobody awaits any more is no failure

    asyncio.run(main())


def test_other_events_of_widgets() -> None:
    async def main() -> None:
        button = ipywidgets.Button()
        message = ipyrunner.event(button, "msg")
        clicks = ipyrunner.changes(button)
        for _ in range(2):
            button._handle_custom_msg({"event": "click"}, [])
        assert await message == (button, {"event": "click"}, [])
        assert [await anext(clicks), await anext(clicks)] == [button, button]
        await clicks.aclose()
        assert button._click_handlers.callbacks == []
        disabled = ipyrunner.event(button, "disabled")
        button.disabled = True
        assert await disabled is True

    asyncio.run(main())


def test_mistakes() -> None:
    async def main() -> None:
        for source, name, error, message in (
            (object(), "value", TypeError, "has no traits to watch: pass a widget"),
            (asyncio.sleep, None, TypeError, "has no traits to watch"),
            (ipywidgets.IntSlider, "value", TypeError, "IntSlider is a class: pass an instance"),
            (Thing(), 5, TypeError, "has to be a string, not 5"),
            (Thing(), "nunber", ValueError, "Thing has no trait or event 'nunber'. Its traits: number, text$"),
            (Thing(), None, ValueError, "Thing has no trait or event 'value'. Its traits: number, text$"),
            (
                ipywidgets.Button(),
                "klick",
                ValueError,
                "no trait or event 'klick'. Its traits: .*disabled.*; its events: click",
            ),
        ):
            for call in (ipyrunner.event, ipyrunner.changes):
                with pytest.raises(error, match=message):
                    call(source, name)

    asyncio.run(main())
    with pytest.raises(RuntimeError, match=r"none runs here: write `await ipyrunner\.event.* %%arun"):
        ipyrunner.event(Thing(), "number")


def test_a_loop_that_was_closed_meanwhile_is_left_alone() -> None:
    thing = Thing()

    async def main() -> None:
        ipyrunner.event(thing, "number")

    asyncio.run(main())
    thing.number = 1
    assert thing.number == 1
