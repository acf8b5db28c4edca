"""`python -m faceproject.benchmark.gallery MODEL SIZE`: a gallery of made-up vectors.

It is written into the installation that the environment names, which is to be one of
`Installation`, in bulk: first the rows in SQL, then their vectors under the rows' ids.
"""

from __future__ import annotations

import sys
from typing import Final

ROWS_AT_A_TIME: Final = 1_000
# As detection stores it, so that rows are as long as real ones.
FACE: Final = {
    "box": [30.5, 41.25, 97.5, 118.75],
    "score": 0.9987,
    "landmarks": [[60.25, 80.5], [95.75, 79.25], [78.5, 104.75], [64.5, 126.25], [92.25, 125.5]],
}


def fill(model: str, size: int) -> None:
    """Add people, pictures and vectors until there are `size` pictures. Django must be set up."""
    from django.core.management import call_command
    from django.utils import timezone

    from enrollment.models import FaceEmbedding, FaceImage, Person
    from recognition.benchmark import made_up_rows
    from recognition.networks import find_weights
    from recognition.vector_store import get_vector_store, partition_name

    call_command("migrate", verbosity=0)
    now = timezone.now()
    fingerprint = find_weights(model).fingerprint
    store = get_vector_store()
    for rows in made_up_rows(FaceImage.objects.count(), size):
        Person.objects.bulk_create(
            (Person(person_id=name) for name in dict.fromkeys(row.person_id for row in rows)),
            batch_size=ROWS_AT_A_TIME,
            ignore_conflicts=True,  # the first may have pictures already
        )
        names = {row.person_id for row in rows}
        persons = dict(Person.objects.filter(person_id__in=names).values_list("person_id", "pk"))
        FaceImage.objects.bulk_create(
            (
                FaceImage(
                    pk=row.id,
                    person_id=persons[row.person_id],
                    image=f"pictures/{row.id}.jpg",
                    original_path=row.image_path,
                    width=250,
                    height=250,
                    judged_at=now,
                )
                for row in rows
            ),
            batch_size=ROWS_AT_A_TIME,
        )
        FaceEmbedding.objects.bulk_create(
            (
                FaceEmbedding(
                    pk=row.id,
                    face_image_id=row.id,
                    model=model,
                    fingerprint=fingerprint,
                    vector=row.embedding.astype("<f4").tobytes(),
                    face_detected=True,
                    face=FACE,
                    status=FaceEmbedding.Status.INDEXED,
                    indexed_at=now,
                )
                for row in rows
            ),
            batch_size=ROWS_AT_A_TIME,
        )
        store.upsert(partition_name(model, fingerprint), rows)
    store.flush()


if __name__ == "__main__":
    import django

    django.setup()
    fill(sys.argv[1], int(sys.argv[2]))
