"""From plays to weights: members' packed plays, the windows they are trained on, the loop."""
