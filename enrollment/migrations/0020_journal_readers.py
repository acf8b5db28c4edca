from django.contrib.auth.management import create_permissions
from django.db import migrations


def let_administrators_read(apps, schema_editor):
    """Those who answer for the data read the journal; nobody is given leave to change it."""
    config = apps.get_app_config('enrollment')
    config.models_module = getattr(config, 'models_module', None) or True
    create_permissions(config, apps=apps, verbosity=0)
    permission = apps.get_model('auth', 'Permission').objects.get(
        content_type__app_label='enrollment', codename='view_journalentry'
    )
    for group in apps.get_model('auth', 'Group').objects.filter(name='Administrator'):
        group.permissions.add(permission)


class Migration(migrations.Migration):

    dependencies = [
        ('enrollment', '0019_desk'),
    ]

    operations = [
        # A restore repeats it for the groups of an older backup.
        migrations.RunPython(
            let_administrators_read, migrations.RunPython.noop, hints={'repeated_by_restore': True}
        ),
    ]
