"""Training of the face networks on one's own crops: `python -m training.train --help`."""
