-- Schema 4: variants in the history of which a part was never here.

CREATE TABLE history_partial (
    id INTEGER PRIMARY KEY               -- history.id; its file has holes for what is not known
) STRICT;
