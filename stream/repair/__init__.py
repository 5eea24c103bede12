"""Tools for operators: dead letters sent again, histories shown and verified."""
