"""The data profile: what it counts, what is an error or a warning, and how far two of them are apart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intentrec_core.domain.toml import parse_domain
from intentrec_core.errors import DataError
from intentrec_core.features.catalogue import Catalogue, Item
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.plays.drift import drift, warnings
from intentrec_core.plays.findings import Finding, findings, refuse_meaningless
from intentrec_core.plays.profile import DataProfile, measure
from intentrec_core.plays.table import PLAYS, PlayRow, plays_table

DAY_MS = 86_400_000
NOW_MS = 1_700_000_000_000
DOMAIN = """
name = "kiosk"
[history]
window = 4
[duration_weight]
kind = "log"
[[field]]
name = "action"
kind = "categorical"
source = "event"
values = ["look", "buy"]
intent = true
[[field]]
name = "price_band"
kind = "bucketed"
source = "catalogue"
key = "price"
edges = [10.0, 20.0]
intent = true
[[field]]
name = "genre"
kind = "multi_label"
source = "catalogue"
key = "genres"
values = ["news", "sport"]
intent = true
[[field]]
name = "age"
kind = "bucketed"
source = "rule"
rule = "time_since_release"
key = "released"
edges = [30.0]
intent = true
[[field]]
name = "device"
kind = "categorical"
source = "event"
values = ["tv", "phone"]
[[field]]
name = "hour"
kind = "categorical"
source = "rule"
rule = "hour_of_day"
[[filter]]
kind = "watched"
unless_head = "action"
unless_values = ["buy"]
[[filter]]
kind = "available"
key = "in_stock"
[[filter]]
kind = "at_most"
key = "maturity"
event_key = "max_maturity"
[[filter]]
kind = "contains"
key = "regions"
event_key = "region"
"""
NUM_ITEMS, NUM_PLAYS = 12, 240


def item(number: int) -> dict[str, Any]:
    return {
        "price": 5.0 + number,
        "genres": ["news"] if number % 3 else ["news", "sport"],
        "released": "2023-11-01" if number % 2 else "2020-01-01",
        "in_stock": number != 7,
        "maturity": number % 4,
        "regions": ["de", "fr"] if number % 2 else ["de"],
    }


def play(number: int) -> dict[str, Any]:
    return {
        "action": "buy" if number % 5 == 0 else "look",
        "duration_s": 60.0 + number % 7,
        "device": "tv" if number % 2 else "phone",
        "max_maturity": "2",
        "region": "fr" if number % 4 == 0 else "de",
    }


Change = Callable[[dict[str, Any]], dict[str, Any]]


def same(row: dict[str, Any]) -> dict[str, Any]:
    return row


def without(*names: str) -> Change:
    return lambda row: {name: value for name, value in row.items() if name not in names}


def with_(**values: Any) -> Change:
    return lambda row: row | values


def profile(
    items: Change = same, plays: Change = same, domain: str = DOMAIN, num_plays: int = NUM_PLAYS, item_id: str = "i{}"
) -> tuple[DataProfile, list[Finding]]:
    parsed = parse_domain(domain, "kiosk.toml")
    rows = []
    for number in range(num_plays):
        given_ = plays(play(number))
        context = {name: given_[name] for name in ("device", "max_maturity", "region") if name in given_}
        rows.append(
            PlayRow(
                given_.get("event_id", f"e{number}"), f"u{number % 8}", f"i{number % NUM_ITEMS}", NOW_MS + number * 3_600_000,
                given_.get("action"), given_.get("duration_s"), None, context,
            )
        )  # fmt: skip
    vocabulary = Vocabulary.build(f"i{number}" for number in range(NUM_ITEMS))
    catalogue = Catalogue(Item(item_id.format(number), "T", items(item(number))) for number in range(NUM_ITEMS))
    table = ItemTable(parsed, vocabulary, catalogue)
    measured = measure(FeatureBuilder(parsed, vocabulary, table), table, plays_table(rows))
    return measured, findings(parsed, measured)


def test_sound_data_have_no_findings_and_are_counted() -> None:
    measured, found = profile()

    assert found == []
    assert (measured.num_plays, measured.num_members, measured.num_items, measured.num_described) == (240, 8, 12, 12)
    assert (measured.from_ms, measured.until_ms) == (NOW_MS, NOW_MS + 239 * 3_600_000)
    assert measured.field("action").plays == (0, 192, 48)
    assert measured.field("price_band").plays == (0, 100, 140, 0)
    assert measured.field("price_band").items == (0, 5, 7, 0)
    assert measured.field("genre").plays == (0, 240, 80)
    assert measured.field("device").items == ()
    in_stock, maturity, regions = measured.filters
    assert in_stock.shown == pytest.approx(11 / 12)
    assert maturity.shown == pytest.approx(9 / 12)
    assert regions.shown == pytest.approx(0.75 * 1 + 0.25 * 6 / 12)
    assert {one.num_items for one in measured.filters} == {12}
    assert {one.num_plays for one in measured.filters} == {240}
    assert measured.shown == pytest.approx(0.75 * 9 / 12 + 0.25 * 3 / 12)  # 1, 5 and 9
    assert DataProfile.from_bytes(measured.to_bytes()) == measured
    refuse_meaningless(parse_domain(DOMAIN, ""), measured)


def test_numbers_as_texts_decimals_and_0_and_1_are_read_like_the_values_they_spell() -> None:
    spelled = profile(
        lambda row: (
            row
            | {
                "price": Decimal(str(row["price"])),
                "in_stock": int(row["in_stock"]),
                "maturity": f"{row['maturity']}.0",
            }
        )
    )
    assert spelled == profile()


#: What is done to items and plays, and the one finding it makes: whether it is an error, and what it says.
MEANINGLESS: list[tuple[Change, Change, str]] = [
    (
        without("price"),
        same,
        "no item that was played has the attribute 'price': check the key; the catalogue's attributes: genres,",
    ),
    (
        with_(price="cheap"),
        same,
        "12 items have a value for 'price' that is none of its labels, for instance 'cheap'; allowed: numbers",
    ),
    (with_(price=math.nan), same, "no item that was played has the attribute 'price': check the key"),
    (with_(genres=["opera"]), same, "for instance ['opera']; allowed: news, sport;"),
    (with_(released="soon"), same, "for instance 'soon'; allowed: dates in ISO 8601"),
    (
        with_(genres="news"),
        same,
        "intent genre has the same label, 'news', at all 240 plays where it is known: correct",
    ),
    (
        with_(genres=["sport", "news"]),
        same,
        "intent genre has the same labels, 'news' and 'sport', at all 240 plays where it is known: correct",
    ),
    (with_(price=3.0), same, "intent price_band has the same label, 'under 10', at all 240 plays"),
    (same, without("action"), "intent action has no known label at any play: no play has a value for action; send it,"),
    (
        same,
        with_(action="BUY!"),
        "240 plays have a value for 'action' that is none of its labels, for instance BUY!; allowed: look",
    ),
    (with_(in_stock=False), same, "filter available in_stock hides every item: it is true for no item"),
    (without("in_stock"), same, "filter available in_stock hides every item: no item that was played has"),
    (
        with_(in_stock="yes"),
        same,
        "12 items have a value that cannot be read, for instance 'yes'; allowed: true or false, 1 or 0",
    ),
    (
        with_(maturity="adult"),
        same,
        "filter at_most maturity hides every item: 12 items have a value that cannot be read",
    ),
    (
        same,
        without("region"),
        "filter contains regions hides every item from every member: no play has a value for context.region",
    ),
    (
        with_(maturity=18),
        same,
        "filter at_most maturity hides every item: it lets no item through for any value of max_maturity",
    ),
    (with_(regions=["us"]), same, "filter contains regions hides every item: it lets no item through"),
    (
        lambda row: row | {"in_stock": row["maturity"] == 3},
        same,
        "the filters in_stock, maturity, regions together show no item",
    ),
]


@pytest.mark.parametrize(("items", "plays", "said"), MEANINGLESS)
def test_what_makes_an_intent_or_a_filter_meaningless_is_one_error_with_the_remedy(
    items: Change, plays: Change, said: str
) -> None:
    measured, found = profile(items, plays)

    assert [finding.is_error for finding in found if finding.is_error] == [True]
    assert said in found[0].text
    with pytest.raises(DataError, match="domain kiosk: "):
        refuse_meaningless(parse_domain(DOMAIN, ""), measured)


def test_an_intent_that_is_the_same_at_nearly_all_plays_is_a_warning() -> None:
    bought = iter([True, True] + [False] * 238)
    _, found = profile(plays=lambda row: row | {"action": "buy" if next(bought) else "look"})

    assert [finding.is_error for finding in found] == [False]
    assert "intent action has the same label, 'look', at nearly all 240 plays where it is known" in found[0].text


def once_in(num: int, first: Change, others: Change) -> Change:
    """The change ``first`` for one of ``num`` rows, and ``others`` for the rest."""
    numbers = itertools.count()
    return lambda row: (others if next(numbers) % num else first)(row)


def some(changed: Change, name: str, *values: Any) -> Change:
    """The change for rows that have one of these values only."""
    return lambda row: changed(row) if row[name] in values else row


DOUBTFUL: list[tuple[Change, Change, str]] = [
    (same, without("device"), "field device has no known label at any play: no play has a value for context.device"),
    (same, with_(device="tv"), "field device has the same label, 'tv', at all 240 plays"),
    (
        same,
        some(with_(device="fridge"), "device", "tv"),
        "field device: 120 plays have a value for 'device' that is none of its labels",
    ),
    (
        some(with_(price="?"), "price", 5.0, 6.0),
        same,
        "intent price_band: 2 items have a value for 'price' that is none of its labels",
    ),
    (
        same,
        lambda row: row | {"duration_s": row["duration_s"] * 60_000},
        "half of the plays last 3,780,000 s or more, which is over a day",
    ),
    (same, without("duration_s"), "no play has a duration_s, by which [duration_weight] weights plays"),
    (
        same,
        with_(duration_s=0.0),
        "duration_s is 0 at 240 of 240 plays, so that [duration_weight] weights them all alike",
    ),
    (same, with_(duration_s=42.5), "duration_s is 42.5 at 240 of 240 plays, so that"),
    (
        same,
        once_in(240, with_(duration_s=7.0), with_(duration_s=42.0)),
        "duration_s is 42 at 239 of 240 plays, so that",
    ),
    (same, once_in(240, same, without("duration_s")), "1 of 240 plays have a duration_s, by which"),
    (
        same,
        once_in(240, without("device"), with_(device="tv")),
        "field device has the same label, 'tv', at all 239 plays where",
    ),
    (
        with_(maturity=0),
        same,
        "filter at_most maturity hides no item at any play: check that 'maturity' says which items may be shown",
    ),
    (with_(regions="de"), with_(region="de"), "filter contains regions hides no item at any play"),
    (
        once_in(2, with_(regions=["DE,AT"]), with_(regions=["de", "fr"])),
        same,
        "filter contains regions shows 6 of 12 items at no play, for instance those with ['DE,AT']: no context.region",
    ),
    (
        once_in(3, with_(maturity=2), with_(maturity=18)),
        same,
        "filter at_most maturity shows 8 of 12 items at no play, for instance those with 18.0: no context.max_maturity",
    ),
    (
        same,
        once_in(25, with_(region="DE"), with_(region="de")),
        "filter contains regions hides every item at 10 of 240 plays: no item has data for the value of context.region that",
    ),
    (
        same,
        some(with_(region="DE"), "region", "fr"),
        "filter contains regions hides every item at 60 of 240 plays: no item has data for the value of context.region that",
    ),
    (
        same,
        some(with_(max_maturity="-1"), "region", "fr"),
        "filter at_most maturity hides every item at 60 of 240 plays: no item has data for the value of context.max_maturity",
    ),
    (some(without("maturity"), "maturity", 0), same, "filter at_most maturity hides 3 of 12 items from every member"),
]


@pytest.mark.parametrize(("items", "plays", "said"), DOUBTFUL)
def test_what_is_doubtful_is_a_warning(items: Change, plays: Change, said: str) -> None:
    _, found = profile(items, plays)

    assert [(finding.is_error, said in finding.text) for finding in found] == [(False, True)]


def test_members_who_have_not_sent_what_a_filter_needs_are_counted() -> None:
    numbers = iter(range(NUM_PLAYS))
    measured, found = profile(plays=lambda row: without("region")(row) if next(numbers) % 8 == 3 else row)

    assert measured.filters[2].num_empty == 30
    assert [finding.text for finding in found] == [
        "filter contains regions hides every item at 30 of 240 plays: their members had not sent context.region yet; send it, or "
        "give the filter a default"
    ]


@pytest.mark.parametrize(("share", "is_said"), [(0.05, True), (0.051, False)])
def test_a_filter_that_shows_a_twentieth_or_less_is_said(share: float, is_said: bool) -> None:
    measured, _ = profile()
    in_stock, *others = measured.filters
    hardly = msgspec.structs.replace(measured, filters=(msgspec.structs.replace(in_stock, shown=share), *others))
    said = [finding.text for finding in findings(parse_domain(DOMAIN, "kiosk.toml"), hardly)]
    line = "filter available in_stock shows 5.0% of the items, as a mean over the plays: check 'in_stock'"
    assert said == ([line] if is_said else [])


def test_a_rare_value_that_lets_items_through_is_found_behind_many_that_do_not() -> None:
    numbers = iter(range(1_300))

    def mostly_misspelt(row: dict[str, Any]) -> dict[str, Any]:
        number = next(numbers)
        return row | {"region": "de" if number == 1_299 else f"D{number // 2}"}

    measured, found = profile(plays=mostly_misspelt, num_plays=1_300)

    assert measured.filters[2].num_empty == 1_299
    assert 0 < measured.filters[2].shown < 0.01
    assert measured.shown > 0
    assert not any(finding.is_error for finding in found)


@pytest.mark.parametrize(
    ("items", "said"),
    [
        (
            lambda row: row if row["price"] == 5.0 else without("price")(row),
            "price_band has the same label, 'under 10', at all 20 plays",
        ),
        (with_(price=[]), "no item that was played has a value for 'price'; correct"),
    ],
)
def test_an_attribute_that_items_have_is_not_called_missing(items: Change, said: str) -> None:
    _, found = profile(items)

    assert said in found[0].text
    assert not any("no item that was played has the attribute" in finding.text for finding in found)


def test_items_that_were_played_may_all_be_available() -> None:
    assert profile(with_(in_stock=True))[1] == []


def test_a_filters_default_holds_for_members_who_have_sent_nothing() -> None:
    declared = 'event_key = "region"\n'
    measured, found = profile(plays=without("region"), domain=DOMAIN.replace(declared, f'{declared}default = "fr"\n'))

    assert [finding.text.partition(":")[0] for finding in found] == [
        "filter contains regions shows 6 of 12 items at no play, for instance those with ['de']"
    ]
    assert measured.filters[2].num_plays == 240
    assert measured.filters[2].shown == pytest.approx(6 / 12)


def test_items_that_are_not_in_the_catalogue_are_the_reason_given() -> None:
    _, found = profile(item_id="0{}")

    assert "none of the 12 items played is in the catalogue: check that both have the same item ids" in found[0].text


def test_too_few_plays_to_tell_make_a_constant_intent_a_warning() -> None:
    few, many = (profile(with_(price=3.0), num_plays=num)[1] for num in (99, 100))

    assert [finding.is_error for finding in few] == [False]
    assert [finding.is_error for finding in many] == [True]


def test_one_play_is_said_in_the_singular() -> None:
    said = [finding.text for finding in profile(num_plays=1)[1]]
    assert any(" at the one play where it is known: " in text for text in said)


def test_a_constant_intent_is_an_error_however_seldom_it_is_known() -> None:
    rarely_known = some(without("price"), "price", *(5.0 + number for number in range(1, NUM_ITEMS)))
    _, found = profile(rarely_known)

    assert found[0].is_error
    assert "intent price_band has the same label, 'under 10', at all 20 plays where it is known" in found[0].text


def test_a_watched_exception_that_never_holds_is_said() -> None:
    domain = DOMAIN.replace('values = ["look", "buy"]', 'values = ["look", "buy", "gift"]').replace(
        '["buy"]\n[[', '["gift"]\n[['
    )
    _, found = profile(domain=domain)

    assert [finding.text for finding in found] == [
        "filter watched: no play has a label gift of action, so that its exception never holds: check unless_values"
    ]


def test_repeated_event_ids_are_counted_and_said() -> None:
    measured, found = profile(plays=lambda row: row | ({"event_id": "same"} if row["action"] == "buy" else {}))

    assert (measured.num_plays, measured.num_repeats) == (200, 40)
    assert [finding.text for finding in found][-1].startswith("40 of 240 plays repeat an event_id of their member")


def test_a_profile_of_nothing_has_no_findings() -> None:
    parsed = parse_domain(DOMAIN, "")
    vocabulary = Vocabulary.build([])
    table = ItemTable(parsed, vocabulary, Catalogue([]))
    measured = measure(FeatureBuilder(parsed, vocabulary, table), table, PLAYS.empty_table())

    assert findings(parsed, measured) == []
    assert DataProfile.from_bytes(measured.to_bytes()) == measured


def test_a_profile_of_another_format_is_not_read() -> None:
    assert DataProfile.from_bytes(profile()[0].to_bytes().replace(b'"format": 1', b'"format": 2')) is None
    assert DataProfile.from_bytes(b"{}") is None
    assert DataProfile.from_bytes(b"\xff") is None


def moved(items: Change = same, plays: Change = same) -> dict[str, float]:
    return drift(parse_domain(DOMAIN, ""), profile()[0], profile(items, plays)[0])


def test_data_that_stay_as_they_are_do_not_drift() -> None:
    assert set(moved().values()) == {0.0}
    assert "hour" not in moved(), "it is a matter of the span of the plays"


@pytest.mark.parametrize(
    ("items", "plays", "name", "low"),
    [
        (same, without("device"), "device", 0.8),
        (same, with_(action="buy"), "action", 0.7),
        (without("price"), same, "price_band", 0.5),
        (with_(in_stock=True), same, "filter_in_stock", 0.05),
        (without("maturity"), same, "filter_maturity", 0.5),
        (same, without("region"), "filter_regions", 0.8),
    ],
)
def test_what_changes_drifts_and_nothing_else(items: Change, plays: Change, name: str, low: float) -> None:
    found = moved(items, plays)

    assert low < found.pop(name) <= 1.0
    assert set(found.values()) == {0.0}


def test_large_drift_is_a_warning() -> None:
    (line,) = warnings(moved(plays=without("device")))

    assert line.startswith("device has drifted by 9")
    assert warnings({"a": 0.2, "b": 0.0}) == []


def test_a_domain_with_other_labels_is_not_compared() -> None:
    for was, now, name in (
        ('"tv", "phone"', '"tv", "phone", "car"', "device"),
        ('"tv", "phone"', '"phone", "tv"', "device"),
        ("edges = [10.0, 20.0]", "edges = [6.0, 12.0]", "price_band"),
    ):
        other = profile(domain=DOMAIN.replace(was, now))[0]
        moved_by = drift(parse_domain(DOMAIN, ""), profile()[0], other)
        assert name not in moved_by
        assert "action" in moved_by


@given(st.lists(st.sampled_from(["look", "buy"]), min_size=100, max_size=300), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_two_samples_of_one_distribution_hardly_drift(actions: list[str], random: Any) -> None:
    """Chance alone stays far below the warning, however large the samples are."""
    before, after = (profile(plays=lambda row: row | {"action": random.choice(actions)})[0] for _ in range(2))
    assert drift(parse_domain(DOMAIN, ""), before, after)["action"] < 0.15
