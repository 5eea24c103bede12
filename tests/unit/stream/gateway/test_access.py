"""Who may do what: tokens of one key and one algorithm, tickets that work once, and no address without a key but loopback."""

from __future__ import annotations

import base64
import hmac
import json
import os
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from intentrec_core.errors import ConfigError
from stream.gateway.access import TICKET_S, Access, Caller, Tickets, issue_token, make_key
from stream.gateway.problems import Problem, ProblemKind
from stream.settings import Settings

NOW_S = 1_800_000_000.0
SECRET = OctKey.import_key("s" * 32)
KEYS: dict[str, Key] = {
    "HS256": SECRET,
    "RS256": RSAKey.generate_key(2048),
    "ES256": ECKey.generate_key("P-256"),
    "Ed25519": OKPKey.generate_key("Ed25519"),
}


def access(tmp_path: Path, content: str | bytes, *, now_s: float = NOW_S, **options: Any) -> Access:
    file = tmp_path / "key"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return Access(Settings(gateway_key_file=file, **options), clock=lambda: now_s)


def token(key: Key = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    given = {"sub": "u", "exp": NOW_S + 60} | claims
    return "Bearer " + jwt.encode(
        {"alg": algorithm},
        {name: value for name, value in given.items() if value is not None},
        key,
        algorithms=[algorithm],
    )


def refused(checked: Access, authorization: str | None) -> ProblemKind:
    with pytest.raises(Problem) as raised:
        checked.caller(authorization)
    assert raised.value.status == 401
    assert raised.value.headers["WWW-Authenticate"] == "Bearer"
    return raised.value.kind


@pytest.mark.parametrize("algorithm", list(KEYS))
def test_a_token_is_checked_with_the_key_of_the_file(algorithm: str, tmp_path: Path) -> None:
    key = KEYS[algorithm]
    public = json.dumps(key.as_dict(private=algorithm == "HS256"))
    for content in (public, json.dumps({"keys": [json.loads(public)]})):
        checked = access(tmp_path, content)
        assert checked.caller(token(key, algorithm)) == Caller("u", is_operator=False)
        other = type(key).generate_key(*([] if algorithm == "RS256" else [key.as_dict().get("crv", 256)]))
        assert refused(checked, token(other, algorithm)) is ProblemKind.INVALID_TOKEN


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "Ed25519"])
def test_a_public_key_in_pem_is_taken_and_never_as_a_secret(algorithm: str, tmp_path: Path) -> None:
    key: Any = KEYS[algorithm]
    pem = key.as_pem(private=False)
    checked = access(tmp_path, pem)
    assert checked.caller(token(key, algorithm)).user_id == "u"
    assert refused(checked, _signed_by_hand(pem)) is ProblemKind.INVALID_TOKEN


@pytest.mark.parametrize("algorithm", list(KEYS))
def test_a_single_key_without_a_kid_is_for_tokens_with_any(algorithm: str, tmp_path: Path) -> None:
    """Issuers name their keys; a PEM file and a secret cannot."""
    key: Any = KEYS[algorithm]
    content = b"s" * 32 if algorithm == "HS256" else key.as_pem(private=False)
    claims = {"sub": "u", "exp": NOW_S + 60}
    given = "Bearer " + jwt.encode({"alg": algorithm, "kid": "2026-03"}, claims, key, algorithms=[algorithm])
    assert access(tmp_path, content).caller(given).user_id == "u"


def test_of_several_keys_the_kid_names_one(tmp_path: Path) -> None:
    named = {kid: OctKey.generate_key(256, {"kid": kid}) for kid in ("a", "b", "c")}
    file = json.dumps({"keys": [named[kid].as_dict(private=True) for kid in "ab"]})
    checked = access(tmp_path, file)
    for kid, key in (("a", "a"), ("b", "b"), ("b", "a"), ("c", "c")):
        claims = {"sub": "u", "exp": NOW_S + 60}
        given = "Bearer " + jwt.encode({"alg": "HS256", "kid": kid}, claims, OctKey.import_key(named[key].raw_value))
        if kid == key != "c":
            assert checked.caller(given).user_id == "u"
        else:
            assert refused(checked, given) is ProblemKind.INVALID_TOKEN


@pytest.mark.parametrize("secret", [b" " + b"\xff" * 30 + b" ", b"\t" * 40, b"s" * 32 + b"\n"])
def test_a_secret_is_every_byte_of_its_file_but_one_end_of_line(secret: bytes, tmp_path: Path) -> None:
    for end in (b"\n", b"\r\n"):
        assert access(tmp_path, secret + end).caller(_signed_by_hand(secret)).user_id == "u"


