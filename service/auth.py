"""The one bearer token that opens the API: read from its file, compared in constant time."""

import secrets
import stat
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from service.errors import TokenFileError, UnauthorizedError

_OTHERS = stat.S_IRWXG | stat.S_IRWXO

_bearer = HTTPBearer(auto_error=False, description="The token in the service's token file.")


def read_token(path: Path) -> str:
    """The API token.

    Raises:
        TokenFileError: If the file is missing or empty, or others may read or change it.
    """
    try:
        if path.stat().st_mode & _OTHERS:
            raise TokenFileError(f"others can open the token file {path}; run: chmod 600 {path}")
        token = path.read_text().strip()
    except OSError as error:
        raise TokenFileError(
            f"cannot read the token file {path} ({error.strerror}); make one that only its owner "
            f"can read: (umask 077 && openssl rand -hex 32 > {path}), or set HYPLORA_TOKEN_PATH"
        ) from error
    if not token:
        raise TokenFileError(f"the token file {path} is empty; write a long random token into it")
    return token


async def require_token(
    request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> None:
    """Let a request pass that carries the token.

    Raises:
        UnauthorizedError: If it does not.
    """
    expected: str = request.app.state.token
    if given is None or not secrets.compare_digest(given.credentials.encode(), expected.encode()):
        raise UnauthorizedError("send the header Authorization: Bearer TOKEN with the API token")
