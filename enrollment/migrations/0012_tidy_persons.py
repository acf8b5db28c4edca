"""Fills what persons are found by, and gives ids the one spelling in which they are kept."""

from django.db import migrations

from enrollment.models import tidy_rows


def tidy(apps, schema_editor):
    renamed = tidy_rows(apps.get_model("enrollment", "Person").objects)
    # Milvus holds the old id; the backlog or `reindex` tells it the new one.
    embeddings = apps.get_model("enrollment", "FaceEmbedding").objects.filter(status="indexed")
    for start in range(0, len(renamed), 1000):
        some = renamed[start : start + 1000]
        embeddings.filter(face_image__person__in=some).update(status="pending")


class Migration(migrations.Migration):
    dependencies = [("enrollment", "0011_finding_persons")]

    operations = [
        # A restore does it to the rows of an older backup.
        migrations.RunPython(
            tidy, migrations.RunPython.noop, hints={"repeated_by_restore": True}
        )
    ]
