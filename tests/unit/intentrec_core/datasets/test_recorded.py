"""Data sets that are read from a folder, on small files of their formats."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from intentrec_core.datasets.named import RECORDED_SETS, is_present, load_recorded
from intentrec_core.domain.toml import load_domain
from intentrec_core.errors import ConfigError, DataError
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.plays.findings import refuse_meaningless
from intentrec_core.plays.profile import DataProfile, measure
from intentrec_core.plays.table import PlayRow, play_rows

LOG_HEADER = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,play_time_ms,"
    "duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab\n"
)
VIDEO_HEADER = (
    "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,server_height,music_id,"
    "music_type,tag\n"
)
DAY_MS = 86_400_000
APRIL_8_MS = 1_649_376_000_000


def write_movietweetings(root: Path) -> None:
    folder = root / "movietweetings_100k"
    folder.mkdir()
    ratings = ["7::0001::8::1362062400", "7::0002::3::1362062400", "9::0002::10::1362062300", "9::0003::6::1362065000"]
    films = ["0001::Amélie (2001)::Comedy|Romance", "0002::Zero Dark Thirty (2012)::Drama", "0003::An Untitled Film::"]
    (folder / "ratings.dat").write_text("\n".join(ratings) + "\n")
    (folder / "movies.dat").write_text("\n".join(films) + "\n", encoding="utf-8")


def write_beauty(
    root: Path, rows: str = "1,0,1,1318896000\n1,1,2,1318896000\n1,2,3,1328140800\n2,0,2,1318982400\n"
) -> None:
    folder = root / "amazon_beauty"
    folder.mkdir()
    with gzip.open(folder / "beauty_events_with_time.csv.gz", "wt") as file:
        file.write("user,pos,item,timestamp\n" + rows)
    (folder / "Beauty_item2attributes.json").write_text(json.dumps({"1": [4, 17], "2": [], "3": [1]}))


def write_kuairand(root: Path) -> None:
    folder = root / "KuaiRand-Pure" / "data"
    folder.mkdir(parents=True)

    def shown(user: int, video: int, at_ms: int, signals: str, long_view: int, play_ms: int, tab: int) -> str:
        return f"{user},{video},20220408,800,{at_ms},{signals},{long_view},{play_ms},20000,0,0,0,0,{tab}\n"

    first = [
        shown(3, 11, APRIL_8_MS, "1,0,0,0,0,0", 1, 19000, 1),
        shown(3, 12, APRIL_8_MS + 20_000, "0,0,0,0,0,0", 0, 0, 1),
        shown(4, 11, APRIL_8_MS + 30_000, "1,1,1,0,0,0", 1, 60500, 4),
    ]
    second = [shown(3, 13, APRIL_8_MS + 15 * DAY_MS, "1,1,0,1,0,0", 0, 4000, 0)]
    (folder / "log_standard_4_08_to_4_21_pure.csv").write_text(LOG_HEADER + "".join(first))
    (folder / "log_standard_4_22_to_5_08_pure.csv").write_text(LOG_HEADER + "".join(second))
    (folder / "log_random_4_22_to_5_08_pure.csv").write_text(
        LOG_HEADER + shown(3, 99, APRIL_8_MS, "0,0,0,0,0,0", 0, 0, 1)
    )
    videos = [
        '11,5,NORMAL,2022-04-07,ShortImport,1.0,20000.0,720,1280,9,9.0,"12,65"\n',
        "12,5,AD,2022-01-01,Web,1.0,8000.0,720,1280,9,9.0,34\n",
        "13,6,NORMAL,2022-04-22,Web,1.0,,720,1280,9,9.0,\n",
    ]
    (folder / "video_features_basic_pure.csv").write_text(VIDEO_HEADER + "".join(videos))


def plays_of(name: str, root: Path) -> list[PlayRow]:
    return list(play_rows(load_recorded(name, root).plays))


def profile_of(name: str, root: Path) -> DataProfile:
    """What plays and catalogue say to each field of the data set's own domain."""
    found, domain = load_recorded(name, root), load_domain(RECORDED_SETS[name].domain)
    vocabulary = Vocabulary.build(dict.fromkeys(found.plays.column("item_id").to_pylist()))
    table = ItemTable(domain, vocabulary, found.catalogue)
    profile = measure(FeatureBuilder(domain, vocabulary, table), table, found.plays)
    refuse_meaningless(domain, profile, name)
    return profile


