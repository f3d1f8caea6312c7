"""``%atasks --live``: the tasks, as they are at the moment, in a widget or in a terminal.

* ``view``: the widget; ``view.js`` and ``view.css`` are its half in the browser.
* ``loop_watch``: the thread that asks the loop, and notices when it does not answer.
* ``snapshot``: the content of the view, as plain data.
* ``terminal``: the same in a terminal.
"""
