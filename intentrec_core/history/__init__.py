"""The history of a member, which is the ground state, and its changelog records."""