def _signed_by_hand(secret: bytes) -> str:
    """A token with HS256 of any secret. joserfc makes none of a public key: it knows the attack too."""
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256"}, {"sub": "u", "exp": NOW_S + 60})]
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    signature = base64.urlsafe_b64encode(hmac.digest(secret, signed, "sha256")).rstrip(b"=")
    return f"Bearer {signed.decode()}.{signature.decode()}"


def test_a_token_signed_by_hand_with_the_secret_is_taken(tmp_path: Path) -> None:
    """So that the forged one above is refused for its key alone."""
    assert access(tmp_path, "s" * 32).caller(_signed_by_hand(b"s" * 32)).user_id == "u"


def test_the_old_name_of_ed25519_is_taken_too(tmp_path: Path) -> None:
    key = KEYS["Ed25519"]
    with pytest.warns(SecurityWarning, match="deprecated"):
        old = token(key, "EdDSA")
    assert access(tmp_path, key.as_pem(private=False)).caller(old).user_id == "u"


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": NOW_S - 1},
        {"exp": None},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"nbf": NOW_S + 60},
    ],
)
def test_a_token_without_a_member_or_out_of_its_time_is_refused(claims: dict[str, Any], tmp_path: Path) -> None:
    assert refused(access(tmp_path, "s" * 32), token(**claims)) is ProblemKind.INVALID_TOKEN


@pytest.mark.parametrize(
    ("authorization", "kind"),
    [
        (None, ProblemKind.NO_TOKEN),
        ("", ProblemKind.NO_TOKEN),
        ("Basic dTp1", ProblemKind.NO_TOKEN),
        ("Bearer ", ProblemKind.NO_TOKEN),
        ("Bearer x", ProblemKind.INVALID_TOKEN),
        ("Bearer " + "x" * 9000, ProblemKind.INVALID_TOKEN),
        # header {"alg":"none"}, claims {"sub":"u","exp":9999999999}, no signature
        ("Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1IiwiZXhwIjo5OTk5OTk5OTk5fQ.", ProblemKind.INVALID_TOKEN),
    ],
)
def test_what_is_no_token_is_refused(authorization: str | None, kind: ProblemKind, tmp_path: Path) -> None:
    assert refused(access(tmp_path, "s" * 32), authorization) is kind


def test_a_token_that_was_accepted_runs_out_all_the_same(tmp_path: Path) -> None:
    now_s = [NOW_S]
    file = tmp_path / "key"
    file.write_text("s" * 32)
    checked = Access(Settings(gateway_key_file=file), clock=lambda: now_s[0])
    given = token()
    assert checked.caller(given) == checked.caller(given)
    now_s[0] += 61
    assert refused(checked, given) is ProblemKind.INVALID_TOKEN


def test_an_audience_must_be_named(tmp_path: Path) -> None:
    checked = access(tmp_path, "s" * 32, gateway_audience="ui")
    assert checked.caller(token(aud=["other", "ui"])).user_id == "u"
    for aud in (None, "other"):
        assert refused(checked, token(aud=aud)) is ProblemKind.INVALID_TOKEN


def test_only_an_operator_reaches_other_members(tmp_path: Path) -> None:
    checked = access(tmp_path, "s" * 32)
    member = checked.caller(token(scope="profile intentrec:operators"))
    member.check_reaches("u")
    for check in (lambda: member.check_reaches("v"), member.check_operates):
        with pytest.raises(Problem) as raised:
            check()
        assert raised.value.status == 403
    operator = checked.caller(token(scope="profile intentrec:operator"))
    operator.check_reaches("v")
    operator.check_operates()


@pytest.mark.parametrize(
    "content", ["", "short", "{", '{"keys": []}', "-----BEGIN PUBLIC KEY-----\nx", '{"kty":"oct","k":"c2hvcnQ"}']
)
def test_a_file_that_is_no_key_is_refused_with_what_is_allowed(content: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gateway_key_file .*allowed: ") as raised:
        access(tmp_path, content)
    assert "\n" not in str(raised.value)


def test_a_key_for_another_purpose_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it has no key"):
        access(tmp_path, json.dumps({"keys": [SECRET.as_dict(private=True) | {"use": "enc"}]}))


def test_an_only_key_of_an_unknown_type_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="AKP"):
        access(tmp_path, json.dumps({"keys": [{"kty": "AKP", "kid": "new"}]}))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Access(Settings(gateway_key_file=tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("host", "allowed"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False), ("db", False)],
)
def test_without_a_key_loopback_alone_is_served(host: str, allowed: bool) -> None:
    settings = Settings(gateway_host=host)
    if allowed:
        assert Access(settings).caller(None).is_operator
    else:
        with pytest.raises(ConfigError, match="gateway_key_file"):
            Access(settings)


