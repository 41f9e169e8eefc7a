-- Every accepted bid updates its item's row. With room left on the page the new version stays there (a heap-only tuple), and
-- the primary key's index is not touched. Pages that are full already gain it as their rows are updated.

ALTER TABLE items SET (fillfactor = 80);
