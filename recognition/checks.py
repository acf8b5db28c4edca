"""System checks of the recognition settings; they open no connection and import no torch."""
