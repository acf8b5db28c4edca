from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("enrollment", "0014_removals")]

    operations = [
        migrations.AddField(
            model_name="doubt",
            name="persons",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                editable=False,
                help_text="keys of whom the picture, and the other, belonged to when they were compared",
                max_length=50,
            ),
        ),
        migrations.AddField(
            model_name="doubt",
            name="dismissed_at",
            field=models.DateTimeField(editable=False, null=True, verbose_name="dismissed at"),
        ),
        migrations.AddField(
            model_name="doubt",
            name="dismissed_by",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                editable=False,
                max_length=150,
                verbose_name="dismissed by",
            ),
        ),
    ]
