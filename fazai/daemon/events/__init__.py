"""Events: one broadcaster for all streams, `GET /events`, and the reports of runs (`POST /events`)."""
