"""Train the face networks on your own crops: `python -m training.train --help`."""