def test_ratings_become_plays_in_the_order_of_time_and_then_of_the_file(tmp_path: Path) -> None:
    write_movietweetings(tmp_path)
    plays = plays_of("movietweetings", tmp_path)
    assert [(p.user_id, p.item_id) for p in plays] == [("9", "0002"), ("7", "0001"), ("7", "0002"), ("9", "0003")]
    assert (plays[1].ts_ms, plays[1].context) == (1_362_062_400_000, {"rating": "8"})
    catalogue = load_recorded("movietweetings", tmp_path).catalogue
    film = catalogue.get("0001")
    assert film is not None
    assert (film.title, film.attributes) == ("Amélie (2001)", {"genres": ["Comedy", "Romance"], "year": 2001})
    untitled = catalogue.get("0003")
    assert untitled is not None
    assert untitled.attributes == {"genres": []}


def test_a_line_of_another_form_is_named(tmp_path: Path) -> None:
    write_movietweetings(tmp_path)
    (tmp_path / "movietweetings_100k" / "ratings.dat").write_text("1::2::3::1362062400\n1,2,3\n")
    with pytest.raises(DataError, match=r"ratings.dat: line 2 has 1 columns; allowed: 4"):
        load_recorded("movietweetings", tmp_path)


def test_reviews_of_one_day_keep_the_order_of_the_file(tmp_path: Path) -> None:
    write_beauty(tmp_path)
    plays = plays_of("beauty", tmp_path)
    assert [p.item_id for p in plays if p.user_id == "1"] == ["1", "2", "3"]
    assert plays[0].ts_ms == plays[1].ts_ms == 1_318_896_000_000
    item = load_recorded("beauty", tmp_path).catalogue.get("1")
    assert item is not None
    assert item.attributes == {"attributes": ["4", "17"]}


def test_reviews_that_go_back_in_time_are_refused(tmp_path: Path) -> None:
    write_beauty(tmp_path, "1,0,1,1318896000\n1,1,2,1318895000\n")
    with pytest.raises(DataError, match="line 3: not after line 2"):
        load_recorded("beauty", tmp_path)


def test_a_shown_video_is_a_play_with_its_strongest_signal(tmp_path: Path) -> None:
    write_kuairand(tmp_path)
    plays = plays_of("kuairand-pure", tmp_path)
    assert [(p.user_id, p.item_id, p.action) for p in plays] == [
        ("3", "11", "click"),
        ("3", "12", "skip"),
        ("4", "11", "follow"),
        ("3", "13", "comment"),
    ]
    assert [p.duration_s for p in plays] == [19.0, 0.0, 60.5, 4.0]
    assert plays[2].context == {"tab": "4", "long_view": "1"}
    assert plays[0].ts_ms == APRIL_8_MS
    video = load_recorded("kuairand-pure", tmp_path).catalogue.get("11")
    assert video is not None
    expected = {"tags": ["12", "65"], "released": "2022-04-07", "runtime_s": 20.0, "video_type": "NORMAL"}
    assert dict(video.attributes) == expected


def test_a_log_without_a_column_names_it(tmp_path: Path) -> None:
    write_kuairand(tmp_path)
    path = tmp_path / "KuaiRand-Pure" / "data" / "log_standard_4_08_to_4_21_pure.csv"
    path.write_text(path.read_text().replace(",tab\n", ",other\n"))
    with pytest.raises(DataError, match=r"4_21_pure\.csv.*tab"):
        load_recorded("kuairand-pure", tmp_path)


@pytest.mark.parametrize("name", RECORDED_SETS)
def test_the_domain_of_a_data_set_reads_its_fields(name: str, tmp_path: Path) -> None:
    {"movietweetings": write_movietweetings, "beauty": write_beauty, "kuairand-pure": write_kuairand}[name](tmp_path)
    for field in profile_of(name, tmp_path).fields:
        assert sum(field.plays[1:]) > 0, f"{field.name} has no known value"


@pytest.mark.parametrize("name", RECORDED_SETS)
def test_a_data_set_that_is_not_there_says_which_folder_it_needs(name: str, tmp_path: Path) -> None:
    assert not is_present(name, tmp_path)
    assert not is_present(name, None)
    with pytest.raises(ConfigError, match=RECORDED_SETS[name].folder):
        load_recorded(name, tmp_path)
    with pytest.raises(ConfigError, match="--data-root"):
        load_recorded(name, None)
