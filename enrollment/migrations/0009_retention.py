import enrollment.models
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("enrollment", "0008_search_log")]

    operations = [
        migrations.AddField(
            model_name="person",
            name="legal_basis",
            field=models.CharField(
                blank=True,
                default="",
                help_text="What allows keeping these pictures, and for what: a consent and its day, a law.",
                max_length=500,
                verbose_name="legal basis",
            ),
            preserve_default=False,
        ),
        # Whoever is enrolled already gets no last day, whatever PERSON_KEEP_DAYS says.
        migrations.AddField(
            model_name="person",
            name="keep_until",
            field=models.DateField(null=True),
        ),
        migrations.AlterField(
            model_name="person",
            name="keep_until",
            field=models.DateField(
                blank=True,
                db_index=True,
                default=enrollment.models.default_keep_until,
                help_text="When this day is over, the person is deleted with all pictures and vectors. Empty: kept until somebody deletes them.",
                null=True,
                validators=[enrollment.models.validate_not_past],
                verbose_name="keep until",
            ),
        ),
    ]
