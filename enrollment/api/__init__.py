"""The calls about the gallery; `recognition.api` has those that store nothing."""
