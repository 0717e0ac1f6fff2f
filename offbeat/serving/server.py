"""``offbeat serve``: answers what clients ask a policy, in one thread; questions that are there together, at once."""

from __future__ import annotations

import hmac
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from offbeat.runtime.clock import WALL, Clock
from offbeat.serving.connection import Connection, Refusal, read, shown
from offbeat.serving.listening import Listener, keep_alive
from offbeat.serving.policy import Asked, ServedPolicy

TICK_S = 1.0
"""Deadlines are looked at so often at least. Unit: seconds."""
STRANGERS = 16
"""Connections beyond the policy's places: those that have not said hello yet, and those that were refused."""


class Server:
    """Serves a policy until it is stopped.

    Each client has a place of its own, and with it recurrent state, frame stacks and a last action, which begin anew
    with it. What is wrong is answered with an error, see ``Refusal``; what closes a connection touches no other.

    Args:
        policy: what is served.
        listeners: where; they are closed at the end.
        token: what clients of listeners that are not trusted must give; empty: there are none such.
        say: is told who comes and goes, in lines.
        clock: of the deadlines.
    """

    def __init__(
        self,
        policy: ServedPolicy,
        listeners: Sequence[Listener],
        *,
        token: str = "",
        say: Callable[[str], None] = lambda line: None,
        clock: Clock = WALL,
    ) -> None:
        if not token and any(not listener.trusted for listener in listeners):
            raise ValueError("a listener that is not trusted needs a token")
        self.policy, self._token, self._say, self._clock = policy, token.encode(), say, clock
        self._listeners = list(listeners)
        self._selector = selectors.DefaultSelector()
        self._connections: list[Connection] = []
        self._free = list(range(policy.slots))
        self._wake, self._woken = socket.socketpair()
        self._stopping = False
        self.answered = self.refused = 0
        """Questions that were answered with an action, and messages that were with an error."""
        for listener in self._listeners:
            listener.socket.setblocking(False)
            self._selector.register(listener.socket, selectors.EVENT_READ, listener)
        self._selector.register(self._woken, selectors.EVENT_READ, None)

    def stop(self) -> None:
        """End ``run`` soon; from any thread, or from a signal's handler."""
        self._stopping = True
        with suppress(OSError):  # it has ended already
            self._wake.send(b".")

    @property
    def clients(self) -> int:
        """How many have a place."""
        return self.policy.slots - len(self._free)

    def run(self) -> None:
        """Serve until ``stop``; then close everything, clients with an error of code ``ending``."""
        try:
            while not self._stopping:
                self._round()
        finally:
            self._end()

    def _round(self) -> None:
        """Wait for something to happen, and answer what can be answered then."""
        waits = any(one.waits for one in self._connections)
        for key, events in self._selector.select(0 if waits else TICK_S):
            if isinstance(key.data, Listener):
                self._accept(key.data)
            elif isinstance(key.data, Connection):
                if events & selectors.EVENT_WRITE:
                    key.data.flush()
                if events & selectors.EVENT_READ:
                    key.data.receive(self._clock.now())
        asked = [(one, *question) for one in self._connections if (question := self._question(one)) is not None]
        if asked:
            self._answer(asked)
        self._look_around()

    def _accept(self, listener: Listener) -> None:
        try:
            opened, _ = listener.socket.accept()
        except OSError:  # it has gone again, or there are too many open files: the next round asks again
            return
        keep_alive(opened)
        connection = Connection(opened, trusted=listener.trusted, now=self._clock.now())
        self._connections.append(connection)
        self._selector.register(opened, selectors.EVENT_READ, connection)
        if len(self._connections) - self.clients > STRANGERS:
            self._refuse(connection, Refusal("full", "too many connections have not said hello yet; try again later"))

    def _question(self, one: Connection) -> tuple[str, float, Asked] | None:
        """(number, when it was whole, question) of the next message; whatever else it is, it is answered here."""
        number = ""
        try:
            body = one.message()
            if body is None:
                return None
            arrived = time.perf_counter()
            texts, arrays = read(body)
            number, kind = texts.get("number", "")[:20], texts.get("kind")
            if one.slot is None:
                self._greet(one, texts, number)
                return None
            if kind != "act":
                raise Refusal("request", f"a message of kind {shown(kind)}; after the hello it must be 'act'")
            return number, arrived, self.policy.read(texts, arrays)
        except Refusal as refusal:
            self._refuse(one, refusal, number)
            return None

    def _greet(self, one: Connection, texts: dict[str, str], number: str) -> None:
        """Give a place to one who says hello, and has the token if there must be one."""
        if texts.get("kind") != "hello":
            raise Refusal("protocol", f"the first message must be of kind 'hello'; it is {shown(texts.get('kind'))}")
        if not one.trusted and not hmac.compare_digest(texts.get("token", "").encode("utf-8", "replace"), self._token):
            raise Refusal("token", "the token is missing or wrong")
        if not self._free:
            raise Refusal("full", f"all {self.policy.slots} places are taken; --clients N makes more")
        one.greet(self._free.pop(0), self.policy.most_bytes)
        one.send("hello", self.policy.about | {"number": number}, {})
        self._say(f"a client came, {self.clients} of {self.policy.slots}")

    def _answer(self, asked: list[tuple[Connection, str, float, Asked]]) -> None:
        """Compute the actions of all of them at once, and send each its own."""
        slots = [one.slot for one, *_ in asked if one.slot is not None]
        questions = [_begun(one, question) for one, _, _, question in asked]
        begun = time.perf_counter()
        actions = self.policy.act(slots, questions)
        forward = time.perf_counter() - begun
        texts: dict[str, Any] = {"version": str(self.policy.version), "batch": str(len(asked))}
        texts["forward_s"] = f"{forward:.7f}"
        for (one, number, arrived, _), action in zip(asked, actions, strict=True):
            texts |= {"number": number, "server_s": f"{time.perf_counter() - arrived:.7f}"}
            self.answered += 1
            one.send("action", texts, {"action": action})

    def _refuse(self, one: Connection, refusal: Refusal, number: str = "") -> None:
        self.refused += 1
        one.refuse(refusal, number, self._clock.now())
        self._say(f"refused [{refusal.code}]: {refusal}")

    def _look_around(self) -> None:
        """Close who has gone or is too slow, and wait for what each can do next."""
        now = self._clock.now()
        for one in list(self._connections):
            if not one.gone and one.deadline is not None and now > one.deadline:
                if one.ends:
                    one.gone = True
                else:
                    self._refuse(one, Refusal("late", "a hello, or the rest of a message, has not come in time"))
            if one.ends and one.slot is not None:
                self._give_up(one)
            if one.gone:
                self._close(one)
                continue
            events = selectors.EVENT_WRITE if one.busy else 0
            events |= selectors.EVENT_READ if one.ends or not one.busy else 0
            if self._selector.get_key(one.socket).events != events:
                self._selector.modify(one.socket, events, one)

    def _give_up(self, one: Connection) -> None:
        """Its place is free for another, whose first question begins with nothing."""
        if one.slot is not None:
            self._free.append(one.slot)
            one.slot = None
            self._say(f"a client went, {self.clients} of {self.policy.slots}")

    def _close(self, one: Connection) -> None:
        self._give_up(one)
        self._selector.unregister(one.socket)
        self._connections.remove(one)
        one.close()

    def _end(self) -> None:
        """Close everything, and tell clients so."""
        for one in list(self._connections):
            if not (one.ends or one.gone):
                one.refuse(Refusal("ending", "the server ends"), "", self._clock.now())
            self._close(one)
        for listener in self._listeners:
            listener.close()
        self._selector.close()
        self._wake.close()
        self._woken.close()


def _begun(one: Connection, question: Asked) -> Asked:
    """The question as the policy is to see it: the first one of a connection starts an episode."""
    first, one.fresh = question.first or one.fresh, False
    return Asked(question.observation, first, question.reward)
