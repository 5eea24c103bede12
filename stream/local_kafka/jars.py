"""Finds Java and the jars of Apache Kafka. Maven fetches the jars once; an error says in one line what to install."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from intentrec_core.datasets.download import default_cache_dir
from intentrec_core.errors import BrokerError

MIN_JAVA = 17
#: 45 jars, 43 MB: about 20 s on a typical connection.
FETCH_DEADLINE_S = 600.0
_POM = Path(__file__).parents[2] / "deploy" / "kafka" / "pom.xml"
_NAMESPACE = {"m": "http://maven.apache.org/POM/4.0.0"}


def find_java() -> str:
    """Path of a Java that can run Kafka: from JAVA_HOME if set, else from PATH.

    Raises: BrokerError when there is none, or it is too old.
    """
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if java is None:
        raise BrokerError(f"no java found; install Java {MIN_JAVA} or newer, or use the embedded broker")
    shown = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=False).stderr
    version = re.search(r'version "(\d+)', shown)
    if version is None or int(version[1]) < MIN_JAVA:
        found = version[0] if version else "unknown version"
        raise BrokerError(f"Kafka needs Java {MIN_JAVA} or newer, but {java} is {found}; set JAVA_HOME to a newer Java")
    return java


def jars(cache: Path | None = None) -> Path:
    """The folder with Kafka's jars. Maven fetches them if the folder does not exist.

    Raises: BrokerError when Maven is missing or cannot fetch them.
    """
    version = kafka_version()
    folder = (cache or default_cache_dir()) / "kafka" / version
    if not folder.is_dir():
        _fetch(folder)
    return folder


def kafka_version() -> str:
    """The version of Apache Kafka in deploy/kafka/pom.xml."""
    if not _POM.is_file():
        raise BrokerError("deploy/kafka/pom.xml is missing: run from a checkout, or use an existing Kafka")
    version = ElementTree.parse(_POM).find("m:properties/m:kafka.version", _NAMESPACE)
    if version is None or not version.text:
        raise BrokerError(f"{_POM} has no property kafka.version")
    return version.text


def _fetch(folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerError("Kafka's jars are missing, and so is mvn to fetch them; install Maven")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Fetch into a temporary folder and rename it: an interrupted download must not look complete.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as aside:
        target = Path(aside) / "jars"
        command = [maven, "-q", "-B", "-f", str(_POM), "dependency:copy-dependencies", f"-DoutputDirectory={target}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_DEADLINE_S, check=False)
        except subprocess.TimeoutExpired:
            raise BrokerError(f"fetching Kafka's jars took longer than {FETCH_DEADLINE_S:.0f} s; try again") from None
        if done.returncode:
            problem = next((line for line in done.stdout.splitlines() if "ERROR" in line), "no message")
            raise BrokerError(f"Maven could not fetch Kafka's jars: {problem.strip()[:300]}")
        try:
            target.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was faster
                raise
