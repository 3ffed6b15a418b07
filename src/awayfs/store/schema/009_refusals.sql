-- Schema 9: what the server did not let this account look into when it was last asked.

CREATE TABLE refusals (
    node INTEGER PRIMARY KEY             -- nodes.id: its content or its names were refused
) STRICT;
