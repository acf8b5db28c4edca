
import django.core.validators
import enrollment.models
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("enrollment", "0010_picture_chosen_face"),
    ]

    operations = [
        migrations.AddField(
            model_name="person",
            name="id_key",
            field=models.CharField(
                db_index=True,
                db_default="",  # version 1.0 goes on beside this one, and does not know the column
                default="",
                editable=False,
                help_text="The id's letters and digits: ids that differ in nothing else are easily mistaken.",
                max_length=200,
            ),
        ),
        migrations.AddField(
            model_name="person",
            name="name_key",
            field=models.CharField(
                db_index=True,
                db_default="",  # version 1.0 goes on beside this one, and does not know the column
                default="",
                editable=False,
                help_text="The name without accents and case: empty, or whose name is the same.",
                max_length=200,
            ),
        ),
        migrations.AddField(
            model_name="person",
            name="search_text",
            field=models.TextField(
                db_default="",
                default="",
                editable=False,
                help_text="What the words of a search are looked for in.",
            ),
        ),
        migrations.AlterField(
            model_name="person",
            name="notes",
            field=models.TextField(
                blank=True,
                validators=[django.core.validators.MaxLengthValidator(10000)],
                verbose_name="notes",
            ),
        ),
        migrations.AlterField(
            model_name="person",
            name="person_id",
            field=enrollment.models.PersonIdField(
                error_messages={
                    "blank": "The person's id is blank. Give a CPF, a name, or any text.",
                    "unique": "There is already a person with this id. Add the pictures there.",
                },
                help_text="What other programs call this person: a CPF, a name, any text.",
                max_length=200,
                unique=True,
                verbose_name="person id",
            ),
        ),
    ]