def test_a_ticket_works_once_for_its_member_and_in_its_time() -> None:
    now_s = [0.0]
    tickets = Tickets(clock=lambda: now_s[0])
    refusals: list[ProblemKind] = []

    def is_taken(ticket: str, user_id: str) -> bool:
        try:
            tickets.use(ticket, user_id)
        except Problem as problem:
            refusals.append(problem.kind)
            return False
        return True

    ticket = tickets.issue("u")
    assert [is_taken(ticket, "u"), is_taken(ticket, "u")] == [True, False]
    ticket = tickets.issue("u")
    assert [is_taken(ticket, "v"), is_taken(ticket, "u")] == [False, False], "a ticket that was tried is used up"
    ticket = tickets.issue("u")
    now_s[0] += TICKET_S
    assert not is_taken(ticket, "u")
    assert not is_taken("", "u")
    assert set(refusals) == {ProblemKind.INVALID_TICKET}


def test_unused_tickets_are_bounded_and_the_oldest_are_dropped_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.gateway.access._MAX_TICKETS", 3)
    tickets = Tickets()
    first, *others = (tickets.issue("u") for _ in range(4))
    assert len(tickets._open) == 3
    for ticket in others:
        tickets.use(ticket, "u")
    with pytest.raises(Problem):
        tickets.use(first, "u")


def test_a_token_that_is_issued_is_accepted_for_its_member_and_its_time(tmp_path: Path) -> None:
    file = tmp_path / "gateway.key"
    assert make_key(file)
    assert file.stat().st_mode & 0o777 == 0o600
    secret = file.read_bytes()
    assert not make_key(file), "tokens of the key that is there stay good"
    assert file.read_bytes() == secret
    settings = Settings(gateway_key_file=file, gateway_audience="ui")
    issued = {
        who: issue_token(settings, who, is_operator=who == "op", expires_s=60, now_s=NOW_S) for who in ("u", "op")
    }
    in_time, late = (Access(settings, clock=lambda now_s=now_s: now_s) for now_s in (NOW_S + 59, NOW_S + 61))
    assert in_time.caller(f"Bearer {issued['u']}") == Caller("u")
    assert in_time.caller(f"Bearer {issued['op']}") == Caller("op", is_operator=True)
    assert refused(late, f"Bearer {issued['u']}") is ProblemKind.INVALID_TOKEN


def test_a_key_of_a_jwks_names_itself_in_its_tokens(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    keys = [OctKey.import_key(word * 32, {"kid": word}) for word in "ab"]
    file.write_text(json.dumps({"keys": [key.as_dict(private=True) for key in keys]}))
    settings = Settings(gateway_key_file=file)
    assert Access(settings).caller(f"Bearer {issue_token(settings, 'u')}") == Caller("u")


@pytest.mark.parametrize("content", [None, KEYS["ES256"].as_pem(private=False)])
def test_without_a_secret_no_token_is_issued(content: bytes | None, tmp_path: Path) -> None:
    file = None
    if content is not None:
        file = tmp_path / "key"
        file.write_bytes(content)
    with pytest.raises(ConfigError, match="no secret to sign a token with"):
        issue_token(Settings(gateway_key_file=file), "u")


def test_keys_that_an_issuer_changes_are_read_again_and_those_for_other_purposes_left_out(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    old, new = (OctKey.import_key(word * 32, {"kid": word}) for word in "ab")
    other = ECKey.generate_key("P-384")

    def publish(*keys: Key) -> None:
        of_others = [{"kty": "AKP", "kid": "new"}, old.as_dict(private=True) | {"kid": "enc", "use": "enc"}]
        file.write_text(json.dumps({"keys": of_others + [key.as_dict(private=True) for key in keys]}))
        os.utime(file, ns=(len(keys), len(keys)))

    def signed(key: OctKey) -> str:
        claims = {"sub": "u", "exp": NOW_S + 6000}
        return "Bearer " + jwt.encode({"alg": "HS256", "kid": key.kid}, claims, key, algorithms=["HS256"])

    publish(old, other)
    now_s = [NOW_S]
    checked = Access(Settings(gateway_key_file=file), clock=lambda: now_s[0])
    assert checked.caller(signed(old)) == Caller("u")
    publish(new, other, other)
    assert refused(checked, signed(new)) is ProblemKind.INVALID_TOKEN
    now_s[0] += 11
    assert checked.caller(signed(new)) == Caller("u")
    assert refused(checked, signed(old)) is ProblemKind.INVALID_TOKEN, "also one that was accepted before"
    file.write_text("{")
    now_s[0] += 11
    assert checked.caller(signed(new)) == Caller("u"), "a file that is being written is no reason to refuse all"
