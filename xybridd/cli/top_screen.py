"""The live screen: polls on a thread, keys in, lines out. What it shows is `top_state`, how it looks `top_page`.

It paints in the terminal's own colours and on its own background; nothing depends on a colour alone. When the daemon
goes, what was known stays there with a line that says so, and a new connection is tried with every poll.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

from rich.console import Group
from rich.text import Text
from textual import work
from textual.app import App
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.widgets import Input, Static

from xybridd.cli.output import daemon, span
from xybridd.cli.table import grid
from xybridd.cli.top import poll
from xybridd.cli.top_page import HELP, KEYS, NOTHING, columns, device_lines, title
from xybridd.cli.top_state import SORTS, WINDOWS_S, Poll, TopState
from xybridd.errors import XybriddError

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.events import Resize

    from xybridd.client.connection import Connection

#: The device is looked at less often than the counts: its sensors cost something to read.
_DEVICE_EVERY_S = 2.0


class TopScreen(App[None]):
    CSS = """
    Screen { background: ansi_default; color: ansi_default; }
    #head, #device, #keys, #said { height: auto; }
    #body { height: 1fr; scrollbar-size-vertical: 1; background: ansi_default; }
    #filter { height: 1; border: none; padding: 0; background: ansi_default; display: none; }
    #keys { dock: bottom; height: 1; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[Any]] = [
        Binding("q", "quit", priority=False),
        Binding("ctrl+c", "interrupt", priority=True),
        Binding("s", "sort"),
        Binding("r", "reverse"),
        Binding("w", "window"),
        Binding("p,space", "pause"),
        Binding("slash", "filter"),
        Binding("question_mark,h", "help"),
        Binding("escape", "away", priority=True),
    ]

    def __init__(self, connection: Connection, *, window_s: int, sort: str, wanted: str, every_s: float) -> None:
        super().__init__(ansi_color=True)
        self.state = TopState()
        self.window_s = window_s
        self.sort = sort
        self.wanted = wanted
        self.backwards = False
        self.paused = False
        self.helping = False
        #: Since when nobody answers, by the monotonic clock, and what the error said.
        self.gone_since_s: float | None = None
        self.gone_why = ""
        self._connection: Connection | None = connection
        self._every_s = every_s
        self._device_due_s = 0.0
        self._polling = False
        self._left = False

    def compose(self) -> ComposeResult:
        yield Static(id="head")
        yield Static(id="device")
        yield Static(id="said")
        with VerticalScroll(id="body"):
            yield Static(id="table")
        yield Input(placeholder="words in the name of the app or the model; Enter keeps it", id="filter")
        yield Static(id="keys")

    def on_mount(self) -> None:
        self.theme = "ansi-dark"
        self.query_one("#body").focus()
        self.show()
        self._poll()
        self.set_interval(self._every_s, self._poll)

    def on_unmount(self) -> None:
        self._left = True
        if self._polling:  # the poll is told, and hangs up itself
            if self._connection is not None:
                self._connection.break_off()
        else:
            self._hang_up()

    # Polls

    @work(thread=True, exclusive=False, exit_on_error=False)
    def _poll(self) -> None:
        """One at a time: what is slow is waited for, not asked again."""
        if self.paused or self._polling:
            return
        self._polling = True
        try:
            self.call_later(self._take, *self._asked())
        finally:
            self._polling = False
            if self._left:
                self._hang_up()

    def _asked(self) -> tuple[Poll | None, str]:
        """What the daemon says, or why it does not."""
        try:
            if self._connection is None:
                self._connection = daemon()
            due = time.monotonic() >= self._device_due_s
            found = poll(self._connection, self.state, device=due)
        except XybriddError as error:
            self._hang_up()
            return None, str(error)
        if due:
            self._device_due_s = time.monotonic() + _DEVICE_EVERY_S
        return found, ""

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _take(self, found: Poll | None, why: str) -> None:
        if found is None:
            if self.gone_since_s is None:
                self.gone_since_s = time.monotonic()
                self.state.forget_rates()
            self.gone_why = why
        else:
            self.gone_since_s = None
            if not self.paused:
                self.state.take(found)
        self.show()

    # What is seen

    def on_resize(self, _event: Resize) -> None:
        self.show()

    def show(self) -> None:
        width = max(20, self.size.width)
        more = [f"by {self.sort}{' turned' if self.backwards else ''}"]
        more += [f"filter: {self.wanted}"] if self.wanted else []
        more += ["paused"] if self.paused else []
        self._put("#head", title(self.state, self.window_s, width, more))
        self._put("#device", Group(*device_lines(self.state, width)))
        self._put("#said", self._said(width))
        self._put("#keys", Text(next((keys for keys in KEYS if len(keys) <= width), KEYS[-1]), style="dim"))
        self._put("#table", self._help() if self.helping else self._table(width - 1))

    def _put(self, name: str, what: Any) -> None:
        self.query_one(name, Static).update(what)

    def _said(self, width: int) -> Text:
        if self.gone_since_s is None:
            return Text("")
        ago = span(time.monotonic() - self.gone_since_s)
        line = Text(f"no daemon answers for {ago}; it is tried every second: {self.gone_why}", style="bold red")
        line.truncate(width, overflow="ellipsis")
        return line

    def _table(self, width: int) -> Any:
        if not self.state.at_ms:
            return Text("…")
        rows = self.state.rows(self.window_s, self.sort, self.wanted, backwards=self.backwards)
        if not rows:
            return Text(f"nothing with {self.wanted!r} in its name; Esc shows all" if self.wanted else NOTHING)
        table, left_out, _ = grid(rows, columns(self.state), width)
        return Group(table, *left_out)

    def _help(self) -> Text:
        return Text(HELP)

    # Keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """While a filter is typed, letters are letters."""
        return action in {"interrupt", "away"} or not self.query_one("#filter").has_focus

    def action_interrupt(self) -> None:
        self.exit(return_code=130)

    def action_sort(self) -> None:
        names = list(SORTS)
        self.sort = names[(names.index(self.sort) + 1) % len(names)]
        self.show()

    def action_reverse(self) -> None:
        self.backwards = not self.backwards
        self.show()

    def action_window(self) -> None:
        self.window_s = WINDOWS_S[(WINDOWS_S.index(self.window_s) + 1) % len(WINDOWS_S)]
        self.show()

    def action_pause(self) -> None:
        self.paused = not self.paused
        if not self.paused:
            self.state.forget_rates()
        self.show()

    def action_help(self) -> None:
        self.helping = not self.helping
        self.show()

    def action_filter(self) -> None:
        box = self.query_one("#filter", Input)
        box.value = self.wanted
        box.display = True
        box.focus()

    def action_away(self) -> None:
        """Esc: the help, the filter that is typed, the filter."""
        if self.helping:
            self.helping = False
        else:
            self.query_one("#filter", Input).value = ""
            self.wanted = ""
            self._close_filter()
        self.show()

    def on_input_changed(self, event: Input.Changed) -> None:
        if self.query_one("#filter").has_focus:
            self.wanted = event.value
            self.show()

    def on_input_submitted(self, _event: Input.Submitted) -> None:
        self._close_filter()

    def _close_filter(self) -> None:
        box = self.query_one("#filter", Input)
        box.display = False
        self.query_one("#body").focus()
