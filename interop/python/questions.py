"""Questions of the server to the user (elicitation), which the test answers.

As in ``../typescript/shared/questions.mjs``, a ``question`` event passes each on, and an ``answer``
command is the user's answer to it.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from mcp import types

Emit = Callable[..., None]
NextCommand = Callable[[], Awaitable[dict[str, Any] | None]]


class QuestionHandlers:
    """The handlers of a client that passes questions on, one at a time."""

    def __init__(self, session: int, emit: Emit, next_command: NextCommand) -> None:
        self._session = session
        self._emit = emit
        self._next_command = next_command

    def options(self) -> dict[str, Any]:
        """Arguments of ``Client``."""
        return {"elicitation_callback": self._elicit}

    async def _elicit(self, _context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        self._emit("question", session=self._session, message=params.message)
        command = await self._next_command()
        if command is None or "answer" not in command:
            raise ValueError("expected an answer command after a question event")
        return types.ElicitResult(action="accept", content={"nonce": command["answer"]})
