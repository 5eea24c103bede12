"""The live terminal view: its data (snapshot), the choice of members (spotlight), and the drawing (screen, panels, bars)."""
