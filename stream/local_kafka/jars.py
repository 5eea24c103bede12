"""Java and the jars of Apache Kafka: found, or fetched once by Maven, or refused in one line that says what to do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from intentrec_core.errors import BrokerError

MIN_JAVA = 17
#: 45 jars, 43 MB: about 20 s over a common line.
FETCH_DEADLINE_S = 600.0
_POM = Path(__file__).parents[2] / "deploy" / "kafka" / "pom.xml"
_NAMESPACE = {"m": "http://maven.apache.org/POM/4.0.0"}


def find_java() -> str:
    """Path of a java that Kafka runs on.

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
        raise BrokerError(f"Kafka needs Java {MIN_JAVA} or newer, {java} is {found}; set JAVA_HOME to a newer one")
    return java


def jars(cache: Path | None = None) -> Path:
    """Folder with Kafka's jars, fetched with Maven when it is not there yet.

    Raises: BrokerError when Maven is missing or cannot fetch them.
    """
    version = kafka_version()
    folder = (cache or Path.home() / ".cache" / "intentrec") / "kafka" / version
    if not folder.is_dir():
        _fetch(folder)
    return folder


def kafka_version() -> str:
    """The Apache Kafka version that the pom names."""
    if not _POM.is_file():
        raise BrokerError("deploy/kafka/pom.xml is missing: run from a checkout, or use a Kafka you have")
    version = ElementTree.parse(_POM).find("m:properties/m:kafka.version", _NAMESPACE)
    if version is None or not version.text:
        raise BrokerError(f"{_POM} names no kafka.version")
    return version.text


def _fetch(folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerError("Kafka's jars are not here and mvn is missing to fetch them; install Maven")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Fetched aside and renamed: an interrupted download must not look like a complete one.
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
            if not folder.is_dir():  # else another process was first
                raise
