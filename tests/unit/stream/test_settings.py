"""Settings: read from one place, refused when unknown or wrong, secrets never shown."""

from __future__ import annotations

import pytest

from intentrec_core.errors import ConfigError
from intentrec_core.history.changelog_codec import OLDEST_SCHEMA_VERSION, SCHEMA_VERSION
from stream.settings import SettingHasNoEffect, Settings


def test_the_environment_is_read_and_options_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTENTREC_MAX_BATCH", "64")
    monkeypatch.setenv("INTENTREC_BETA", "2")
    settings = Settings.load(beta=1.5)
    assert (settings.max_batch, settings.beta) == (64, 1.5)


def test_a_misspelt_name_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTENTREC_MAX_BACH", "64")
    with pytest.raises(ConfigError, match="INTENTREC_MAX_BACH"):
        Settings.load()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"broker": "nowhere"}, "broker.*HOST:PORT"),
        ({"max_batch": 0}, "max_batch.*given 0.*greater than or equal to 1"),
        ({"delivery": "twice"}, "delivery.*at_least_once"),
        ({"delivery": "exactly_once", "transactions": "off"}, "needs transactions"),
        ({"intents_topic": "plays"}, "have the same name"),
        ({"nonsense": 1}, "nonsense"),
        ({"security_protocol": "SASL_SSL"}, "sasl_username"),
    ],
)
def test_what_is_not_allowed_is_named_in_one_line(options: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as refused:
        Settings.load(**options)
    assert "\n" not in str(refused.value)


def test_a_secret_is_never_shown() -> None:
    settings = Settings.load(security_protocol="SASL_PLAINTEXT", sasl_username="me", sasl_password="hunter2")
    assert "hunter2" not in repr(settings)
    assert settings.connection()["sasl_plain_password"] == "hunter2"


def test_a_setting_without_effect_warns() -> None:
    with pytest.warns(SettingHasNoEffect, match="sasl_username"):
        Settings.load(sasl_username="me")


def test_the_changelog_is_the_apps_own() -> None:
    assert Settings.load(app_id="mine").changelog_topic == "mine-history"


def test_the_changelogs_schema_is_one_that_is_read_and_the_newest_unless_told_otherwise() -> None:
    assert Settings.load().changelog_schema == SCHEMA_VERSION
    assert Settings.load(changelog_schema=OLDEST_SCHEMA_VERSION).changelog_schema == OLDEST_SCHEMA_VERSION
    for wrong in (OLDEST_SCHEMA_VERSION - 1, SCHEMA_VERSION + 1):
        with pytest.raises(ConfigError, match="changelog_schema"):
            Settings.load(changelog_schema=wrong)
