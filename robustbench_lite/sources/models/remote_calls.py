"""One call to a service: repeated where it fails for a while, given up where it cannot succeed."""

from __future__ import annotations

import os
import random
import ssl
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from robustbench_lite.errors import InputError
from robustbench_lite.sources.models.remote_protocols import MalformedError

if TYPE_CHECKING:
    import urllib3

T = TypeVar("T")

_LARGEST = 64 * 2**20  # bytes of an answer
_LONGEST = 60.0  # seconds between two tries, whatever the service asks for
_TOLD = 200  # characters of what a service says of an error
_PIECE = 2**16


class UnansweredError(Exception):
    """All tries failed; the message tells how the last one did."""


class _FailedError(Exception):
    """A try failed; another one may not, after so many seconds."""

    def __init__(self, cause: str, after: float = 0.0) -> None:
        super().__init__(cause)
        self.after = after


class Calls:
    """How to call an address. It has slots, so that `digest_of_model` does not count what it holds.

    Args:
        address: where.
        shown: the address in messages.
        timeout: seconds that a call may take.
        tries: calls until it is given up.
        backoff: seconds until the second try, about; twice as many for every further one.
        rate: calls a second at the most; 0 for any number.
        token: the environment variable with the bearer token; "" for none.

    Attributes:
        called: when it was called last, in seconds since 1970.

    Raises:
        InputError: the variable holds no token.
    """

    __slots__ = ("address", "backoff", "called", "rate", "shown", "timeout", "token", "tries")

    def __init__(
        self,
        address: str,
        shown: str,
        *,
        timeout: float,
        tries: int,
        backoff: float,
        rate: float,
        token: str,
    ) -> None:
        self.address, self.shown, self.timeout, self.tries = address, shown, timeout, tries
        self.backoff, self.rate, self.token = backoff, rate, token
        self.called = 0.0
        self._secret()

    def ask(self, body: bytes, read: Callable[[bytes], T], seed: bytes) -> T:
        """What `read` makes of the answer; it raises MalformedError for one that it cannot use.

        Args:
            body: JSON.
            read: of the answer's content.
            seed: of the random part of the pauses.

        Raises:
            UnansweredError: all tries failed.
            InputError: the service refuses such calls.
        """
        chance = random.Random(seed)
        last = _FailedError("")
        for number in range(self.tries):
            if number:
                pause = self.backoff * 2.0 ** min(number - 1, 20) * chance.uniform(0.5, 1.5)
                time.sleep(min(_LONGEST, max(pause, last.after)))
            try:
                return read(self._call(body))
            except MalformedError as error:
                last = _FailedError(f"it gave {error}")
            except _FailedError as error:
                last = error
        raise UnansweredError(str(last))

    def _call(self, body: bytes) -> bytes:
        import urllib3

        if self.rate:
            until = self.called + 1 / self.rate
            time.sleep(min(max(0.0, until - time.time()), 1 / self.rate))  # clocks can be set back
        self.called = time.time()
        end = time.monotonic() + self.timeout
        response = None
        try:
            response = _pool(os.getpid()).request(
                "POST",
                self.address,
                body=body,
                headers=self._headers(),
                timeout=urllib3.Timeout(total=self.timeout),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            content = _content(response, end, self.timeout)
        except (urllib3.exceptions.HTTPError, _FailedError) as error:
            if response is not None:
                response.close()  # the rest of the answer is not to be taken for the next one
            if isinstance(error, _FailedError):
                raise
            raise self._failed(error) from error
        response.release_conn()
        self._check(response, content)
        return content

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        secret = self._secret()
        return headers | ({"Authorization": f"Bearer {secret}"} if secret else {})

    def _secret(self) -> str:
        if not self.token:
            return ""
        secret = os.environ.get(self.token, "").strip()
        if not secret or not secret.isascii() or not secret.isprintable() or " " in secret:
            raise InputError(
                f"token={self.token}: the environment variable {self.token} holds no token; "
                "set it to one, without spaces"
            )
        return secret

    def _failed(self, error: urllib3.exceptions.HTTPError) -> _FailedError:
        import urllib3

        inner = error.args[0] if error.args else None
        if isinstance(inner, ssl.SSLCertVerificationError):
            raise InputError(
                f"{self.shown} has a certificate that is not trusted here "
                f"({inner.verify_message}); set SSL_CERT_FILE to its authority's certificate"
            ) from error
        cause: BaseException = error.__cause__ or error
        if isinstance(cause, urllib3.exceptions.TimeoutError | TimeoutError):
            return _FailedError(f"it did not answer within {self.timeout:g} s")
        if isinstance(cause, OSError) and cause.strerror:
            return _FailedError(f"it cannot be reached ({cause.strerror})")
        return _FailedError(f"the connection broke ({self._told(str(cause))})")

    def _check(self, response: urllib3.BaseHTTPResponse, content: bytes) -> None:
        """Raise for an answer that is none."""
        status = f"{response.status} {response.reason or ''}".strip()
        if 200 <= response.status < 300:
            return
        said = self._told(content.decode("utf-8", "replace"))
        told = f"{status}: {said}" if said else status
        if response.status == 429 or response.status >= 500:
            raise _FailedError(f"it said {told}", _after(response.headers.get("Retry-After")))
        if 300 <= response.status < 400:
            where = self._told(response.headers.get("Location", "another address"))
            raise InputError(f"{self.shown} has moved ({status}); give {where} if you trust it")
        raise InputError(
            f"{self.shown} refuses to answer ({told}); check the address, its settings and token="
        )

    def _told(self, text: str) -> str:
        """A line of what a service said; it may have repeated the token."""
        secret = self._secret()
        hidden = text.replace(secret, "***") if secret else text
        line = " ".join("".join(c if c.isprintable() else " " for c in hidden).split())
        return line if len(line) <= _TOLD else f"{line[:_TOLD]}..."


@cache
def _pool(process: int) -> urllib3.PoolManager:
    """Connections that stay open; a forked process must not use its parent's."""
    import urllib3

    return urllib3.PoolManager()


def _content(response: urllib3.BaseHTTPResponse, end: float, timeout: float) -> bytes:
    """All of the answer, if it comes in time and is not too large."""
    pieces: list[bytes] = []
    size = 0
    while piece := response.read1(_PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > _LARGEST:
            raise _FailedError(f"it gave an answer of more than {_LARGEST} bytes")
        if time.monotonic() > end:
            raise _FailedError(f"it did not answer within {timeout:g} s")
    return b"".join(pieces)


def _after(text: str | None) -> float:
    """Seconds of a Retry-After header, 0 where there is none that can be read."""
    from urllib3.exceptions import InvalidHeader
    from urllib3.util import Retry

    try:
        return 0.0 if text is None else Retry().parse_retry_after(text)
    except (InvalidHeader, ValueError, OverflowError):
        return 0.0
