//! Whether the server's log of writes is kept elsewhere, as a restore to a moment needs it.
use super::Pool;
use chrono::{DateTime, Utc};
use std::fmt;

/// What the server says of its archiving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Archive {
    is_on: bool,
    archived_at: Option<DateTime<Utc>>,
    failed_at: Option<DateTime<Utc>>,
    failures: i64,
    now: DateTime<Utc>,
}

impl Archive {
    pub(crate) async fn look(reads: &Pool) -> Result<Self, sqlx::Error> {
        let archive = sqlx::query_as!(
            Self,
            r#"SELECT current_setting('archive_mode') <> 'off' AS "is_on!", last_archived_time AS archived_at,
                      last_failed_time AS failed_at, failed_count AS "failures!", clock_timestamp() AS "now!"
               FROM pg_stat_archiver"#
        );
        archive.fetch_one(reads).await
    }

    /// Since when nothing was archived that should have been; none where all was.
    pub(crate) fn failing_since(&self) -> Option<DateTime<Utc>> {
        let failed_at = self.failed_at.filter(|_| self.is_on)?;
        match self.archived_at {
            Some(archived_at) if archived_at >= failed_at => None,
            Some(archived_at) => Some(archived_at),
            None => Some(failed_at),
        }
    }
}

impl fmt::Display for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ago = |at: DateTime<Utc>| (self.now - at).num_seconds().max(0);
        match (self.failing_since(), self.archived_at) {
            (Some(since), _) => {
                write!(f, "the log of writes is archived no more, since {} s; {} failures", ago(since), self.failures)
            }
            (None, _) if !self.is_on => write!(f, "this server does not archive its log of writes"),
            (None, Some(at)) => write!(f, "the log of writes was archived {} s ago", ago(at)),
            (None, None) => write!(f, "nothing of the log of writes was to be archived yet"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fails_where_the_last_try_failed() {
        let at = |seconds| DateTime::from_timestamp(1_800_000_000 + seconds, 0);
        let archive = |is_on, archived: Option<i64>, failed: Option<i64>| Archive {
            is_on,
            archived_at: archived.and_then(at),
            failed_at: failed.and_then(at),
            failures: 3,
            now: at(60).expect("a moment"),
        };
        assert_eq!(archive(true, Some(10), Some(5)).failing_since(), None);
        assert_eq!(archive(true, Some(10), Some(50)).failing_since(), at(10));
        assert_eq!(archive(true, None, Some(50)).failing_since(), at(50));
        assert_eq!(archive(false, None, Some(50)).failing_since(), None, "nobody wants it any more");
        let said = archive(true, Some(10), Some(50)).to_string();
        assert_eq!(said, "the log of writes is archived no more, since 50 s; 3 failures");
        assert_eq!(archive(true, Some(40), None).to_string(), "the log of writes was archived 20 s ago");
    }
}
