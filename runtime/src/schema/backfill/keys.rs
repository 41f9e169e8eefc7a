//! Walking a table by its key: where it begins and ends, and where each chunk does.
use crate::{Conn, Error, Result, changes::Backfill};
use anyhow::anyhow;
use sqlx::query::{Query, QueryScalar};

/// The key of a table, ready to be put into statements. Values travel as text and are cast to the columns' types.
pub(super) struct Key<'a> {
    backfill: &'a Backfill,
    types: Vec<String>,
}

impl<'a> Key<'a> {
    pub(super) async fn of(conn: &mut Conn, backfill: &'a Backfill) -> Result<Self> {
        let read = "SELECT format_type(a.atttypid, a.atttypmod)
                    FROM unnest($2) WITH ORDINALITY AS k (name, nth)
                    LEFT JOIN pg_attribute a
                      ON a.attrelid = $1::text::regclass AND a.attname = k.name AND NOT a.attisdropped
                    ORDER BY k.nth";
        let found: Vec<Option<String>> =
            sqlx::query_scalar(read).bind(&backfill.table).bind(&backfill.key).fetch_all(conn).await?;
        let missing = |column| Error::internal(anyhow!("table {} has no column {column}", backfill.table));
        let types = backfill.key.iter().zip(found).map(|(column, kind)| kind.ok_or_else(|| missing(column)));
        Ok(Self { backfill, types: types.collect::<Result<_>>()? })
    }

    fn columns(&self) -> String {
        self.backfill.key.join(", ")
    }

    fn as_texts(&self) -> String {
        self.backfill.key.iter().map(|column| format!("{column}::text")).collect::<Vec<_>>().join(", ")
    }

    /// Parameters from `first` on, cast to the columns' types.
    fn parameters(&self, first: usize) -> String {
        let cast = |(nth, kind): (usize, &String)| format!("${}::text::{kind}", first + nth);
        self.types.iter().enumerate().map(cast).collect::<Vec<_>>().join(", ")
    }

    /// The first and the last key there are; none in an empty table.
    pub(super) async fn ends(&self, conn: &mut Conn) -> Result<Option<(Vec<String>, Vec<String>)>> {
        let (table, texts) = (&self.backfill.table, self.as_texts());
        let one = |order: &str| {
            let order: Vec<_> = self.backfill.key.iter().map(|column| format!("{column} {order}")).collect();
            format!("SELECT ARRAY[{texts}] FROM {table} ORDER BY {} LIMIT 1", order.join(", "))
        };
        let first: Option<Vec<String>> = sqlx::query_scalar(&one("ASC")).fetch_optional(&mut *conn).await?;
        let last: Option<Vec<String>> = sqlx::query_scalar(&one("DESC")).fetch_optional(conn).await?;
        Ok(first.zip(last))
    }

    /// The next `rows` rows from that key on; none where there are no more. In later walks only those that are not
    /// filled are looked for: between them there may be any number of others.
    pub(super) async fn probe(
        &self,
        conn: &mut Conn,
        (from, upper): (&[String], &[String]),
        rows: i32,
        is_later: bool,
    ) -> Result<Option<Found>, sqlx::Error> {
        let (columns, count) = (self.columns(), self.types.len());
        let differs = if is_later { format!(" AND ({})", self.backfill.differs) } else { String::new() };
        // The first walk takes all rows as they come: where the next ones end is all that is asked.
        let which = if is_later { format!("LIMIT {}", rows + 1) } else { format!("OFFSET {} LIMIT 2", rows - 1) };
        let read = format!(
            "SELECT ARRAY[{}] FROM {} WHERE ({columns}) >= ({}) AND ({columns}) <= ({}){differs}
             ORDER BY {columns} {which}",
            self.as_texts(),
            self.backfill.table,
            self.parameters(1),
            self.parameters(1 + count),
        );
        let query = from.iter().chain(upper).fold(sqlx::query_scalar(&read), QueryScalar::bind);
        let found: Vec<Vec<String>> = query.fetch_all(conn).await?;
        let rows = usize::try_from(rows).unwrap_or(usize::MAX);
        Ok(if is_later { later(found, rows) } else { Some(first(found, from, upper, rows)) })
    }

    /// Runs the backfill's statement on the rows from one key up to another, both included; gives how many it changed.
    pub(super) async fn fill(&self, conn: &mut Conn, from: &[String], upto: &[String]) -> Result<u64, sqlx::Error> {
        let count = self.types.len();
        let sql = self.backfill.sql.replace(":from", &self.parameters(1)).replace(":upto", &self.parameters(1 + count));
        let query = from.iter().chain(upto).fold(sqlx::query(&sql), Query::bind);
        Ok(query.execute(conn).await?.rows_affected())
    }
}

/// Rows that follow each other.
pub(super) struct Found {
    pub(super) from: Vec<String>,
    pub(super) upto: Vec<String>,
    /// The first key after them; none where there is none.
    pub(super) next: Option<Vec<String>>,
    /// How many; none where fewer than were asked for are left.
    pub(super) rows: Option<i32>,
}

/// Of the first walk: the last of so many rows, and the one after it.
fn first(found: Vec<Vec<String>>, from: &[String], upper: &[String], rows: usize) -> Found {
    let mut found = found.into_iter();
    let last = found.next();
    Found {
        from: from.to_vec(),
        rows: last.as_ref().and_then(|_| i32::try_from(rows).ok()),
        upto: last.unwrap_or_else(|| upper.to_vec()),
        next: found.next(),
    }
}

/// Of a later walk: all keys that are left, up to so many and one more.
fn later(mut found: Vec<Vec<String>>, rows: usize) -> Option<Found> {
    let next = if found.len() > rows { found.pop() } else { None };
    let rows = i32::try_from(found.len()).ok();
    let upto = found.pop()?;
    let from = if found.is_empty() { upto.clone() } else { found.swap_remove(0) };
    Some(Found { from, upto, next, rows })
}

/// Counts the rows of a backfill's table that are not filled.
pub(crate) async fn differing(conn: &mut Conn, backfill: &Backfill) -> Result<i64, sqlx::Error> {
    let read = format!("SELECT count(*) FROM {} WHERE {}", backfill.table, backfill.differs);
    sqlx::query_scalar(&read).fetch_one(conn).await
}

/// Names a row that is not filled, by its key.
pub(crate) async fn differing_row(conn: &mut Conn, backfill: &Backfill) -> Result<Option<String>, sqlx::Error> {
    let texts = backfill.key.iter().map(|column| format!("{column}::text")).collect::<Vec<_>>().join(", ");
    let read = format!("SELECT concat_ws(', ', {texts}) FROM {} WHERE {} LIMIT 1", backfill.table, backfill.differs);
    sqlx::query_scalar(&read).fetch_optional(conn).await
}
