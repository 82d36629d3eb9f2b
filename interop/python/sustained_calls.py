"""Calls without pause, one at a time in each session, until a command comes.

As in ``../typescript/shared/sustained-calls.mjs``, a ``call`` event reports each call, and a
``notification`` event each notification of the server. The test decides which calls may fail.
"""

import random
import time
from collections.abc import Callable
from typing import Any

import anyio
import httpx2
from mcp import Client

NOTIFICATION_TIMEOUT_SECONDS = 20.0
"""The longest time that the last notification takes to arrive."""

Emit = Callable[..., None]


class LostRequestTransport(httpx2.AsyncHTTPTransport):
    """Returns a response for a request that was lost with its connection (RFC 9112 section 9.3.1).

    The SDK has no error for a single request without a response: the exception would end the whole
    client.
    """

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            return await super().handle_async_request(request)
        except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError) as error:
            message = f"lost with its connection: {type(error).__name__}: {error}"
            lost = {"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": message}}
            return httpx2.Response(502, json=lost, request=request)


class NotificationReporter:
    """Reports each notification of the server as an event."""

    def __init__(self, session: str, emit: Emit) -> None:
        self._session = session
        self._emit = emit
        self._latest_mark: str | None = None
        self._changed = anyio.Event()

    def options(self) -> dict[str, Any]:
        """Arguments of ``Client``."""
        return {"message_handler": self._report}

    async def _report(self, message: Any) -> None:
        # The SDK passes failures of the transport, too.
        if getattr(message, "method", None) == "notifications/message":
            self._emit("notification", session=self._session, data=message.params.data)
            self._latest_mark = message.params.data["mark"]
            self._changed.set()
            self._changed = anyio.Event()

    async def until(self, mark: str) -> None:
        """Waits for the notification with this mark. The test reports a missing one."""
        with anyio.move_on_after(NOTIFICATION_TIMEOUT_SECONDS):
            while self._latest_mark != mark:
                await self._changed.wait()


class SustainedCaller:
    """Calls in one session until an event is set."""

    def __init__(
        self,
        session: str,
        client: Client,
        notifications: NotificationReporter,
        emit: Emit,
        describe: Callable[[BaseException], str],
    ) -> None:
        self._session = session
        self._client = client
        self._notifications = notifications
        self._emit = emit
        self._describe = describe

    async def run(self, finished: anyio.Event) -> None:
        number = 0
        while not finished.is_set():
            await anyio.sleep(0.02 + random.random() * 0.1)
            await self._call(number)
            number += 1
        # There are no more faults: the last call succeeds, and its notification arrives.
        await self._notifications.until(await self._call(number))

    async def _call(self, number: int) -> str:
        mark = f"{self._session}.{number}"
        delay = random.randrange(60) if number % 2 == 0 else 0
        arguments = {"mark": mark, "whose": True, "announce": True, "ms": delay}
        start = unix_milliseconds()
        try:
            result = await self._client.call_tool("test_stamp", arguments)
            outcome = {"text": result.content[0].text}
        except Exception as error:
            outcome = {"error": self._describe(error)}
        # Rounded up, so that the period contains the call.
        self._emit("call", session=self._session, mark=mark, start=start, end=unix_milliseconds() + 1, **outcome)
        return mark


def unix_milliseconds() -> int:
    return int(time.time() * 1000)
