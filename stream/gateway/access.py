"""Who may do what: bearer tokens (JWT) of members and operators, and tickets that open one stream.

Without a key there are no tokens: everybody who reaches the gateway may do everything, so it serves loopback alone. With one, the
``sub`` of a token is the user id that it reads and posts for, and nothing else, unless its ``scope`` has ``intentrec:operator``.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import secrets
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joserfc import jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, JWKRegistry, Key, KeySet, OctKey, OKPKey, RSAKey
from msgspec import Struct

from intentrec_core.errors import ConfigError
from stream.gateway.problems import Problem, ProblemKind

if TYPE_CHECKING:
    from stream.settings import Settings

logger = logging.getLogger(__name__)

OPERATOR_SCOPE = "intentrec:operator"
#: A ticket is for a stream that is opened at once.
TICKET_S = 30
#: Tickets that wait to be used; the oldest is forgotten beyond it.
_MAX_TICKETS = 100_000
#: Verified tokens that are not verified again before they expire. Checking a signature takes as long as all else of a request.
_MAX_TOKENS = 10_000
_LOOK_S = 10.0
_MIN_SECRET_BYTES = 32
_NEW_SECRET_BYTES = 48
_MAX_TOKEN_LENGTH = 8192


class Caller(Struct, frozen=True):
    """Who sends a request. ``user_id``: of a member's token, and None of a gateway without a key."""

    user_id: str | None = None
    is_operator: bool = False

    def check_reaches(self, user_id: str) -> None:
        """Raises: Problem (other_member) for a member that is not the caller's own."""
        if not self.is_operator and self.user_id != user_id:
            raise Problem(
                ProblemKind.OTHER_MEMBER, f"this token is of {self.user_id!r} (its sub); ask with one of {user_id!r}"
            )

    def check_operates(self) -> None:
        """Raises: Problem (operators_only)."""
        if not self.is_operator:
            raise Problem(ProblemKind.OPERATORS_ONLY, f"this path needs a token whose scope has {OPERATOR_SCOPE}")


EVERYBODY = Caller(is_operator=True)


