"""Have first pictures judged again that were doubted for less than a match with somebody else."""

from django.db import migrations


def judge_anew(apps, schema_editor):
    pictures = apps.get_model("enrollment", "FaceImage").objects
    doubted = pictures.filter(doubts__code="looks_like_someone_else", doubts__dismissed_at=None)
    pictures.filter(pk__in=doubted.values("pk")).update(judged_at=None)


class Migration(migrations.Migration):
    dependencies = [("enrollment", "0029_countable_names")]

    operations = [
        migrations.RunPython(
            judge_anew, migrations.RunPython.noop, hints={"repeated_by_restore": True}
        )
    ]
