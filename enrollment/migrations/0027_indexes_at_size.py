"""Indexes for a hundred thousand people: pictures by day, searches by decision and day, and none that misleads SQLite
into looking for the embeddings of one person among all."""

from django.db import migrations, models
from django.utils import timezone


class Migration(migrations.Migration):
    dependencies = [("enrollment", "0026_words")]

    operations = [
        migrations.RemoveIndex(model_name="faceembedding", name="embedding_weights"),
        migrations.RemoveIndex(model_name="faceembedding", name="embedding_computed"),
        migrations.AddIndex(
            model_name="faceembedding",
            index=models.Index(
                condition=models.Q(("vector__isnull", False)),
                fields=["face_image", "model", "fingerprint"],
                name="embedding_computed",
            ),
        ),
        migrations.AlterField(
            model_name="faceimage",
            name="created_at",
            field=models.DateTimeField(
                db_index=True,
                default=timezone.now,
                editable=False,
                verbose_name="created at",
            ),
        ),
        migrations.AlterField(
            model_name="searchentry",
            name="decision",
            field=models.CharField(
                blank=True,
                choices=[("match", "Match"), ("review", "Look closely"), ("unknown", "Unknown")],
                max_length=10,
                verbose_name="decision",
            ),
        ),
        migrations.AddIndex(
            model_name="searchentry",
            index=models.Index(fields=["decision", "created_at"], name="search_decisions"),
        ),
    ]
