"""Adds what ids are sorted by: their numbers by value."""

from django.db import migrations, models

from enrollment.models import fill_order


def fill(apps, schema_editor):
    fill_order(apps.get_model("enrollment", "Person").objects)


class Migration(migrations.Migration):
    dependencies = [("enrollment", "0021_inbox")]

    operations = [
        migrations.AddField(
            model_name="person",
            name="id_order",
            field=models.CharField(
                db_default="",  # version 1.0 goes on beside this one, and does not know the column
                db_index=True,
                default="",
                editable=False,
                help_text="What ids are sorted by: their numbers by value.",
                max_length=200,
            ),
        ),
        # A restore does it to the rows of an older backup.
        migrations.RunPython(
            fill, migrations.RunPython.noop, hints={"repeated_by_restore": True}
        ),
    ]
