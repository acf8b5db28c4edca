from django.db import migrations, models


def keep_old_name(apps, schema_editor):
    """Version 1.0 goes on beside this one, where they share a server: it reads and writes vectors here.

    A file in it would be taken for a vector.
    """
    # A restore calls it for an older backup, without an editor: there the view exists.
    if schema_editor and schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(
            "CREATE VIEW enrollment_vectordeletion AS"
            " SELECT id, embedding_id, partition, created_at FROM enrollment_removal WHERE file = ''"
        )


def forget_old_name(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("DROP VIEW IF EXISTS enrollment_vectordeletion")


class Migration(migrations.Migration):
    dependencies = [("enrollment", "0013_access_tokens")]

    operations = [
        migrations.RenameModel("VectorDeletion", "Removal"),
        migrations.AlterField(
            model_name="removal", name="embedding_id", field=models.BigIntegerField(null=True)
        ),
        migrations.AlterField(
            model_name="removal",
            name="partition",
            field=models.CharField(blank=True, max_length=120),
        ),
        migrations.AddField(
            model_name="removal",
            name="file",
            field=models.CharField(
                blank=True, db_default="", default="", help_text="empty: it is a vector", max_length=200
            ),
        ),
        migrations.RunPython(
            keep_old_name, forget_old_name, hints={"repeated_by_restore": True}
        ),
    ]
