//! Walking a table by its key: where it begins and ends, and where each chunk does.
use crate::{Error, Result, changes::Backfill};
use anyhow::anyhow;
use sqlx::{
    PgConnection,
    query::{Query, QueryScalar},
};

/// The key of a table, ready to be put into statements. Values travel as text and are cast to the columns' types.
pub(super) struct Key<'a> {
    backfill: &'a Backfill,
    types: Vec<String>,
}

impl<'a> Key<'a> {
    pub(super) async fn of(conn: &mut PgConnection, backfill: &'a Backfill) -> Result<Self> {
        let mut types = Vec::new();
        for column in &backfill.key {
            let read = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute
                        WHERE attrelid = $1::text::regclass AND attname = $2 AND NOT attisdropped";
            let found: Option<String> =
                sqlx::query_scalar(read).bind(&backfill.table).bind(column).fetch_optional(&mut *conn).await?;
            let missing = || Error::internal(anyhow!("table {} has no column {column}", backfill.table));
            types.push(found.ok_or_else(missing)?);
        }
        Ok(Self { backfill, types })
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
    pub(super) async fn ends(&self, conn: &mut PgConnection) -> Result<Option<(Vec<String>, Vec<String>)>> {
        let (table, texts) = (&self.backfill.table, self.as_texts());
        let one = |order: &str| {
            let order: Vec<_> = self.backfill.key.iter().map(|column| format!("{column} {order}")).collect();
            format!("SELECT ARRAY[{texts}] FROM {table} ORDER BY {} LIMIT 1", order.join(", "))
        };
        let first: Option<Vec<String>> = sqlx::query_scalar(&one("ASC")).fetch_optional(&mut *conn).await?;
        let last: Option<Vec<String>> = sqlx::query_scalar(&one("DESC")).fetch_optional(conn).await?;
        Ok(first.zip(last))
    }

    /// Where `rows` rows from that key on end, and which key comes after them. Only rows that differ are looked at,
    /// where that is asked for.
    pub(super) async fn probe(
        &self,
        conn: &mut PgConnection,
        (from, upper): (&[String], &[String]),
        rows: i32,
        only_differing: bool,
    ) -> Result<(Option<Vec<String>>, Option<Vec<String>>)> {
        let (columns, count) = (self.columns(), self.types.len());
        let differs = if only_differing { format!(" AND ({})", self.backfill.differs) } else { String::new() };
        let read = format!(
            "SELECT ARRAY[{}] FROM {} WHERE ({columns}) >= ({}) AND ({columns}) <= ({}){differs}
             ORDER BY {columns} OFFSET {} LIMIT 2",
            self.as_texts(),
            self.backfill.table,
            self.parameters(1),
            self.parameters(1 + count),
            rows - 1,
        );
        let query = from.iter().chain(upper).fold(sqlx::query_scalar(&read), QueryScalar::bind);
        let mut found: Vec<Vec<String>> = query.fetch_all(conn).await?;
        let next = (found.len() > 1).then(|| found.remove(1));
        Ok((found.pop(), next))
    }

    /// Runs the backfill's statement on the rows from one key up to another, both included; gives how many it changed.
    pub(super) async fn fill(
        &self,
        conn: &mut PgConnection,
        from: &[String],
        upto: &[String],
    ) -> Result<u64, sqlx::Error> {
        let count = self.types.len();
        let sql = self.backfill.sql.replace(":from", &self.parameters(1)).replace(":upto", &self.parameters(1 + count));
        let query = from.iter().chain(upto).fold(sqlx::query(&sql), Query::bind);
        Ok(query.execute(conn).await?.rows_affected())
    }
}

/// Counts the rows of a backfill's table that are not filled.
pub(crate) async fn differing(conn: &mut PgConnection, backfill: &Backfill) -> Result<i64, sqlx::Error> {
    let read = format!("SELECT count(*) FROM {} WHERE {}", backfill.table, backfill.differs);
    sqlx::query_scalar(&read).fetch_one(conn).await
}

/// Names a row that is not filled, by its key.
pub(crate) async fn differing_row(conn: &mut PgConnection, backfill: &Backfill) -> Result<Option<String>, sqlx::Error> {
    let texts = backfill.key.iter().map(|column| format!("{column}::text")).collect::<Vec<_>>().join(", ");
    let read = format!("SELECT concat_ws(', ', {texts}) FROM {} WHERE {} LIMIT 1", backfill.table, backfill.differs);
    sqlx::query_scalar(&read).fetch_optional(conn).await
}
