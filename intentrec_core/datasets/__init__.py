"""Public data sets as plays and a catalogue."""
