"""The trainer: event log, training runs, gate, leader lock."""
