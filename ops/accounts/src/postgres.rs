//! The roles at PostgreSQL. Rights belong to groups, which nobody logs in as; accounts are members of them, so that a
//! password is changed by a second account beside the first. What each group may do with which table is granted by
//! `bidctl migrate`, as the application has it.
use postgres_protocol::password::scram_sha_256;
use std::fmt::Write;

/// Owns the database and everything in it; nobody logs in as it.
pub const OWNER: &str = "gavel_owner";

/// An account at PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Changes the schema and runs backfills: acts as the owner.
    Migrator,
    /// `bid-service`.
    Service,
    /// `bid-worker`.
    Worker,
    /// Whoever asks `bidctl doctor`: reads what the runtime keeps.
    Operator,
    /// Whoever looks into the data: reads everything, writes nothing.
    Reader,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Migrator, Self::Service, Self::Worker, Self::Operator, Self::Reader];

    /// The name to log in with.
    pub fn account(self) -> &'static str {
        match self {
            Self::Migrator => "gavel_migrator",
            Self::Service => "gavel_service",
            Self::Worker => "gavel_worker",
            Self::Operator => "gavel_operator",
            Self::Reader => "gavel_reader",
        }
    }

    /// The group that has the rights.
    pub fn group(self) -> &'static str {
        match self {
            Self::Migrator => OWNER,
            Self::Service => "gavel_services",
            Self::Worker => "gavel_workers",
            Self::Operator => "gavel_operators",
            Self::Reader => "gavel_readers",
        }
    }

    /// What belongs to PostgreSQL itself and is the group's as well.
    fn of_the_server(self) -> &'static str {
        match self {
            // Replicas, vacuums and everybody's sessions: a backfill heeds them.
            Self::Migrator => "pg_monitor",
            // Whose sessions there are, under which names.
            Self::Service | Self::Worker | Self::Operator => "pg_read_all_stats",
            Self::Reader => "pg_read_all_data",
        }
    }

    /// What holds for each of its sessions.
    fn settings(self) -> &'static [&'static str] {
        match self {
            Self::Migrator => &["role = gavel_owner"],
            Self::Reader => &["default_transaction_read_only = on", "statement_timeout = '30s'"],
            Self::Service | Self::Worker | Self::Operator => &[],
        }
    }
}

/// What an administrator runs in the database, whose name is `database`: makes what is missing of groups and accounts,
/// sets passwords, and hands over to the owner what others own. It may be run again at any time. Passwords are in it as
/// PostgreSQL keeps them, so that they can't be read out of it.
pub fn roles_sql(database: &str, passwords: &[(Role, &str)]) -> String {
    let mut sql = String::from("-- Roles of Gavel. An administrator runs it in the database; it may be run again.\n");
    for role in Role::ALL {
        let (group, server) = (role.group(), role.of_the_server());
        let _ = writeln!(sql, "{}\nGRANT {server} TO {group};", made(group, "NOLOGIN"));
        let _ = writeln!(sql, "GRANT CONNECT ON DATABASE {} TO {group};", quoted(database));
    }
    for (role, password) in passwords {
        let (account, group, kept) = (role.account(), role.group(), scram_sha_256(password.as_bytes()));
        let _ = writeln!(sql, "{}\nALTER ROLE {account} PASSWORD '{kept}';", made(account, "LOGIN"));
        let _ = writeln!(sql, "GRANT {group} TO {account};");
        role.settings().iter().for_each(|setting| {
            let _ = writeln!(sql, "ALTER ROLE {account} SET {setting};");
        });
    }
    let _ = writeln!(sql, "REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC;", quoted(database));
    let _ = writeln!(sql, "ALTER DATABASE {} OWNER TO {OWNER};", quoted(database));
    sql + HAND_OVER
}

fn made(role: &str, how: &str) -> String {
    format!(
        "DO $$ BEGIN\n  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN CREATE ROLE {role} {how}; END IF;\nEND $$;"
    )
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What others own of the application's: of a database that was there before there were roles.
const HAND_OVER: &str = "DO $$ DECLARE what text; BEGIN
  FOR what IN
    SELECT format('%s %s', CASE c.relkind WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, c.oid::regclass)
    FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S')
      AND c.relowner <> 'gavel_owner'::regrole
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype IN ('a', 'e', 'i'))
    UNION ALL
    SELECT format('ROUTINE %s', p.oid::regprocedure) FROM pg_proc p
    WHERE p.pronamespace = 'public'::regnamespace AND p.proowner <> 'gavel_owner'::regrole
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
    UNION ALL
    SELECT format('TYPE %s', t.oid::regtype) FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
    WHERE t.typnamespace = 'public'::regnamespace AND t.typowner <> 'gavel_owner'::regrole
      AND t.typtype IN ('c', 'd', 'e') AND (c.oid IS NULL OR c.relkind = 'c')
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = t.oid AND d.deptype = 'e')
  LOOP
    EXECUTE format('ALTER %s OWNER TO gavel_owner', what);
  END LOOP;
END $$;
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_can_not_be_read_out_of_what_makes_it() {
        let sql = roles_sql("gavel", &[(Role::Service, "correct horse")]);
        assert!(sql.contains("ALTER ROLE gavel_service PASSWORD 'SCRAM-SHA-256$4096:"), "{sql}");
        assert!(!sql.contains("correct horse"), "{sql}");
    }

    #[test]
    fn the_name_of_a_database_is_no_sql() {
        assert!(roles_sql("a\"; DROP", &[]).contains("DATABASE \"a\"\"; DROP\" TO"));
    }
}