class Access:
    """Checks tokens with the key of the settings. Safe from one thread.

    The file is looked at every _LOOK_S, and read again if it has changed: issuers change their keys. One that has no key then is
    logged, and the keys of before go on counting.

    Raises: ConfigError when the key file is no key, or there is none and the address is not loopback.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._clock, self._file = clock, settings.gateway_key_file
        self._keys: Key | KeySet | None = None
        self._algorithms: list[str] = []
        self._verified: OrderedDict[str, tuple[Caller, float]] = OrderedDict()
        self._version, self._next_look_s = _version(self._file), self._clock() + _LOOK_S
        if self._file is not None:
            self._take(_read_keys(self._file))
        audience = settings.gateway_audience
        claims: dict[str, Any] = {"exp": {"essential": True}, "sub": {"essential": True}}
        if audience:
            claims["aud"] = {"essential": True, "value": audience}
        self._claims = jwt.JWTClaimsRegistry(now=lambda: int(self._clock()), **claims)
        if self._keys is None and not is_loopback(settings.gateway_host):
            raise ConfigError(
                f"gateway_host is {settings.gateway_host}, which others can reach: set gateway_key_file, so that a member's "
                "token is asked for, or serve 127.0.0.1"
            )

    @property
    def needs_token(self) -> bool:
        """Whether there is a key."""
        return self._keys is not None

    def caller(self, authorization: str | None) -> Caller:
        """Who sends a request with this ``Authorization`` header.

        Raises: Problem (no_token, invalid_token).
        """
        if self._keys is None:
            return EVERYBODY
        if self._clock() >= self._next_look_s:
            self._look()
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Problem(ProblemKind.NO_TOKEN, "send Authorization: Bearer and a JWT; for EventSource, a ticket")
        known = self._verified.get(token)
        if known is not None and self._clock() < known[1]:
            return known[0]
        caller, expires_s = self._verify(token)
        self._verified[token] = caller, expires_s
        if len(self._verified) > _MAX_TOKENS:
            self._verified.popitem(last=False)
        return caller

    def _take(self, keys: list[Key]) -> None:
        self._keys = _verifying(keys)
        self._algorithms = sorted({name for key in keys for name in _algorithms(key)})
        self._verified = OrderedDict()

    def _look(self) -> None:
        self._next_look_s = self._clock() + _LOOK_S
        version = _version(self._file)
        if self._file is None or version == self._version:
            return
        try:
            self._take(_read_keys(self._file))
        except ConfigError as error:
            logger.warning("the keys of before go on counting: %s", error)
            return
        self._version = version
        logger.info("gateway_key_file has changed and was read again")

    def _verify(self, token: str) -> tuple[Caller, float]:
        if len(token) > _MAX_TOKEN_LENGTH:
            raise Problem(ProblemKind.INVALID_TOKEN, f"it has {len(token)} characters; allowed: {_MAX_TOKEN_LENGTH}")
        try:
            claims = self._decoded(token)
            self._claims.validate(claims)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            allowed = ", ".join(self._algorithms)
            raise Problem(ProblemKind.INVALID_TOKEN, f"{error}; allowed: {allowed} with exp and sub") from None
        user_id, scope = claims["sub"], claims.get("scope", "")
        if not isinstance(user_id, str) or not user_id:
            raise Problem(ProblemKind.INVALID_TOKEN, "its sub is no text: it must be the user_id")
        is_operator = isinstance(scope, str) and OPERATOR_SCOPE in scope.split()
        return Caller(user_id, is_operator), float(claims["exp"])

    def _decoded(self, token: str) -> dict[str, Any]:
        assert self._keys is not None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # of EdDSA, whose new name not every issuer writes yet
            return jwt.decode(token, self._keys, algorithms=self._algorithms).claims


def _version(file: Path | None) -> tuple[int, int] | None:
    """What changes when a file does: its time and size."""
    try:
        found = None if file is None else file.stat()
    except OSError:
        return None
    return None if found is None else (found.st_mtime_ns, found.st_size)


def issue_token(
    settings: Settings, user_id: str, *, is_operator: bool = False, expires_s: float = 3600, now_s: float | None = None
) -> str:
    """A bearer token that every gateway with the same key file accepts, for ``expires_s`` seconds.

    Raises: ConfigError where there is no secret to sign with.
    """
    keys = [] if settings.gateway_key_file is None else _read_keys(settings.gateway_key_file)
    secret = next((key for key in keys if isinstance(key, OctKey)), None)
    if secret is None:
        raise ConfigError(
            f"gateway_key_file is {settings.gateway_key_file}: no secret to sign a token with; allowed: a secret of at least "
            f"{_MIN_SECRET_BYTES} bytes. With a public key here, sign tokens where its private key is"
        )
    claims: dict[str, Any] = {"sub": user_id, "exp": int((time.time() if now_s is None else now_s) + expires_s)}
    if settings.gateway_audience:
        claims["aud"] = settings.gateway_audience
    if is_operator:
        claims["scope"] = OPERATOR_SCOPE
    header = {"alg": "HS256"} if secret.kid is None else {"alg": "HS256", "kid": secret.kid}
    return jwt.encode(header, claims, secret, algorithms=["HS256"])


def make_key(path: Path) -> bool:
    """Writes a new secret to a key file that only its owner reads; False where there is a file already, which stays as it is.

    Raises: ConfigError when the file cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    except OSError as error:
        raise ConfigError(f"gateway_key_file {path} cannot be written: {error.strerror}") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(_NEW_SECRET_BYTES) + "\n")
    return True


