"""A client on the official Python SDK, driven by a test with one JSON object a line.

The course of a run, the settings and the events are those of the TypeScript clients;
``../README.md`` describes them. The SDK does discovery, registration, PKCE, code exchange and
refresh.

Each session has its own HTTP client and ``OAuthClientProvider``, and all share one token storage. A
provider holds a lock from the sending of a request to the arrival of the response headers, so that
sessions with a shared provider would have only one request in flight. The disadvantage: a provider
reads the storage once and does not learn from it when the tokens expire, so that every session but
the first signs in again after expiry. Test refreshing with one session.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import anyio.abc
import httpx2
from mcp import Client
from mcp.client.auth import OAuthClientProvider, TokenStorage
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthToken,
)
from pydantic import AnyUrl

from fastmcp_client import FastMcpClient
from feature_checks import FeatureHandlers, check_features
from questions import QuestionHandlers
from sustained_calls import LostRequestTransport, NotificationReporter, SustainedCaller

NAME = "interop-python"
REQUEST_TIMEOUT_SECONDS = 60.0
"""The timeout of a request: the default of the TypeScript SDKs. This SDK has none."""


def emit(event: str, **fields: Any) -> None:
    """Prints one event."""
    print(json.dumps({"event": event, **fields}), flush=True)


class Commands:
    """The commands on stdin.

    Redirects have their own queue, since the SDK may start a sign-in at any time.
    """

    _BACKLOG = 16
    """The capacity of each queue. Reading pauses while one is full."""

    def __init__(self) -> None:
        self._redirect_in, self._redirect_out = anyio.create_memory_object_stream[str](self._BACKLOG)
        self._command_in, self._command_out = anyio.create_memory_object_stream[dict[str, Any]](self._BACKLOG)

    async def read(self) -> None:
        """Distributes the lines to the queues until stdin is closed."""
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        async with self._redirect_in, self._command_in:
            while line := await reader.readline():
                command = json.loads(line)
                if "redirect" in command:
                    await self._redirect_in.send(command["redirect"])
                else:
                    await self._command_in.send(command)

    async def redirect(self) -> str:
        """The redirect at the end of a sign-in."""
        try:
            return await self._redirect_out.receive()
        except anyio.EndOfStream:
            raise EOFError("stdin was closed during a sign-in") from None

    async def next(self) -> dict[str, Any] | None:
        """The next other command, or ``None`` once stdin is closed."""
        try:
            return await self._command_out.receive()
        except anyio.EndOfStream:
            return None


@dataclass(frozen=True)
class Settings:
    """The settings of a run, read once from the environment."""

    url: str
    redirect_uri: str
    client_metadata_url: str | None
    sessions: int
    calls: int
    tool: str
    arguments: dict[str, Any]
    era: str
    interactive: bool
    feature_checks: bool
    sustained_calls: str
    questions: bool

    @classmethod
    def read(cls) -> "Settings":
        def required(name: str) -> str:
            value = os.environ.get(name, "")
            if not value:
                raise ValueError(f"{name} is not set")
            return value

        def count(name: str, minimum: int) -> int:
            value = os.environ.get(name, "1")
            if not value.isdecimal() or int(value) < minimum:
                raise ValueError(f"{name} must be a whole number of at least {minimum}")
            return int(value)

        def choice(name: str, *values: str) -> str:
            value = os.environ.get(name, values[0])
            if value not in values:
                raise ValueError(f"{name} must be one of {', '.join(values)}")
            return value

        feature_checks = choice("FEATURE_CHECKS", "0", "1") == "1"
        sustained_calls = os.environ.get("SUSTAINED_CALLS", "")
        return cls(
            url=required("MCP_URL"),
            redirect_uri=required("REDIRECT_URI"),
            client_metadata_url=os.environ.get("CLIENT_METADATA_URL") or None,
            sessions=count("SESSIONS", 1),
            calls=count("CALLS", 0),
            tool="" if feature_checks or sustained_calls else required("TOOL"),
            arguments=json.loads(os.environ.get("ARGUMENTS", "{}")),
            era=choice("ERA", "legacy", "auto", "fastmcp"),
            interactive=choice("INTERACTIVE", "0", "1") == "1",
            feature_checks=feature_checks,
            sustained_calls=sustained_calls,
            questions=choice("QUESTIONS", "0", "1") == "1",
        )


def fill_in(value: Any, session: int, call: int) -> Any:
    """A copy in which the numbers replace ``{session}`` and ``{call}`` in every string."""
    if isinstance(value, str):
        return value.replace("{session}", str(session)).replace("{call}", str(call))
    if isinstance(value, list):
        return [fill_in(item, session, call) for item in value]
    if isinstance(value, dict):
        return {key: fill_in(item, session, call) for key, item in value.items()}
    return value


class MemoryStorage(TokenStorage):
    """The tokens and the registration of this process."""

    def __init__(self) -> None:
        self._tokens: OAuthToken | None = None
        self._client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self._tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self._tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self._client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self._client = client_info


@dataclass
class SignIn:
    """Sign-ins through the test, which plays the browser."""

    settings: Settings
    commands: Commands
    storage: MemoryStorage = field(default_factory=MemoryStorage)
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    """One sign-in at a time: a command does not name the ``authorize`` event that it answers."""

    def new_provider(self) -> OAuthClientProvider:
        """The provider of one session."""
        address = ""

        async def redirect(url: str) -> None:
            nonlocal address
            address = url

        async def callback() -> AuthorizationCodeResult:
            return await self._sign_in(address)

        return OAuthClientProvider(
            server_url=self.settings.url,
            client_metadata=OAuthClientMetadata(client_name=NAME, redirect_uris=[AnyUrl(self.settings.redirect_uri)]),
            storage=self.storage,
            redirect_handler=redirect,
            callback_handler=callback,
            client_metadata_url=self.settings.client_metadata_url,
        )

    async def _sign_in(self, address: str) -> AuthorizationCodeResult:
        async with self.lock:
            emit("authorize", url=address)
            redirect = await self.commands.redirect()
        actual, expected = urlsplit(redirect), urlsplit(self.settings.redirect_uri)
        if (actual.scheme, actual.netloc, actual.path) != (expected.scheme, expected.netloc, expected.path):
            raise ValueError(
                f"the redirect goes to {actual.scheme}://{actual.netloc}{actual.path}, not to the redirect URI"
            )
        parameters = {name: values[0] for name, values in parse_qs(actual.query).items()}
        if "error" in parameters:
            reason = f"{parameters['error']} ({parameters.get('error_description', '')})"
            raise ValueError(f"authorization refused: {reason}")
        # The SDK checks `state` and `iss`.
        return AuthorizationCodeResult(
            code=parameters.get("code", ""), state=parameters.get("state"), iss=parameters.get("iss")
        )


Handlers = FeatureHandlers | NotificationReporter | QuestionHandlers


@dataclass(frozen=True)
class Session:
    """One open MCP session."""

    number: int
    client: Client | FastMcpClient
    settings: Settings
    handlers: Handlers

    async def check_features(self) -> None:
        assert isinstance(self.handlers, FeatureHandlers)
        await check_features(self.client, self.handlers.received, emit)

    async def list_tools(self) -> None:
        count, cursor = 0, None
        while True:
            page = await self.client.list_tools(cursor=cursor)
            count += len(page.tools)
            cursor = page.next_cursor
            if cursor is None:
                break
        emit("tools", session=self.number, count=count)

    async def call_all(self) -> None:
        async with anyio.create_task_group() as group:
            for call in range(self.settings.calls):
                group.start_soon(self._call, call)

    async def _call(self, call: int) -> None:
        arguments = fill_in(self.settings.arguments, self.number, call)
        try:
            result = await self.client.call_tool(self.settings.tool, arguments)
        except Exception as error:
            if not self.settings.interactive:
                raise
            emit("error", session=self.number, call=call, message=describe(error))
            return
        text = next((content.text for content in result.content if content.type == "text"), None)
        emit("result", session=self.number, call=call, text=text, isError=bool(result.is_error))


@asynccontextmanager
async def connect(
    settings: Settings, sign_in: SignIn, handlers: Handlers
) -> AsyncIterator[Client | FastMcpClient]:
    """A connected client; leaving the context ends the MCP session."""
    has_handlers = settings.feature_checks or settings.sustained_calls or settings.questions
    options = handlers.options() if has_handlers else {}
    if settings.era == "fastmcp":
        async with FastMcpClient(settings.url, sign_in.new_provider(), options) as fastmcp_client:
            yield fastmcp_client
        return
    # The timeouts are those of the SDK's own HTTP client, which does not support a sign-in. A test
    # on loopback must not use a proxy from the environment.
    timeout = httpx2.Timeout(30.0, read=300.0)
    http_transport = LostRequestTransport() if settings.sustained_calls else None
    auth = sign_in.new_provider()
    async with httpx2.AsyncClient(auth=auth, timeout=timeout, transport=http_transport, trust_env=False) as http:
        transport = streamable_http_client(settings.url, http_client=http)
        async with Client(
            transport, mode=settings.era, read_timeout_seconds=REQUEST_TIMEOUT_SECONDS, **options
        ) as client:
            yield client


async def keep_open(
    number: int,
    settings: Settings,
    sign_in: SignIn,
    closing: anyio.Event,
    *,
    task_status: anyio.abc.TaskStatus[Session],
) -> None:
    """Keeps a session open until ``closing``.

    The task that enters the SDK's contexts must also leave them.
    """
    handlers: Handlers = FeatureHandlers()
    if settings.sustained_calls:
        handlers = NotificationReporter(f"{settings.sustained_calls}-{number}", emit)
    elif settings.questions:
        handlers = QuestionHandlers(number, emit, sign_in.commands.next)
    async with connect(settings, sign_in, handlers) as client:
        server = client.server_info
        emit("session", session=number, protocol=client.protocol_version, server=server.name if server else None)
        task_status.started(Session(number, client, settings, handlers))
        await closing.wait()


async def repeat_on_command(
    sessions: list[Session], work: Callable[[Session], Coroutine[Any, Any, None]], commands: Commands
) -> None:
    """Repeats the work once per command, until the command to end or the end of stdin."""
    while True:
        emit("ready")
        command = await commands.next()
        if command is None or command.get("end"):
            return
        if not command.get("call"):
            raise ValueError("expected a command to call or to end")
        await for_each(sessions, work)


async def call_until_command(sessions: list[Session], commands: Commands) -> None:
    """Calls in all sessions until the next command."""
    finished = anyio.Event()
    emit("ready")
    async with anyio.create_task_group() as group:
        for session in sessions:
            name = f"{session.settings.sustained_calls}-{session.number}"
            assert isinstance(session.handlers, NotificationReporter)
            caller = SustainedCaller(name, session.client, session.handlers, emit, describe)
            group.start_soon(caller.run, finished)
        await commands.next()
        finished.set()


async def for_each(sessions: list[Session], work: Callable[[Session], Coroutine[Any, Any, None]]) -> None:
    """Does the same in all sessions at the same time."""
    async with anyio.create_task_group() as group:
        for session in sessions:
            group.start_soon(work, session)


async def run() -> None:
    settings = Settings.read()
    commands = Commands()
    async with anyio.create_task_group() as group:
        group.start_soon(commands.read)
        await open_and_call(settings, commands, SignIn(settings, commands))
        group.cancel_scope.cancel()


async def open_and_call(settings: Settings, commands: Commands, sign_in: SignIn) -> None:
    """Opens the sessions, calls, and closes the sessions."""
    closing = anyio.Event()
    async with anyio.create_task_group() as keepers:
        # The first session signs in, the others open together with its tokens.
        sessions: list[Session] = [await keepers.start(keep_open, 0, settings, sign_in, closing)]

        async def open_another(number: int) -> None:
            sessions.append(await keepers.start(keep_open, number, settings, sign_in, closing))

        async with anyio.create_task_group() as openers:
            for number in range(1, settings.sessions):
                openers.start_soon(open_another, number)

        if settings.sustained_calls:
            await call_until_command(sessions, commands)
        else:
            await for_each(sessions, Session.list_tools)
            work = Session.check_features if settings.feature_checks else Session.call_all
            await for_each(sessions, work)
            if settings.interactive:
                await repeat_on_command(sessions, work, commands)
        closing.set()


def describe(error: BaseException) -> str:
    """Describes an error on one line, and a group by the errors in it."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(describe(inner) for inner in error.exceptions)
    return f"{type(error).__name__}: {error}"


def main() -> int:
    try:
        anyio.run(run)
    except Exception as error:
        emit("error", message=describe(error))
        return 1
    emit("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
