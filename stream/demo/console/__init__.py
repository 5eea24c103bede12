"""The live terminal view: what is shown (snapshot), whom to show (spotlight), how it looks (screen, panels, bars)."""