class Tickets:
    """Tickets of the members of this gateway: each opens one stream, once, within TICKET_S. Owned by the event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def issue(self, user_id: str) -> str:
        """A ticket for the stream of a member."""
        now_s = self._clock()
        while self._open and (next(iter(self._open.values()))[1] <= now_s or len(self._open) >= _MAX_TICKETS):
            self._open.popitem(last=False)
        ticket = secrets.token_urlsafe(24)
        self._open[ticket] = user_id, now_s + TICKET_S
        return ticket

    def use(self, ticket: str, user_id: str) -> None:
        """Uses a ticket up.

        Raises: Problem (invalid_ticket) when it is unknown, used, run out, or another member's.
        """
        owner, until_s = self._open.pop(ticket, (None, 0.0))
        if owner != user_id or until_s <= self._clock():
            raise Problem(
                ProblemKind.INVALID_TICKET,
                f"a ticket opens one stream of its member, once, within {TICKET_S} s: get another one, POST …/tickets",
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _verifying(keys: list[Key]) -> Key | KeySet:
    """What tokens are checked with. A single key without a name is for every token: which ``kid`` that has says nothing."""
    return keys[0] if len(keys) == 1 and keys[0].kid is None else KeySet(keys)


def _read_keys(path: Path) -> list[Key]:
    """The keys of a file: a JWKS or one JWK (JSON), a PEM public key, or the bytes of a secret.

    Raises: ConfigError naming the file and what is allowed.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"gateway_key_file {path} cannot be read: {error.strerror}") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # of short secrets, which are refused below
            keys = _parse_keys(data)
        if not keys:
            raise ValueError("it has no key")
        keys = _used(keys)
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"gateway_key_file {path}: {' '.join(str(error).split())}; allowed: a JWKS or a JWK (oct, RSA, EC P-256, Ed25519), a "
            f"public key in PEM, or a secret of at least {_MIN_SECRET_BYTES} bytes"
        ) from None
    return keys


def _parse_keys(data: bytes) -> list[Key]:
    text = data.strip()
    if text.startswith(b"{"):
        document = json.loads(text)
        return _imported(document.get("keys", [document]))
    if text.startswith(b"-----BEGIN"):
        for kind in (RSAKey, ECKey, OKPKey):
            try:
                return [kind.import_key(text)]
            except (JoseError, ValueError, TypeError):
                continue
        raise ValueError("it is no RSA, EC or Ed25519 key")
    secret = data.removesuffix(b"\n").removesuffix(
        b"\r"
    )  # the end of a line that an editor wrote; all else is the secret's
    if len(secret) < _MIN_SECRET_BYTES:
        raise ValueError(f"a secret of {len(secret)} bytes is too short")
    return [OctKey.import_key(secret)]


def _imported(entries: list[dict[str, Any]]) -> list[Key]:
    """The signature keys of a JWKS. Keys for encryption, and keys of types that joserfc cannot read, are left out.

    Raises: what the first entry raises, where none can be imported.
    """
    keys, errors = [], []
    for entry in entries:
        if entry.get("use", "sig") != "sig":
            continue
        try:
            keys.append(JWKRegistry.import_key(entry))
        except (JoseError, ValueError, TypeError, KeyError) as error:
            errors.append(error)
    if errors and not keys:
        raise errors[0]
    return keys


def _used(keys: list[Key]) -> list[Key]:
    """The keys that tokens are checked with: identity providers publish keys for other purposes beside them.

    Raises: ValueError when there is none.
    """
    used, why = [], ""
    for key in keys:
        try:
            _algorithms(key)
            used.append(key)
        except ValueError as error:
            why = str(error)
    if not used:
        raise ValueError(why)
    return used


def _algorithms(key: Key) -> tuple[str, ...]:
    """The algorithm that a key is used with, under all of its names: a token does not choose it.

    Raises: ValueError for a key that is not used.
    """
    if isinstance(key, OctKey):
        if len(key.raw_value) < _MIN_SECRET_BYTES:
            raise ValueError(f"a secret of {len(key.raw_value)} bytes is too short")
        return ("HS256",)
    if isinstance(key, RSAKey):
        return ("RS256",)
    if isinstance(key, ECKey) and key.curve_name == "P-256":
        return ("ES256",)
    if isinstance(key, OKPKey) and key.curve_name == "Ed25519":
        return "Ed25519", "EdDSA"
    raise ValueError(f"a key of type {key.key_type} cannot be used")
