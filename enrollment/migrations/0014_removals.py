from django.db import migrations, models


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
                blank=True, default="", help_text="empty: it is a vector", max_length=200
            ),
            preserve_default=False,
        ),
    ]
