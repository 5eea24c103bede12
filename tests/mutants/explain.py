"""Faults in explanations and in what the doctor says: a list explained by something else than what made it."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

PARTS, EXPLAIN, FILTERS = "stream/pipeline/score_parts.py", "stream/repair/explain.py", "index/filters.py"
MODEL, BROKER = "stream/doctor/model.py", "stream/doctor/broker.py"
TEST, TEST_DOCTOR = "tests/unit/stream/repair/test_explain.py", "tests/integration/test_doctor.py"

EXPLANATIONS = (
    Mutant(
        "explain: own items and successors are no part of the score",
        (Edit(PARTS, "            part[offsets.row] += offsets.offset\n", ""),),
        (TEST,),
    ),
    Mutant(
        "explain: the intents of an item are those of another head",
        (Edit(PARTS, "vectors[:, begin:end] @ query[begin:end]", "vectors[:, end - 1 : end] @ query[end - 1 : end]"),),
        (TEST,),
    ),
    Mutant(
        "explain: what a member watched is hidden whatever the intent",
        (Edit(PARTS, "    if retrieval.hides(encoded)[0]:\n", "    if True:\n"),),
        (TEST,),
    ),
    Mutant(
        "explain: a filter hides what it lets through",
        (Edit(FILTERS, "self._shown & ~np.broadcast_to(", "self._shown & np.broadcast_to("),),
        (TEST,),
    ),
    Mutant(
        "explain: attention of the oldest play first",
        (Edit(EXPLAIN, "    return shown[::-1]\n", "    return shown\n"),),
        (TEST,),
    ),
    Mutant(
        "doctor: a bundle of another domain passes",
        (
            Edit(
                MODEL,
                "    if domain is not None and loaded.domain.fingerprint != domain.fingerprint:\n",
                "    if False:\n",
            ),
        ),
        (f"{TEST_DOCTOR}::test_a_bundle_of_another_domain_is_an_error",),
    ),
    Mutant(
        "doctor: the announced bundle is looked for in the store that is set here",
        (Edit(MODEL, "BundleStore(announcement.url or settings.bundle_url,", "BundleStore(settings.bundle_url,"),),
        (f"{TEST_DOCTOR}::test_the_announced_bundle_is_looked_for_where_the_announcement_says",),
    ),
    Mutant(
        "doctor: it asks for topics by their names, which creates them on the embedded broker",
        (
            Edit(
                BROKER,
                "await admin.describe_topics()}",
                "await admin.describe_topics(list(settings.topics))}",
            ),
        ),
        (f"{TEST_DOCTOR}::test_missing_topics_are_named_and_not_created",),
    ),
)
