"""Checks of the features that involve both a server and its client.

They are those of ``../typescript/shared/feature-checks.mjs``, in the same order and with the same
answers to the server. Each ends with a ``feature`` event, and the test compares its result.
"""

import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from mcp import types
from mcp.shared.exceptions import MCPDeprecationWarning

WATCHED = "test://watched-resource"
ARRIVAL_TIMEOUT_SECONDS = 20.0
"""The longest time that a notification or a cancellation takes to arrive."""

ANSWERS = {"username": "ada", "email": "ada@example.org", "name": "ada", "color": "blue"}
"""The user's answers, by the field of the form."""

LOG_LEVEL = "io.modelcontextprotocol/logLevel"

Emit = Callable[..., None]


class ReceivedNotifications:
    """The notifications that a client has received, in their order."""

    def __init__(self) -> None:
        self._notifications: list[Any] = []
        self._changed = anyio.Event()

    async def add(self, message: Any) -> None:
        """Adds a notification. The SDK passes failures of the transport, too, which are ignored."""
        if not isinstance(message, Exception):
            self._notifications.append(message)
            self._changed.set()
            self._changed = anyio.Event()

    def clear(self) -> None:
        """Forgets all notifications."""
        self._notifications.clear()

    def with_method(self, method: str) -> list[Any]:
        """The notifications with a method."""
        return [notification for notification in self._notifications if notification.method == method]

    async def until(self, method: str, count: int) -> None:
        """Waits until there are ``count`` notifications with a method."""
        with anyio.fail_after(ARRIVAL_TIMEOUT_SECONDS):
            while len(self.with_method(method)) < count:
                await self._changed.wait()


class FeatureHandlers:
    """The client's handlers: a model, a user, two roots, and a list of notifications."""

    def __init__(self) -> None:
        self.received = ReceivedNotifications()

    def options(self) -> dict[str, Any]:
        """Arguments of ``Client``."""
        return {
            "sampling_callback": self._sample,
            "elicitation_callback": self._elicit,
            "list_roots_callback": self._roots,
            "message_handler": self.received.add,
        }

    async def _sample(self, _context: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        content = params.messages[0].content
        if not isinstance(content, types.TextContent):
            raise ValueError("the server sent other content than text")
        text = types.TextContent(type="text", text=f"sampled: {content.text}")
        return types.CreateMessageResult(role="assistant", content=text, model="interop-python", stop_reason="endTurn")

    async def _elicit(self, _context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        if not isinstance(params, types.ElicitRequestFormParams):
            raise ValueError("the server asked for something else than a form")
        content = {field: ANSWERS[field] for field in params.requested_schema["properties"]}
        return types.ElicitResult(action="accept", content=content)

    async def _roots(self, _context: Any) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root(uri="file:///one"), types.Root(uri="file:///two")])


async def check_features(client: Any, received: ReceivedNotifications, emit: Emit) -> None:
    """Makes all checks in one session.

    From 2026-07-28 on there are no sessions: a request names its log level, and a stream of its own
    carries what a client has subscribed to. The SDK warns of features that this revision removes.
    """
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    is_stateless = client.protocol_version >= "2026-07-28"
    received.clear()

    async def call(name: str, arguments: dict[str, Any] | None = None) -> str:
        return text_of(await client.call_tool(name, arguments or {}))

    async def call_at_level(level: str, name: str) -> str:
        if is_stateless:
            return text_of(await client.call_tool(name, {}, meta={LOG_LEVEL: level}))
        await client.set_logging_level(level)
        return await call(name)

    @asynccontextmanager
    async def listening(**subscription: Any) -> AsyncIterator[None]:
        if is_stateless:
            async with client.listen(**subscription):
                yield
        else:
            yield

    progress: list[int] = []

    async def report(done: float, _total: float | None, _message: str | None) -> None:
        progress.append(round(done))

    await client.call_tool("test_tool_with_progress", {}, progress_callback=report)
    emit("feature", name="progress", result=progress)

    await call_at_level("debug", "test_tool_with_logging")
    await received.until("notifications/message", 3)
    emit("feature", name="logging", result=[message.params.data for message in received.with_method("notifications/message")])

    await call_at_level("error", "test_tool_with_logging")
    async with listening(tools_list_changed=True):
        await call("test_trigger_tool_change")
        # Notifications arrive in order: all earlier messages have arrived with this one.
        await received.until("notifications/tools/list_changed", 1)
    emit("feature", name="list_changed", result=len(received.with_method("notifications/message")))

    emit("feature", name="sampling", result=await call("test_sampling", {"prompt": "hello"}))
    emit("feature", name="elicitation", result=await call("test_elicitation", {"message": "who?"}))
    emit("feature", name="roots", result=await call("roots"))

    emit("feature", name="rounds", result=await call("test_input_required_result_multi_round"))

    if not is_stateless:
        await client.subscribe_resource(WATCHED)
    async with listening(resource_subscriptions=[WATCHED]):
        await call("update_resource", {"uri": WATCHED})
        await received.until("notifications/resources/updated", 1)
    if not is_stateless:
        await client.unsubscribe_resource(WATCHED)
    # The end of a stream is not answered: the server may learn of it after the next call.
    text_without_subscription = await poll(
        lambda: call("update_resource", {"uri": WATCHED}), lambda text: text != "sent"
    )
    updates = [str(message.params.uri) for message in received.with_method("notifications/resources/updated")]
    emit("feature", name="subscription", result=[*updates, text_without_subscription])

    await cancel(client)
    # The cancellation is a separate message, which may arrive after the next call.
    emit("feature", name="cancellation", result=await poll(lambda: call("cancelled"), bool))

    if not is_stateless:
        emit("feature", name="resumption", result=await call("test_reconnection"))


async def poll(call: Callable[[], Awaitable[str]], is_wanted: Callable[[str], bool]) -> str:
    """Calls until the result is as wanted, or the time is over. Returns the last result."""
    deadline = anyio.current_time() + ARRIVAL_TIMEOUT_SECONDS
    while not is_wanted(result := await call()) and anyio.current_time() < deadline:
        await anyio.sleep(0.05)
    return result


async def cancel(client: Any) -> None:
    """Cancels a call as soon as it has started."""
    with anyio.CancelScope() as scope:

        async def started(_done: float, _total: float | None, _message: str | None) -> None:
            scope.cancel()

        await client.call_tool("wait", {"tag": "mine"}, progress_callback=started)


def text_of(result: types.CallToolResult) -> str:
    """Returns the text of a result."""
    content = result.content[0]
    if not isinstance(content, types.TextContent):
        raise ValueError("the tool returned other content than text")
    return content.text
