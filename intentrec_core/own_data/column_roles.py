"""Which column of a table of plays or items is what: guessed by its name, and corrected by whoever knows better."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import pyarrow as pa

from intentrec_core.errors import ConfigError

#: The names of each part of a play in tables that others publish, without case, spaces and signs; the likeliest first.
PLAY_NAMES: Mapping[str, tuple[str, ...]] = {
    "user": (
        "userid", "user", "visitorid", "memberid", "customerid", "profileid", "accountid", "clientid", "reviewerid", "personid",
        "subscriberid", "uid", "visitor", "member", "customer", "username", "useridhash",
    ),
    "item": (
        "itemid", "item", "productid", "movieid", "articleid", "videoid", "trackid", "songid", "contentid", "titleid", "showid",
        "listingid", "newsid", "bookid", "gameid", "recipeid", "businessid", "parentasin", "asin", "sku", "isbn", "product",
        "movie", "article", "video", "track", "song", "iid", "pid",
    ),
    "time": (
        "tsms", "timestamp", "timestampms", "eventtime", "eventtimestamp", "ts", "time", "timems", "datetime", "playedat",
        "occurredat", "createdat", "createdon", "date", "unixtime", "unixtimestamp", "unixreviewtime", "servertime", "clicktime",
    ),
    "event_id": ("eventid", "playid", "interactionid", "messageid", "hitid", "uuid"),
    "action": (
        "action", "eventtype", "event", "eventname", "actiontype", "behavior", "behaviour", "behaviortype", "interaction",
        "interactiontype", "activity",
    ),
    "duration": (
        "durations", "duration", "durationms", "playduration", "playdurations", "playtimems", "playtime", "watchtime",
        "watchtimems", "watchedseconds", "secondsplayed", "msplayed", "dwelltime", "dwelltimems", "viewtime", "listentime",
    ),
    "session": ("sessionid", "usersession", "session", "visitid"),
}  # fmt: skip
ITEM_NAMES: Mapping[str, tuple[str, ...]] = {
    "item": (*PLAY_NAMES["item"], "id"),
    "title": (
        "title",
        "name",
        "itemname",
        "itemtitle",
        "producttitle",
        "productname",
        "movietitle",
        "videotitle",
        "headline",
    ),
}
REQUIRED = {"user": "who played", "item": "what was played", "time": "when it was played"}
_SIGNS = re.compile(r"[^a-z0-9]")


@dataclass(frozen=True, slots=True)
class Roles:
    """Columns by role. ``given``: the roles that were said and not guessed. ``others``: columns without a role, in the table's
    order.
    """

    columns: Mapping[str, str]
    given: frozenset[str]
    others: tuple[str, ...]

    def get(self, role: str) -> str | None:
        """The column of a role; None where the table has none."""
        return self.columns.get(role)


def find_roles(
    file: str,
    names: Sequence[str],
    known: Mapping[str, tuple[str, ...]],
    given: Mapping[str, str | None],
    required: Mapping[str, str],
    leave_out: Sequence[str] = (),
) -> Roles:
    """The column of each role in ``known``: the one that is ``given``, else the one with the likeliest name.

    Raises: ConfigError for a column that is not there, one that was given two roles, or a required role without a column.
    """
    chosen: dict[str, str] = {}
    for role, name in given.items():
        if name is not None:
            check_column(file, f"--{role.replace('_', '-')}", name, names)
            other = next((of for of, column in chosen.items() if column == name), None)
            if other is not None:
                raise ConfigError(f"{file}: column {name} is given as {other} and as {role}: give each its own column")
            chosen[role] = name
    for name in leave_out:
        check_column(file, "--leave-out", name, names)
    for role, likely in known.items():
        if role not in chosen:
            free = {
                _SIGNS.sub("", name.lower()): name
                for name in reversed(names)
                if name not in (*chosen.values(), *leave_out)
            }
            found = next((free[name] for name in likely if name in free), None)
            if found is not None:
                chosen[role] = found
    for role, meaning in required.items():
        if role not in chosen:
            raise ConfigError(
                f"{file}: no column says {meaning}: name it with --{role.replace('_', '-')} COLUMN; "
                f"the columns are {', '.join(names)[:300]}"
            )
    others = tuple(name for name in names if name not in chosen.values() and name not in leave_out)
    return Roles(chosen, frozenset(role for role, name in given.items() if name is not None), others)


def check_no_lists(file: str, roles: Roles, schema: pa.Schema) -> None:
    """Raises: ConfigError for a role whose column holds lists."""
    for role, name in roles.columns.items():
        if pa.types.is_nested(schema.field(name).type):
            raise ConfigError(
                f"{file}: column {name} holds lists, and cannot say the {role.replace('_', ' ')}: name another one with "
                f"--{role.replace('_', '-')} COLUMN"
            )


def check_column(file: str, option: str, name: str, names: Sequence[str]) -> None:
    """Raises: ConfigError when the table has no such column, with the one that was probably meant."""
    if name not in names:
        close = get_close_matches(name, names, n=1)
        meant = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(
            f"{option} {name}: {file} has no such column; its columns are {', '.join(names)[:300]}{meant}"
        )
